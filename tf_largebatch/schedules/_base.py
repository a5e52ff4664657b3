"""What all schedules share: their config, integer counts, float32 rates, checked arguments."""

import keras
from keras import ops

from tf_largebatch.scaling import check_count, check_number

MAX_UPDATES = 2**31 - 1  # `optimizer.iterations` is an int32 on JAX

KerasSchedule = keras.optimizers.schedules.LearningRateSchedule
register = keras.saving.register_keras_serializable(package="tf_largebatch")


class Schedule(KerasSchedule):
    """Keeps every argument in the attribute of its name, so that the config is read off those."""

    _arguments = ()

    def get_config(self):
        return {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in self._arguments
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


def to_updates(step):
    """A scalar integer tensor: the update that `step` is in, within [0, MAX_UPDATES]."""
    # "int" is int64 on TensorFlow, else int32. Not `ops.maximum`: with floatx bfloat16 it makes a
    # float of the bound, and so of the count, on JAX.
    return ops.clip(ops.convert_to_tensor(step, "int"), 0, MAX_UPDATES)


def to_float(x):
    """`x` as a float32 tensor."""
    return ops.convert_to_tensor(x, "float32")


def check_rate(name, value):
    """A learning rate as a float of at least 0; else ValueError."""
    return check_number(name, value, allow_zero=True)


def check_updates(name, value, at_least=1):
    """A number of updates as an int within [at_least, MAX_UPDATES]; else ValueError."""
    return check_count(name, value, at_least=at_least, at_most=MAX_UPDATES)


def check_items(name, value, expected):
    """The items of `value` as a tuple; ValueError, with what was `expected`, if there are none."""
    try:
        items = tuple(value)
    except TypeError:
        items = ()
    if not items:
        raise ValueError(f"{name} must be {expected}. Received: {name}={value!r}.")
    return items
