"""The training loop: updates counted from the first to the last, several to one host call."""

import contextlib
import math
import signal
import threading
import time

import keras
import tensorflow as tf

from tf_largebatch.data.batches import epoch_end_update
from tf_largebatch.training import checkpoint
from tf_largebatch.training.callbacks import callback_state, restore_callbacks
from tf_largebatch.training.geometry import plan_batch
from tf_largebatch.training.step import Step, split_first
from tf_largebatch.training.workers import Workers, is_chief


class Diverged(ArithmeticError):
    """The loss or a weight became NaN or infinite."""


class Trainer:
    """Runs a compiled Keras model over given batches, update by update, under its strategy.

    The step is our own (`tf_largebatch.training.step`), several updates to one host call, with
    Keras' callbacks around it. Unlike `fit` it takes a global batch of any size in micro-batches,
    can begin and end at any update, saves at any update, and stops at the first loss that isn't
    finite. Dropout is Keras': its masks are the same on all replicas.

    Args:
        model: a model compiled, with `weighted_metrics`, in the scope of a `tf.distribute.Strategy`
            or of none; its optimizer is built. Several losses: `tf_largebatch.training.objective`.
        inputs, labels: arrays, or structures of such, of which one example is looked at: Keras
            makes the variables of metrics only when it meets data, and a checkpoint holds them.
        global_batch_size: examples an update, over all replicas.
        micro_batch_size: examples that a replica holds in memory at a time; None: its whole share.
        updates_per_call: most updates that one host call runs; a call also ends where an epoch,
            a checkpoint or the run does. More is faster, fewer react sooner.
        jit: compile the replica's step by XLA.

    Raises:
        ValueError: if the batch can't be cut so, or a loss isn't a mean over examples.
    """

    def __init__(
        self, model, inputs, labels, *, global_batch_size, micro_batch_size=None,
        updates_per_call=20, jit=False,
    ):  # fmt: skip
        strategy = model.distribute_strategy or tf.distribute.get_strategy()
        self.model, self.strategy = model, strategy
        self.plan = plan_batch(
            global_batch_size,
            replicas=strategy.num_replicas_in_sync,
            micro_batch_size=micro_batch_size,
        )
        self.updates_per_call = updates_per_call
        self.stop_signal, self._signal_here = None, None
        with strategy.scope():
            build_metrics(model, inputs, labels)
            step = self._step = Step(model, self.plan, jit=jit)
        self.workers = Workers(strategy)

        @tf.function(reduce_retracing=True)
        def run_updates(iterator, updates, observer=None, first_update=0):
            first_bad = tf.constant(-1)
            for i in tf.range(updates):
                parts = strategy.run(step.update, next(iterator), {"observer": observer})
                finite = tf.math.is_finite(strategy.reduce("SUM", parts, axis=None))
                first_bad = tf.where((first_bad < 0) & ~finite, i, first_bad)
            # In the graph: from the host, a schedule's operations take as long as a small step.
            last = tf.cast(first_update, tf.int64) + tf.cast(updates, tf.int64) - 1
            return first_bad, self._rate_of(last)

        @tf.function(reduce_retracing=True)
        def run_evaluation(batch):
            strategy.run(step.evaluate, args=batch)

        self.run_updates = run_updates
        self.run_evaluation = run_evaluation

    @property
    def step(self):
        """The `Step`: under `strategy.run`, `step.update(inputs, labels, weights)` is one update.

        To lower, profile or time what a replica computes, without the loop around it.
        """
        return self._step

    def distribute(self, batches):
        """Global batches, each cut into equal shares for the replicas, in the order of their ids.

        Args:
            batches: dataset of global batches; or a function of (pipeline, num_pipelines) that
                returns the dataset of that worker's part of each global batch: rows from
                pipeline * B / num_pipelines on, so that no worker reads what another one trains on.
        """
        replicas = self.strategy.num_replicas_in_sync

        def of_pipeline(context):
            pipeline, pipelines = context.input_pipeline_id, context.num_input_pipelines
            local = replicas // pipelines
            own = slice(pipeline * local, (pipeline + 1) * local)
            if callable(batches):
                part, cuts, own = batches(pipeline, pipelines), local, slice(None)
            else:
                part, cuts = batches, replicas

            if cuts == 1:
                return part.prefetch(tf.data.AUTOTUNE)

            def cut(*batch):
                return tf.nest.map_structure(lambda t: _cut(t, cuts)[own], batch)

            return part.map(cut).unbatch().prefetch(tf.data.AUTOTUNE)

        return self.strategy.distribute_datasets_from_function(of_pipeline)

    def evaluate(self, batches):
        """Loss and metrics over (inputs, labels, weights) batches, by name, as floats.

        Args:
            batches: as `distribute` takes them; a dataset's need not be divisible by the replicas.

        Each example counts once, whatever the batch size and the number of replicas: a filling,
        whose weights are 0, counts for nothing. The loss is that of the data, without regularisers.

        Raises:
            Diverged: if the loss isn't finite.
        """
        replicas = self.strategy.num_replicas_in_sync
        if not callable(batches):
            batches = batches.map(lambda *batch: _filled(batch, replicas))
        self.model.reset_metrics()
        self._step.reset_evaluation()
        for batch in self.distribute(batches):
            self.run_evaluation(batch)
        logs = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        logs["loss"] = self._step.evaluated_loss()
        self.model.reset_metrics()
        if not math.isfinite(logs["loss"]):
            raise Diverged(f"The loss of the evaluation is {logs['loss']}.")
        return logs

    def fit(
        self,
        batches,
        *,
        num_examples,
        total_updates,
        first_update=0,
        start_update=0,
        start_epoch=0,
        stop_update=None,
        evaluate=None,
        callbacks=(),
        checkpoint_dir=None,
        checkpoint_every=None,
        cuts=(),
        progress=None,
        verbose=1,
    ):
        """Runs the updates from `first_update` to `total_updates`, or to where it is stopped.

        Args:
            batches: the batches from `first_update` on, (inputs, labels) or (inputs, labels,
                weights), as `distribute` takes them.
            num_examples: of the training data; with the global batch it says where epochs end.
            total_updates: the update to end with, counted from the start of the whole run.
            first_update: updates already done.
            start_update, start_epoch: where these data begin, and the number of their first epoch:
                for a run whose data and batch size change on the way, one call a phase.
            stop_update: end here, before `total_updates`.
            evaluate: called without arguments after each epoch; returns metrics by name, which
                enter the logs with the prefix "val_".
            callbacks: Keras callbacks. `model.stop_training` ends the run. What EarlyStopping and
                its like remember is saved along. Where one has an attribute `every_updates`, host
                calls also end after every so many updates; `params["batch_plan"]` tells them how
                the batch is cut.
            checkpoint_dir: where to save, at the end, on SIGINT and SIGTERM, and
            checkpoint_every: after every so many updates; None: after each epoch.
            cuts: updates at which a host call must end, for callbacks that act there.
            progress: dict that is saved along, as `checkpoint.restore` gives it back; callbacks
                may change it. "epochs_done" and "callbacks" are ours.
            verbose: Keras' progress bar: 0 none, 1 a bar, 2 a line an epoch.

        Returns:
            The number of updates done. `stop_signal` holds the signal that ended it, on any of
            the workers, or None.

        Raises:
            Diverged: at the first loss that isn't finite, or at the end of an epoch and of the
                run the first weight.
            ValueError: with `checkpoint_dir`, for callbacks whose state can't be saved.

        The logs of an epoch hold the learning rate of its last update, and examples a second of
        wall time since the epoch began (in the first epoch, tracing included).
        """
        model = self.model
        global_batch_size = self.plan.global_batch_size
        end = min(total_updates, stop_update or total_updates)
        sizes = {"num_examples": num_examples, "global_batch_size": global_batch_size}
        last = (total_updates - 1 - start_update) * global_batch_size
        epochs = start_epoch + last // num_examples + 1
        params = {"verbose": verbose, "epochs": epochs, "steps": None, "batch_plan": self.plan}
        callback_list = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose != 0,
            model=model,
            **params,
        )
        model.stop_training = False
        progress = {} if progress is None else progress
        write = is_chief(self.strategy)

        def save(update):
            if checkpoint_dir is not None:
                progress["callbacks"] = callback_state(callbacks)
                with _divergence():
                    checkpoint.save(
                        checkpoint_dir, model, update=update, progress=progress, write=write
                    )

        if checkpoint_dir is not None:
            callback_state(callbacks)  # what can't be saved is refused before the first update
        periods = [c.every_updates for c in callbacks if hasattr(c, "every_updates")]
        periods += [checkpoint_every] if checkpoint_every else []
        iterator = iter(self.distribute(batches))
        update, saved_at = first_update, first_update
        callback_list.on_train_begin()
        restore_callbacks(callbacks, progress.get("callbacks", {}))
        with _caught_signals(self):
            try:
                while update < end and not self._stops():
                    here = (update - start_update) * global_batch_size // num_examples
                    epoch, epoch_start = start_epoch + here, start_update
                    if here > 0:
                        epoch_start += epoch_end_update(here - 1, **sizes)
                    epoch_end = start_update + epoch_end_update(here, **sizes)
                    epoch_end = min(epoch_end, total_updates)
                    if update == epoch_start:
                        model.reset_metrics()  # else an epoch is gone on with, and its metrics
                    params |= {"steps": epoch_end - epoch_start}
                    callback_list.set_params(params)
                    callback_list.on_epoch_begin(epoch)
                    logs, began_at, began = {}, update, time.perf_counter()
                    while update < min(epoch_end, end) and not self._stops():
                        stops = [epoch_end, end, update + self.updates_per_call]
                        stops += [cut for cut in cuts if cut > update]
                        stops += [update + every - update % every for every in periods]
                        count = min(stops) - update
                        callback_list.on_train_batch_begin(update - epoch_start)
                        logs = self._call(iterator, update, count)
                        update += count
                        examples = (update - began_at) * global_batch_size
                        logs["examples_per_second"] = examples / (time.perf_counter() - began)
                        callback_list.on_train_batch_end(update - epoch_start - 1, logs)
                        due = checkpoint_every and update % checkpoint_every == 0
                        if due and update < epoch_end:
                            save(update)
                            saved_at = update
                    if update == epoch_end:
                        _check_weights(model, update)
                        if evaluate is not None:
                            logs |= {f"val_{k}": v for k, v in evaluate().items()}
                        callback_list.on_epoch_end(epoch, logs)
                        progress["epochs_done"] = epoch + 1
                        # After the evaluation, so that what it found is saved along.
                        if not checkpoint_every or due:
                            save(update)
                            saved_at = update
                self._stops()  # whoever was asked since: all workers end alike
                if saved_at != update:
                    _check_weights(model, update)
                    save(update)
            finally:
                callback_list.on_train_end()
        return update

    def _call(self, iterator, update, count):
        """Runs `count` updates from `update` on; returns the logs, or raises Diverged."""
        first_bad, rate = self.run_updates(
            iterator, tf.constant(count), self._step.observer, tf.constant(update, tf.int64)
        )
        first_bad = int(first_bad)
        logs = {k: float(v) for k, v in self.model.get_metrics_result().items()}
        if first_bad >= 0:
            raise Diverged(
                f"The loss is {logs['loss']} at update {update + first_bad} "
                f"(learning rate {float(self._rate_of(update + first_bad)):.4g})."
            )
        return logs | {"learning_rate": float(rate)}

    def _stops(self):
        """Whether to stop here: all workers at the same update, whichever was asked to."""
        signals = (signal.SIGINT, signal.SIGTERM)
        asked = [bool(self.model.stop_training), *(self._signal_here == s for s in signals)]
        stop, *caught = self.workers.anyone(asked)
        for number in [s for s, was in zip(signals, caught, strict=True) if was]:
            self.stop_signal = number
        return stop or any(caught)

    def _rate_of(self, update):
        """The learning rate that this update used or will use; the first one is update 0."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rate = optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate(update)
        return tf.convert_to_tensor(optimizer.learning_rate)


def _cut(tensor, parts):
    """(examples, ...) as (parts, examples / parts, ...)."""
    size = -1 if tensor.shape[0] is None else tensor.shape[0] // parts
    return split_first(tensor, parts, size)


def _filled(batch, replicas):
    """A batch of (inputs, labels, weights), filled up to a multiple of the replicas, weights 0."""
    *data, weights = batch
    first = tf.nest.flatten(weights)[0]
    size = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    extra = -size % replicas
    if isinstance(extra, int) and extra == 0:
        return batch

    def fill(t):
        return tf.concat([t, tf.repeat(t[-1:], extra, axis=0)], axis=0)

    def nothing(t):
        return tf.concat([t, tf.zeros_like(tf.repeat(t[-1:], extra, axis=0))], axis=0)

    return *tf.nest.map_structure(fill, data), tf.nest.map_structure(nothing, weights)


def _check_weights(model, update):
    with _divergence():
        checkpoint.check_finite(model, update)


@contextlib.contextmanager
def _divergence():
    try:
        yield
    except checkpoint.NonFiniteWeightsError as error:
        raise Diverged(str(error)) from None


def build_metrics(model, inputs, labels):
    """Makes the variables of the compiled metrics, and leaves them at their start."""
    inputs, labels = tf.nest.map_structure(
        lambda array: tf.convert_to_tensor(array[:1]), (inputs, labels)
    )
    model.compute_metrics(inputs, labels, model(inputs, training=False), sample_weight=None)
    model.reset_metrics()


@contextlib.contextmanager
def _caught_signals(trainer):
    """SIGINT and SIGTERM ask the trainer to stop after this call; a second one breaks it off.

    Python hears neither before the call under way returns.
    """
    before = {}

    def ask(number, _):
        trainer._signal_here = signal.Signals(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # elsewhere, signals can't be caught
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
