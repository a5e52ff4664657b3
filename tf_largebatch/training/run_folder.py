"""The folder of a run: whose it is, what it holds, and what resuming does to its logs."""

import csv
import dataclasses
import json
import os

from tf_largebatch.training.checkpoint import replacing

CONFIG = "config.json"
# Keys that may differ between the start of a run and its resumption.
_MAY_CHANGE = {
    "model_dir", "resume", "checkpoint_every", "max_updates", "target_metric", "profile_updates",
    "eval_only", "steps_per_loop", "data_dir", "strategy", "num_replicas", "micro_batch_size",
    "jit",
}  # fmt: skip


def open_run(model_dir, recipe, *, resume):
    """Makes the folder, or checks that it holds this very run, and writes its configuration.

    Args:
        model_dir: path; may exist if it is empty, or with `resume` if it holds the same run.
        recipe: the resolved `Recipe`.
        resume: whether an existing run may be gone on with.

    Raises:
        ValueError: if it is a file, can't be written to, isn't empty and `resume` is False, or
            holds a run of another configuration. Nothing in it has been changed then.
    """
    config = {k: v for k, v in dataclasses.asdict(recipe).items() if v is not None}
    if os.path.exists(model_dir) and not os.path.isdir(model_dir):
        raise ValueError(
            f"model_dir must be a folder. Received: {model_dir}, which is a file. Name another."
        )
    held = sorted(os.listdir(model_dir)) if os.path.isdir(model_dir) else []
    if held and not resume:
        raise ValueError(
            f"model_dir isn't empty. Received: {model_dir}, which holds {', '.join(held[:4])}. "
            "Pass --resume to go on with the run in it, or name another folder."
        )
    path = os.path.join(model_dir, CONFIG)
    if held:
        _check_same_run(path, json.loads(json.dumps(config)), model_dir)
    try:
        os.makedirs(model_dir, exist_ok=True)
        with replacing(path) as file:
            file.write((json.dumps(config, indent=1) + "\n").encode())
    except OSError as error:
        raise ValueError(
            f"model_dir can't be written to. Received: {model_dir} ({error.strerror}). Name a "
            "folder that you may write to."
        ) from None


def _check_same_run(path, config, model_dir):
    try:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
    except FileNotFoundError:
        raise ValueError(
            f"model_dir holds no run to resume. Received: {model_dir}, which isn't empty and has "
            f"no {CONFIG}. Name an empty folder."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The configuration of the run in {model_dir} can't be read ({error}). Name another "
            "folder."
        ) from None
    differs = [
        f"{key} {before.get(key)!r} -> {config.get(key)!r}"
        for key in sorted((before.keys() | config.keys()) - _MAY_CHANGE)
        if before.get(key) != config.get(key)
    ]
    if differs:
        raise ValueError(
            f"model_dir holds a run of another configuration. Received: {model_dir}, where "
            f"{'; '.join(differs[:4])}. Repeat that run's flags, or name another folder."
        )


def read_config(model_dir):
    """The configuration that `open_run` wrote, as a dict, or None."""
    try:
        with open(os.path.join(model_dir, CONFIG), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def cut_csv(path, first_epoch):
    """Drops the rows of a CSVLogger's file from `first_epoch` on: they will be written again."""
    if not os.path.exists(path):
        return
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) < first_epoch]
    lines = [",".join(row) + "\n" for row in [*rows[:1], *kept]] if kept else []
    with replacing(path) as file:
        file.write("".join(lines).encode())
