"""Trains a reference model by a recipe: flags -> recipe -> data -> model -> optimizer -> trainer.

    python train.py                                   LeNet-5 on scikit-learn's digits, LAMB
    python train.py --global_batch_size=512           another batch size, by the recipe's rule
    python train.py --optimizer=sgd --learning_rate=0.1
    python train.py --list_recipes
    python train.py --recipe=bert_lamb --smoke --dry_run

Every key of a recipe is a flag; a flag that is given wins over the recipe. Exit codes: 0 done, 2 a
mistake in flags or files, 3 diverged, 130 stopped by SIGINT (saved). 143, or what
--preemption_exit_code says: stopped by SIGTERM (saved), or another worker was lost; start it again.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from absl import app, flags, logging

import models
from models import decoding
from tf_largebatch import data, diagnostics, recipes
from tf_largebatch.training import checkpoint, from_recipe, run_folder, summary, tasks
from tf_largebatch.training.callbacks import save_model
from tf_largebatch.training.flags import define_recipe_flags, recipe_from_flags, recipe_of_run
from tf_largebatch.training.geometry import plan_batch
from tf_largebatch.training.run_callbacks import make_callbacks, profiled_updates
from tf_largebatch.training.stage import Stage
from tf_largebatch.training.strategy import make_strategy
from tf_largebatch.training.trainer import Diverged
from tf_largebatch.training.warm_start import warm_start
from tf_largebatch.training.workers import (
    LOST_WORKER_ERRORS,
    is_chief,
    name_lost_worker,
    read_tf_config,
)

DEFAULT_RECIPE = "lenet_digits"

# What --diagnostics can name, and how its callback is made: `make_callbacks` says from what.
DIAGNOSTICS = {
    "norms": lambda stage, every, **files: diagnostics.LayerNorms(every=every, **files),
    "noise_scale": lambda stage, every, **files: diagnostics.NoiseScale(every),
    # Its rows are of the state after an update, those of the others of the update itself.
    "lipschitz": lambda stage, every, folder, **files: diagnostics.LocalLipschitz(
        *stage.probe_batch(), every=every,
        path=os.path.join(os.path.dirname(folder), "local_lipschitz.csv"),
        method="difference" if stage.recipe.precision == "float32" else "exact",
    ),
}  # fmt: skip

logging.set_verbosity(logging.WARNING)
FLAGS = flags.FLAGS
flags.DEFINE_bool("list_recipes", False, "List the recipes and their printed batch sizes, stop.")
flags.DEFINE_bool("dry_run", False, "Print what would be trained, and how; then stop.")
flags.DEFINE_enum(
    "progress", None, ["bar", "line", "none"],
    "A bar, a line an epoch, or nothing; by default a bar in a terminal, lines elsewhere.",
)  # fmt: skip


def check(recipe):
    """Refuses what can't run, or says nothing together."""
    absent = [
        f"{kind} {name}"
        for kind, name, here in (
            ("the data", recipe.data, data.SOURCES), ("the model", recipe.model, models.MODELS),
        )
        if name not in here and not (kind == "the model" and models.is_users(name))
    ]  # fmt: skip
    defaults = recipes.load(recipe.recipe).rows[0].recipe
    if absent and (recipe.data, recipe.model) == (defaults.data, defaults.model):
        raise ValueError(
            f"The recipe {recipe.recipe} needs {' and '.join(absent)}, which this version doesn't "
            f"have. It has {', '.join(data.SOURCES)} and {', '.join(models.MODELS)}: the recipes "
            f"that run are {', '.join(filter(runnable, recipes.names()))}."
        )
    several = recipe.workers or read_tf_config(os.environ.get("TF_CONFIG") or "{}")[0]
    several = len(several) > 1 and recipe.strategy in ("auto", "multi_worker")
    if several and recipe.model_dir is None and not (recipe.eval_only or FLAGS.dry_run):
        raise ValueError("With several workers, give --model_dir: one folder that all of them see.")
    if recipe.resume and recipe.model_dir is None:
        raise ValueError("--resume must be told which run: give its --model_dir.")
    if recipe.eval_only and (recipe.model_dir is None) == (recipe.init_from is None):
        raise ValueError(
            "--eval_only must be told what to evaluate: give --model_dir or --init_from. Received: "
            f"model_dir={recipe.model_dir}, init_from={recipe.init_from}."
        )
    if recipe.eval_only and recipe.max_updates is not None:
        raise ValueError("--max_updates says nothing with --eval_only. Leave one of them out.")
    if unknown := [name for name in recipe.diagnostics if name not in DIAGNOSTICS]:
        raise ValueError(
            f"diagnostics must be of {', '.join(DIAGNOSTICS)}. Received: {', '.join(unknown)}."
        )
    if recipe.target_metric is not None and recipe.target_metric > 1:
        raise ValueError(
            "target_metric must be an accuracy, at most 1. Received: target_metric="
            f"{recipe.target_metric:g}. For 97.5 %, pass 0.975."
        )


