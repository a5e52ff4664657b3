"""What the optimizer and the training step report to while they are traced, and who listens.

Figures are taken within the update, on the devices, and only every so many updates: in between
there is a comparison for each variable, and no communication at any time.
"""

import dataclasses
import typing

import keras
import tensorflow as tf

from tf_largebatch.optimizers import LayerwiseOptimizer
from tf_largebatch.scaling import check_count


@dataclasses.dataclass(frozen=True, eq=False)
class Observer:
    """The listeners of a run, as the optimizer's attribute `observer`.

    Attributes:
        norms: listens to each variable's update, or None.
        noise: listens to the gradients before and after the reduction over replicas, or None.
    """

    norms: typing.Any = None
    noise: typing.Any = None

    def updated(self, optimizer, index, learning_rate, w, g, new_w, ratio=None):
        """Told by the optimizer, on each device, once it has assigned `new_w`.

        Args:
            optimizer: whose `iterations` are the updates before this one.
            index: the variable's place in the optimizer.
            learning_rate: scalar.
            w, g, new_w: tensors of the variable's shape; g is reduced and clipped.
            ratio: `rules.TrustRatio`, or None where the optimizer has none.
        """
        if self.norms is not None:
            self.norms.updated(optimizer, index, learning_rate, w, g, new_w, ratio)

    def reduced(self, optimizer, own, reduced):
        """Told by the optimizer, on each replica, before it clips.

        Args:
            optimizer: whose `iterations` are the updates before this one.
            own: the replica's own part of each gradient.
            reduced: their sums over replicas.
        """
        if self.noise is not None:
            self.noise.reduced(optimizer, reduced)
            self.noise.replicas_own(optimizer, own)


class ObservingCallback(keras.callbacks.Callback):
    """Base of the callbacks that observe: attached while training runs, and then no more.

    The functions of the run are traced anew for it, and once more after it. Where `fit` ends by an
    exception Keras tells no callback: it stays attached, which costs its looks, until the next run
    with such a callback or until the model is compiled anew.

    Args:
        every: updates from one look to the next; the first look is at update 0.
        role: the field of `Observer` to fill.
    """

    def __init__(self, every, role):
        super().__init__()
        self.every_updates, self._role = check_count("every", every), role

    def make_variables(self):
        """Makes what the figures are kept in; called in the scope of the model's strategy."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_variables`.")

    def look(self, update):
        """Takes up what update number `update`, counted from 0, left in the variables."""
        raise NotImplementedError(f"{type(self).__name__} must define `look`.")

    def is_due(self, optimizer):
        """Whether the update under way is one to be looked at, a bool tensor."""
        return tf.equal(tf.convert_to_tensor(optimizer.iterations) % self.every_updates, 0)

    def on_train_begin(self, logs=None):
        """Attaches itself to the model's optimizer."""
        model = self.model
        if not model.built:
            raise ValueError(
                f"{type(self).__name__} needs a model that has its variables. Received: "
                f"{model.name}, which isn't built. Call it on a batch first."
            )
        with model.distribute_strategy.scope():
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            self.make_variables()
        self._last_look = self._look_before(updates_done(model))
        _observe(model, **{self._role: self})

    def on_epoch_begin(self, epoch, logs=None):
        """Makes sure that it listens."""
        if getattr(inner_optimizer(self.model).observer, self._role) is not self:
            raise ValueError(
                f"A run can have one {type(self).__name__}. Received a second one, or another "
                "model's. Leave one out, or train the models one after the other."
            )

    def on_train_batch_end(self, batch, logs=None):
        """Takes up the figures of the last look, if they are new."""
        update = self._look_before(updates_done(self.model))
        if update > self._last_look:
            self._last_look = update
            self.look(update)

    def on_train_end(self, logs=None):
        """Detaches itself."""
        _observe(self.model, **{self._role: None})

    def _look_before(self, done):
        return (done - 1) // self.every_updates * self.every_updates


def inner_optimizer(model):
    """The model's optimizer, or the one that its LossScaleOptimizer wraps."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def updates_done(model):
    """How many updates the model's optimizer has made, an int."""
    return int(inner_optimizer(model).iterations.numpy())


def _observe(model, **listeners):
    """Changes who listens to a model's training, and has `fit` trace its step anew."""
    optimizer = inner_optimizer(model)
    before = getattr(optimizer, "observer", None) or Observer()
    observer = dataclasses.replace(before, **listeners)
    # In __dict__, past Keras' tracking of attributes: it is no part of what is saved.
    for name in ("observer", "update_step", "_all_reduce_sum_gradients"):
        optimizer.__dict__.pop(name, None)
    if observer.norms is not None or observer.noise is not None:
        optimizer.__dict__["observer"] = observer
        if not isinstance(optimizer, LayerwiseOptimizer):
            _make_keras_report(optimizer, observer)
    if model.train_function is not None:
        model.make_train_function(force=True)


def _make_keras_report(optimizer, observer):
    """Makes this optimizer of Keras' own tell what ours tell by themselves."""
    update, reduce = optimizer.update_step, optimizer._all_reduce_sum_gradients

    def update_step(gradient, variable, learning_rate):
        w = tf.identity(variable)
        update(gradient, variable, learning_rate)
        if optimizer.weight_decay and optimizer._use_weight_decay(variable):
            # Keras has taken the decay off by now: w = (1 - rate * decay) * what it was.
            w = w / tf.cast(1 - learning_rate * optimizer.weight_decay, w.dtype)
        index = optimizer._get_variable_index(variable)
        gradient = tf.convert_to_tensor(gradient)
        observer.updated(optimizer, index, learning_rate, w, gradient, tf.identity(variable))

    def all_reduce(grads_and_variables):
        own = list(grads_and_variables)
        reduced = list(reduce(own))
        observer.reduced(optimizer, [g for g, _ in own], [g for g, _ in reduced])
        return reduced

    if observer.norms is not None:
        optimizer.__dict__["update_step"] = update_step
    if observer.noise is not None:
        optimizer.__dict__["_all_reduce_sum_gradients"] = all_reduce
