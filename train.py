"""Trains a reference model by a recipe: flags -> recipe -> data -> model -> optimizer -> trainer.

    python train.py                                   LeNet-5 on scikit-learn's digits, LAMB
    python train.py --global_batch_size=512           another batch size, by the recipe's rule
    python train.py --optimizer=sgd --learning_rate=0.1
    python train.py --list_recipes
    python train.py --recipe=bert_lamb --dry_run

Every key of a recipe is a flag; a flag that is given wins over the recipe. Exit codes: 0 done, 2 a
mistake in flags or files, 3 diverged, 130 stopped by SIGINT (saved). 143, or what
--preemption_exit_code says: stopped by SIGTERM (saved), or another worker was lost; start it again.
"""

import ast
import dataclasses
import importlib.util
import json
import os
import signal
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import models
from tf_largebatch import data, recipes
from tf_largebatch.data.batches import evaluation_batches, training_batches
from tf_largebatch.losses import SmoothedCrossEntropy
from tf_largebatch.training import checkpoint, from_recipe, run_folder
from tf_largebatch.training.callbacks import CSVLogger, KeepBest, Profile, save_model
from tf_largebatch.training.flags import define_recipe_flags, recipe_from_flags, recipe_of_run
from tf_largebatch.training.geometry import plan_batch
from tf_largebatch.training.strategy import make_strategy
from tf_largebatch.training.trainer import Diverged, Trainer
from tf_largebatch.training.warm_start import warm_start
from tf_largebatch.training.workers import (
    LOST_WORKER_ERRORS,
    is_chief,
    name_lost_worker,
    read_tf_config,
)

DEFAULT_RECIPE = "lenet_digits"
METRIC = "val_accuracy"

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
        if name not in here
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