def settings_of_all_workers(recipe):
    """What must be the same on every worker, for them to train together."""
    own = {"worker_index", "data_dir"}
    settings = {k: v for k, v in dataclasses.asdict(recipe).items() if k not in own}
    # As JSON has it, in which the workers tell each other.
    return json.loads(json.dumps(settings | {"dry_run": FLAGS.dry_run}))


def runnable(name):
    """Whether this version has the model and the data of a recipe."""
    recipe = recipes.load(name).rows[0].recipe
    return recipe.data in data.SOURCES and recipe.model in models.MODELS


class Job(NamedTuple):
    """What is trained: its length, its phases with their data, the model with its optimizer."""

    run: from_recipe.Length
    stages: list[Stage]
    model: keras.Model
    optimizer: keras.optimizers.Optimizer


def load_data(recipe):
    """The data of each sequence length; of runs that have none, of the one phase."""
    found = {}
    # That of the run that is gone on with, or of the one that weights come from.
    runs = (recipe.model_dir, recipe.init_from)
    vocabulary = next(filter(None, map(run_folder.vocabulary_in, runs)), None)
    for length in recipe.sequence_lengths or (None,):
        options = {
            "sequence_length": length,
            "image_size": recipe.image_size,
            "augmentation": recipe.augmentation,
            "skip_bad_records": recipe.skip_bad_records or None,
            "vocabulary": vocabulary,
            **from_recipe.options(recipe, "data_options"),
        }
        given = {key: value for key, value in options.items() if value is not None}
        found[length] = data.load(recipe.data, data_dir=recipe.data_dir, **given)
    return found


