"""The folder of a run: whose it is, what it holds, and what resuming does to its logs."""

import contextlib
import csv
import dataclasses
import io
import json
import os

import tensorflow as tf

from tf_largebatch.training import checkpoint, files

CONFIG = "config.json"
VOCABULARY = "vocabulary.txt"
DIAGNOSTICS = "diagnostics"  # folder of what is clocked on updates; the other logs are on epochs
# Keys that may differ between the start of a run and its resumption.
MAY_CHANGE = {
    "model_dir", "resume", "checkpoint_every", "max_updates", "target_metric", "profile_updates",
    "diagnose_every", "eval_only", "steps_per_loop", "data_dir", "strategy", "num_replicas",
    "micro_batch_size", "jit", "workers", "worker_index", "tpu", "tpu_zone", "tpu_project",
    "preemption_exit_code",
}  # fmt: skip


def open_run(model_dir, recipe, *, resume, vocabulary=None):
    """Makes the folder, or checks that it holds this very run, and writes its configuration.

    Args:
        model_dir: path; may exist if it is empty, or with `resume` if it holds the same run.
        recipe: the resolved `Recipe`.
        resume: whether an existing run may be gone on with.
        vocabulary: the tokens of text data, which are kept beside the weights, one a line.

    Raises:
        ValueError: if it is a file, can't be written to, isn't empty and `resume` is False, or
            holds a run of another configuration. Nothing in it has been changed then.
    """
    config = dataclasses.asdict(recipe) | {"worker_index": None}  # the same for all workers
    config = {k: v for k, v in config.items() if v is not None}
    path = os.path.join(model_dir, CONFIG)
    try:
        if files.kind(model_dir) == "file":
            raise ValueError(
                f"model_dir must be a folder. Received: {model_dir}, which is a file. Name another."
            )
        held = files.names(model_dir)
        if held and not resume:
            raise ValueError(
                f"model_dir isn't empty. Received: {model_dir}, which holds {', '.join(held[:4])}. "
                "Pass --resume to go on with the run in it, or name another folder."
            )
        if held:
            _check_same_run(path, json.loads(json.dumps(config)), model_dir)
            files.remove_unfinished(model_dir)
            checkpoint.remove_unfinished(os.path.join(model_dir, "checkpoints"))
            return
        files.make_folder(model_dir)
        with files.replacing(path) as file:
            file.write((json.dumps(config, indent=1) + "\n").encode())
        if vocabulary is not None:
            with files.replacing(os.path.join(model_dir, VOCABULARY)) as file:
                file.write("".join(f"{token}\n" for token in vocabulary).encode())
    except OSError as error:
        raise ValueError(
            f"model_dir can't be read or written. Received: {model_dir} ({error.strerror}). Name a "
            "folder that you may write to."
        ) from None


def _check_same_run(path, config, model_dir):
    try:
        before = json.loads(files.read(path))
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
        for key in sorted((before.keys() | config.keys()) - MAY_CHANGE)
        if before.get(key) != config.get(key)
    ]
    if differs:
        raise ValueError(
            f"model_dir holds a run of another configuration. Received: {model_dir}, where "
            f"{'; '.join(differs[:4])}. Repeat that run's flags, or name another folder."
        )


def vocabulary_in(run):
    """The path of the vocabulary in a run's folder, or beside a file in it; None if there is none.

    >>> vocabulary_in(None) is None
    True
    """
    if run is None or files.kind(run) is None:
        return None
    folder = run if files.kind(run) == "folder" else os.path.dirname(run)
    path = os.path.join(folder, VOCABULARY)
    return path if files.kind(path) == "file" else None


def check_vocabulary(run, vocabulary):
    """Refuses weights of a run whose token ids mean other words than those of `vocabulary`.

    Raises:
        ValueError: if the run kept another vocabulary. If it kept none, nothing is known.
    """
    path = vocabulary_in(run)
    if path and files.read(path).decode().split("\n")[:-1] != list(vocabulary):
        raise ValueError(
            "The data must have the vocabulary of the weights to start from. Received: "
            f"init_from={run}, where {VOCABULARY} is another one. Leave out the data's option "
            f"vocabulary, or set it to {path}."
        )


def read_config(model_dir):
    """The configuration that `open_run` wrote, as a dict, or None."""
    try:
        return json.loads(files.read(os.path.join(model_dir, CONFIG)))
    except (OSError, ValueError):
        return None


def cut_logs(model_dir, epochs_done, updates_done=0):
    """Drops what the logs hold of later epochs and updates: it will come again.

    Args:
        model_dir: the run's folder.
        epochs_done: epochs in log.csv and in TensorBoard's files to keep.
        updates_done: updates in the tables and TensorBoard's files of diagnostics to keep.
    """
    _cut_table(os.path.join(model_dir, "log.csv"), epochs_done)
    for part, done in ("tensorboard", epochs_done), (DIAGNOSTICS, updates_done):
        for folder, _, names in tf.io.gfile.walk(os.path.join(model_dir, part)):
            for path in (os.path.join(folder, name) for name in names):
                if "tfevents" in path:
                    _cut_events(path, done)
                elif path.endswith(".csv"):
                    _cut_table(path, done)


def _cut_table(path, done):
    """Keeps the rows whose first entry, an epoch or an update, is below `done`."""
    if files.kind(path) != "file":
        return
    rows = list(csv.reader(io.StringIO(files.read(path).decode(), newline="")))
    kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) < done]
    lines = [",".join(row) + "\r\n" for row in [*rows[:1], *kept]] if kept else []
    with files.replacing(path) as file:
        file.write("".join(lines).encode())


@files.os_errors()
def _cut_events(path, done):
    kept = []
    with contextlib.suppress(tf.errors.DataLossError):  # the last record, if a kill cut it short
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if not event.HasField("summary") or event.step < done:
                kept.append(record.numpy())
    with files.replacing_path(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for record in kept:
            writer.write(record)