def prepare(recipe, strategy):
    """Data, model, optimizer and their length in updates, all checked; nothing is written."""
    plan_batch(
        recipe.global_batch_size,
        replicas=strategy.num_replicas_in_sync,
        micro_batch_size=recipe.micro_batch_size,
    )
    splits = data.load(recipe.data, data_dir=recipe.data_dir, **data_options(recipe))
    run = from_recipe.length(recipe, splits.train.num_examples)
    if profiled_updates(recipe) and profiled_updates(recipe)[0] >= run.total_updates:
        raise ValueError(
            f"profile_updates must begin within the run's {run.total_updates} updates. Received: "
            f"{recipe.profile_updates}."
        )
    schedule = from_recipe.learning_rate_schedule(recipe, splits.train.num_examples)
    # Made once here, so that a batch larger than the data is refused before anything is written.
    training_batches(
        splits.train, global_batch_size=recipe.global_batch_size, seed=recipe.seed,
        total_updates=run.total_updates, shuffle=recipe.shuffle,
    )  # fmt: skip
    keras.config.set_dtype_policy(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        model = models.build(
            recipe.model, input_shape=splits.train.input_shape,
            num_classes=splits.train.num_classes, **model_options(recipe),
        )  # fmt: skip
        optimizer = from_recipe.optimizer(recipe, schedule, model.trainable_variables)
        model.compile(
            optimizer=optimizer,
            loss=SmoothedCrossEntropy(recipe.label_smoothing),
            weighted_metrics=[
                keras.metrics.SparseCategoricalAccuracy(name="accuracy", dtype="float32"),
                keras.metrics.SparseCategoricalCrossentropy(
                    from_logits=True, name="cross_entropy", dtype="float32"
                ),
            ],
        )
        model.optimizer.build(model.trainable_variables)
    if recipe.init_from is not None:
        warm_start(model, recipe.init_from)
    return splits, run, model, optimizer


def model_options(recipe):
    """The options of the network's function, as Python values; a word is a string."""
    options = {}
    for text in recipe.model_options:
        name, sign, value = text.partition("=")
        if not (name.isidentifier() and sign):
            raise ValueError(
                'model_options must each be "name=value". Received: model_options='
                f"{list(recipe.model_options)}."
            )
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def data_options(recipe):
    """The keys of the recipe that its data source is to be asked for, where they are set."""
    options = {key: getattr(recipe, key) for key in ("image_size", "augmentation")}
    options["skip_bad_records"] = recipe.skip_bad_records or None
    return {key: value for key, value in options.items() if value is not None}


def report_bad_records(splits):
    """Says which records were passed over, if any were."""
    for name, source in (("training", splits.train), ("held-out", splits.test)):
        bad = source.bad_records
        if bad:
            first = "; ".join(f"{record}: {why}" for record, why in list(bad.items())[:3])
            print(f"{len(bad)} {name} records can't be read and were passed over: {first}.")


def describe(recipe, splits, run, model):
    """Prints what will be trained."""
    train = splits.train
    print(
        f"Model {recipe.model}: {model.count_params():,} parameters. Data {recipe.data}: "
        f"{train.num_examples:,} examples to train on, {splits.test.num_examples:,} held out."
    )
    warmup_epochs = run.warmup_updates * recipe.global_batch_size / train.num_examples
    print(
        f"{recipe.optimizer}: {run.total_updates:,} updates of {recipe.global_batch_size:,} "
        f"examples ({run.epochs:.4g} epochs), warmup {run.warmup_updates:,} updates "
        f"({warmup_epochs:.4g} epochs), peak rate {recipe.learning_rate:.6g}, "
        f"{recipe.schedule} decay, {recipe.precision}, seed {recipe.seed}."
    )


def print_cost(run, model):
    """Prints what an example, an update and the run cost, wherever they run."""
    try:
        operations = f"{models.multiply_adds(model):,} multiply-adds an example, forward"
    except ValueError as error:
        operations = f"operations not counted ({error})"
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    # Gradients are reduced in float32, whatever the weights are.
    reduced = run.total_updates * 4 * weights
    print(
        f"Cost: {operations}; {_nbytes(model.variables):,} bytes of weights, "
        f"{_nbytes(model.optimizer.variables):,} of the optimizer's state. A run on several "
        f"replicas reduces gradients {run.total_updates:,} times, {4 * weights:,} bytes each, "
        f"{reduced / 1e9:,.4g} GB in all."
    )


def _nbytes(variables):
    return sum(v.numpy().nbytes for v in variables)


def train(recipe):
    """Runs the job of a recipe; returns the exit code."""
    check(recipe)
    strategy = make_strategy(
        recipe.strategy, num_replicas=recipe.num_replicas, workers=recipe.workers,
        worker_index=recipe.worker_index, tpu=recipe.tpu, tpu_zone=recipe.tpu_zone,
        tpu_project=recipe.tpu_project, settings=settings_of_all_workers(recipe),
    )  # fmt: skip
    splits, run, model, optimizer = prepare(recipe, strategy)
    if FLAGS.dry_run:
        describe(recipe, splits, run, model)
        print_cost(run, model)
        from_recipe.print_exclusions(recipe, optimizer, model.trainable_variables)
        return 0
    trainer = Trainer(
        model, np.zeros((1, *splits.train.input_shape), np.float32), np.zeros(1, np.int32),
        global_batch_size=recipe.global_batch_size,
        micro_batch_size=recipe.micro_batch_size,
        updates_per_call=recipe.steps_per_loop or 20,
        jit=recipe.jit,
    )  # fmt: skip
    chief, replicas = is_chief(strategy), strategy.num_replicas_in_sync
    test_batch_size = -(-min(512, splits.test.num_examples) // replicas) * replicas

    def evaluate():
        return trainer.evaluate(
            lambda pipeline, pipelines: evaluation_batches(
                splits.test, batch_size=test_batch_size, pipeline=pipeline, num_pipelines=pipelines
            )
        )

    model_dir = recipe.model_dir or os.path.join(
        "runs", f"{recipe.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    checkpoint_dir = os.path.join(model_dir, "checkpoints")
    if recipe.eval_only:
        if recipe.model_dir is not None and checkpoint.restore(checkpoint_dir, model) is None:
            raise ValueError(f"There is no checkpoint to evaluate in {checkpoint_dir}.")
        report(recipe, "evaluated", evaluate(), chief=chief)
        return 0
    trainer.workers.chief_first(
        lambda: run_folder.open_run(model_dir, recipe, resume=recipe.resume)
    )
    restored = checkpoint.restore(checkpoint_dir, model) if recipe.resume else None
    first_update, progress = restored or (0, {})
    if chief:
        run_folder.cut_logs(model_dir, progress.get("epochs_done", 0))
    describe(recipe, splits, run, model)
    print(f"Run folder: {model_dir}" + (f", from update {first_update}" if restored else ""))
    layout = [*trainer.plan, recipe.jit]
    if progress.setdefault("layout", layout) != layout:
        print("The batch is cut otherwise than before: the run is the same but for rounding.")

    def batches(pipeline, pipelines):
        return training_batches(
            splits.train, global_batch_size=recipe.global_batch_size, seed=recipe.seed,
            first_update=first_update, total_updates=run.total_updates,
            pipeline=pipeline, num_pipelines=pipelines, shuffle=recipe.shuffle,
        )  # fmt: skip

    found = callbacks(recipe, model_dir, restored is not None, progress, chief=chief)
    try:
        updates = trainer.fit(
            batches,
            num_examples=splits.train.num_examples,
            total_updates=run.total_updates,
            first_update=first_update,
            stop_update=recipe.max_updates,
            evaluate=evaluate,
            callbacks=found,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=recipe.checkpoint_every,
            cuts=profiled_updates(recipe),
            progress=progress,
            verbose=verbosity() if chief else 0,
        )
        if trainer.stop_signal is not None:
            print(
                f"\nStopped by {trainer.stop_signal.name} after update {updates}, and saved. To go "
                f"on, repeat the command with --model_dir={model_dir} --resume."
            )
            preempted = trainer.stop_signal == signal.SIGTERM
            return recipe.preemption_exit_code if preempted else 128 + trainer.stop_signal
        logs = evaluate()
    except tf.errors.InvalidArgumentError:
        bad = {**splits.train.bad_records, **splits.test.bad_records}
        if not bad or os.environ.get("TRACEBACK"):
            raise
        record, why = next(iter(bad.items()))
        raise ValueError(
            f"{record} of {recipe.data} cannot be used: {why}. Mend it, remove it, or pass "
            "--skip_bad_records to go on without such records."
        ) from None
    except Diverged as error:
        kept = checkpoint.paths(checkpoint_dir)
        where = f"The last checkpoint before it: {kept[0]}." if kept else "No checkpoint was saved."
        print(
            f"\ntrain.py: training diverged. {error} {where} Try a lower --learning_rate, a longer "
            "--warmup_epochs or --global_clipnorm, in another folder.",
            file=sys.stderr,
        )
        return 3
    # A run that ends within an epoch has not been judged where it ends.
    found[0].set_model(model)
    found[0].on_epoch_end(progress.get("epochs_done", 0), {METRIC: logs["accuracy"]})
    save_model(model, os.path.join(model_dir, "final.keras"), write=chief)
    report_bad_records(splits)
    status = "done" if updates == run.total_updates else "stopped early"
    report(
        recipe, status, logs, chief=chief, best=progress.get("best"), updates=updates,
        model_dir=model_dir,
        reached_target_at_epoch=progress.get("reached_target_at_epoch"),
    )  # fmt: skip
    return 0


def verbosity():
    """Keras' verbosity: a bar where there is a terminal, lines elsewhere, unless told."""
    told = FLAGS.progress or ("bar" if sys.stdout.isatty() else "line")
    return {"bar": 1, "line": 2, "none": 0}[told]


def callbacks(recipe, model_dir, resumed, progress, *, chief):
    """Keras callbacks, the one that keeps the best model first; the chief's write."""
    best = os.path.join(model_dir, "best.keras")
    found = [KeepBest(best, METRIC, progress, target=recipe.target_metric, write=chief)]
    if not chief:
        return found
    found.append(CSVLogger(os.path.join(model_dir, "log.csv"), append=resumed))
    if importlib.util.find_spec("tensorboard") is None:
        print("No TensorBoard logs: the package tensorboard isn't installed.")
    else:
        folder = os.path.join(model_dir, "tensorboard")
        found.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    if recipe.profile_updates is not None:
        found.append(Profile(os.path.join(model_dir, "profile"), *profiled_updates(recipe)))
    return found


def profiled_updates(recipe):
    """(first, last) of --profile_updates, or ()."""
    return tuple(map(int, recipe.profile_updates.split(":"))) if recipe.profile_updates else ()


def report(recipe, status, logs, *, chief, **more):
    """The last line, for scripts, of the chief: RESULT and one JSON object."""
    if not chief:
        return
    result = {
        "status": status,
        "recipe": recipe.recipe,
        "optimizer": recipe.optimizer,
        "global_batch_size": recipe.global_batch_size,
        "seed": recipe.seed,
        **{name: round(value, 6) for name, value in logs.items()},
        **{name: value for name, value in more.items() if value is not None},
    }
    print("RESULT " + json.dumps(result, allow_nan=False))


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