def prepare(recipe, strategy):
    """Data, model, optimizer and their length in updates, all checked; nothing is written."""
    replicas = strategy.num_replicas_in_sync
    for size in recipe.phase_batch_sizes or (recipe.global_batch_size,):
        plan = plan_batch(size, replicas=replicas, micro_batch_size=recipe.micro_batch_size)
        if "noise_scale" in recipe.diagnostics and not recipe.eval_only:
            diagnostics.require_parts(replicas, plan.accumulation)
    found = load_data(recipe)
    train = next(iter(found.values())).train
    vocabulary = getattr(train, "vocabulary", None)
    if recipe.init_from is not None and vocabulary is not None:
        run_folder.check_vocabulary(recipe.init_from, vocabulary)
    run = from_recipe.length(recipe, train.num_examples)
    phases = from_recipe.phases(recipe, run.total_updates)
    profiled_updates(recipe, run.total_updates)  # refused here, if it lies beyond the end
    schedule = from_recipe.learning_rate_schedule(recipe, train.num_examples)
    keras.config.set_dtype_policy(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        arguments = train.model_arguments | from_recipe.options(recipe, "model_options")
        model = models.build(recipe.model, task=train.task, **arguments)
        from_recipe.regularise(recipe, model.trainable_variables)
        optimizer = from_recipe.optimizer(recipe, schedule, model.trainable_variables)
        outputs = list(model.output) if isinstance(model.output, dict) else ["logits"]
        model.compile(
            optimizer=optimizer,
            **tasks.objective(train.task, outputs, label_smoothing=recipe.label_smoothing),
        )
        model.optimizer.build(model.trainable_variables)
    stages, epoch = [], 0
    for phase in phases:
        stages.append(Stage(recipe, phase, found[phase.sequence_length], outputs, epoch))
        epoch = stages[-1].end_epoch
    if recipe.init_from is not None:
        taken = warm_start(model, recipe.init_from)
        if taken is not None:
            print(f"From {recipe.init_from}: {', '.join(taken)}; the other layers start afresh.")
    return Job(run, stages, model, optimizer)


def train(recipe):
    """Runs the job of a recipe; returns the exit code."""
    check(recipe)
    strategy = make_strategy(
        recipe.strategy, num_replicas=recipe.num_replicas, workers=recipe.workers,
        worker_index=recipe.worker_index, tpu=recipe.tpu, tpu_zone=recipe.tpu_zone,
        tpu_project=recipe.tpu_project, settings=settings_of_all_workers(recipe),
    )  # fmt: skip
    job = prepare(recipe, strategy)
    run, model = job.run, job.model
    if FLAGS.dry_run:
        summary.describe(recipe, run, job.stages, model)
        summary.print_cost(run.total_updates, job.stages, model, models.multiply_adds)
        from_recipe.print_exclusions(recipe, job.optimizer, model.trainable_variables)
        return 0
    for stage in job.stages:  # all before a checkpoint is read, which holds the metrics' variables
        stage.make_trainer(model)
    chief = is_chief(strategy)
    model_dir = recipe.model_dir or os.path.join(
        "runs", f"{recipe.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    checkpoint_dir = os.path.join(model_dir, "checkpoints")
    if recipe.eval_only:
        updates = run.total_updates
        if recipe.model_dir is not None:
            restored = checkpoint.restore(checkpoint_dir, model)
            if restored is None:
                raise ValueError(f"There is no checkpoint to evaluate in {checkpoint_dir}.")
            updates = restored[0]
        judged = [stage.judge(decoding.Translator) for stage in job.stages]
        reached = sum(updates > stage.phase.end_update for stage in job.stages)
        phases = {str(n): summary.rounded(logs) for n, logs in enumerate(judged, 1)}
        if chief:
            more = {"phases": phases} if len(judged) > 1 else {}
            summary.report(recipe, "evaluated", judged[reached], **more)
        return 0
    vocabulary = getattr(job.stages[0].splits.train, "vocabulary", None)
    job.stages[0].trainer.workers.chief_first(
        lambda: run_folder.open_run(model_dir, recipe, resume=recipe.resume, vocabulary=vocabulary)
    )
    restored = checkpoint.restore(checkpoint_dir, model) if recipe.resume else None
    updates, progress = restored or (0, {})
    if chief:
        run_folder.cut_logs(model_dir, progress.get("epochs_done", 0), updates)
    summary.describe(recipe, run, job.stages, model)
    print(f"Run folder: {model_dir}" + (f", from update {updates}" if restored else ""))
    logs = {}
    for number, stage in enumerate(job.stages, 1):
        phase, trainer = stage.phase, stage.trainer
        last = stage is job.stages[-1]
        examples = [stage.splits.train.num_examples, stage.splits.test.num_examples]
        if progress.setdefault("examples", {}).setdefault(str(number), examples) != examples:
            raise ValueError(
                "The data are not those that the run began with. Received: "
                f"{examples[0]:,} examples to train on and {examples[1]:,} held out, where there "
                f"were {progress['examples'][str(number)]}. Restore them, or begin another run."
            )
        if updates >= phase.end_update and not last:
            if str(number) not in progress.get("phases", {}):  # stopped before it was judged
                progress.setdefault("phases", {})[str(number)] = summary.rounded(
                    stage.judge(decoding.Translator)
                )
            continue
        layout = [number, *trainer.plan, recipe.jit]
        if updates > phase.start_update and progress.get("layout", layout) != layout:
            print("The batch is cut otherwise than before: the run is the same but for rounding.")
        if updates == phase.start_update:
            progress.pop("best", None)  # another sequence length has another best
        progress["layout"] = layout
        found = make_callbacks(
            recipe, model_dir, progress, stage,
            append=updates > 0, last=last, chief=chief, diagnostics=DIAGNOSTICS,
        )  # fmt: skip
        try:
            updates = stage.fit(
                updates,
                callbacks=found,
                checkpoint_dir=checkpoint_dir,
                cuts=profiled_updates(recipe),
                progress=progress,
                verbose=verbosity() if chief else 0,
            )
            if trainer.stop_signal is not None:
                return stopped(recipe, trainer, updates, model_dir)
            logs = stage.judge(decoding.Translator)
        except tf.errors.InvalidArgumentError:
            if not os.environ.get("TRACEBACK"):
                stage.raise_for_bad_record()
            raise
        except Diverged as error:
            kept = checkpoint.paths(checkpoint_dir)
            where = f"The last checkpoint before it: {kept[0]}." if kept else "None was saved."
            print(
                f"\ntrain.py: training diverged. {error} {where} Try a lower --learning_rate, a "
                "longer --warmup_epochs or --global_clipnorm, in another folder.",
                file=sys.stderr,
            )
            return 3
        # A run that ends within an epoch has not been judged where it ends.
        found[0].set_model(model)
        judged = {f"val_{stage.metric}": logs[stage.metric]}
        found[0].on_epoch_end(progress.get("epochs_done", 0), judged)
        if len(job.stages) > 1:
            progress.setdefault("phases", {})[str(number)] = summary.rounded(logs)
            print(f"Phase {number}, update {updates}: {json.dumps(summary.rounded(logs))}")
        if updates < phase.end_update or updates == recipe.max_updates:
            break
    save_model(model, os.path.join(model_dir, "final.keras"), write=chief)
    summary.report_bad_records(job.stages[-1].splits)
    if chief:
        status = "done" if updates == run.total_updates else "stopped early"
        summary.report(
            recipe, status, logs, metric=stage.metric, num_examples=stage.splits.train.num_examples,
            num_held_out_examples=stage.splits.test.num_examples,
            best=progress.get("best"), updates=updates, model_dir=model_dir,
            reached_target_at_epoch=progress.get("reached_target_at_epoch"),
            phases=progress.get("phases"),
        )  # fmt: skip
    return 0


def stopped(recipe, trainer, updates, model_dir):
    """Says that a signal ended the run, and how to go on; returns the exit code."""
    print(
        f"\nStopped by {trainer.stop_signal.name} after update {updates}, and saved. To go "
        f"on, repeat the command with --model_dir={model_dir} --resume."
    )
    preempted = trainer.stop_signal == signal.SIGTERM
    return recipe.preemption_exit_code if preempted else 128 + trainer.stop_signal


def verbosity():
    """Keras' verbosity: a bar where there is a terminal, lines elsewhere, unless told."""
    told = FLAGS.progress or ("bar" if sys.stdout.isatty() else "line")
    return {"bar": 1, "line": 2, "none": 0}[told]


def list_recipes():
    """Prints each recipe with its printed batch sizes."""
    for name in recipes.names():
        print(recipes.load(name), "" if runnable(name) else "(not runnable yet)")


def main(arguments):
    """Runs what the flags say; returns the exit code."""
    try:
        if len(arguments) > 1:
            raise ValueError(f"train.py takes flags only. Received: {' '.join(arguments[1:])}.")
        if FLAGS.list_recipes:
            list_recipes()
            return 0
        recipe = recipe_of_run() or recipe_from_flags(DEFAULT_RECIPE)
        try:
            return train(recipe)
        except LOST_WORKER_ERRORS as error:
            if recipe.strategy not in ("auto", "multi_worker") or os.environ.get("TRACEBACK"):
                raise
            print(
                f"\ntrain.py: {name_lost_worker(error)} is lost, or the network to it. What was "
                "saved is kept. Start the same command on all workers again, with --model_dir and "
                "--resume, to go on from the last checkpoint. (TRACEBACK=1 shows TensorFlow's "
                "error.)",
                file=sys.stderr,
            )
            return recipe.preemption_exit_code
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as stop:  # outside the loop, or a second time within it
        number = stop.args[0] if stop.args else signal.SIGINT
        print(
            f"\ntrain.py: stopped by {number.name}. What its folder held before is kept; "
            "--model_dir and --resume go on from its last checkpoint.",
            file=sys.stderr,
        )
        return 128 + number


def _interrupt(number, _):
    raise KeyboardInterrupt(signal.Signals(number))


def parse_flags(arguments):
    """absl's parsing, with its complaints in our form and with our exit code."""
    try:
        return FLAGS(arguments)
    except flags.Error as error:
        print(f"train.py: {error} Pass --helpshort to see the flags.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    define_recipe_flags()
    flags.adopt_module_key_flags(sys.modules[define_recipe_flags.__module__])  # for --helpshort
    signal.signal(signal.SIGTERM, _interrupt)
    app.run(main, flags_parser=parse_flags)
