"""Batch normalisation whose statistics don't depend on how a global batch meets the devices."""

import operator

import keras
from keras import ops

_UNSUPPORTED = {"synchronized", "renorm", "renorm_clipping", "renorm_momentum"}


@keras.saving.register_keras_serializable(package="tf_largebatch")
class GroupBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over groups of `examples_per_group` examples.

    Normalising over one replica's part ties the noise of the statistics to the hardware; over the
    whole of a large batch it takes the noise, and its regularisation, away. The thesis's
    "distributed batch normalisation" fixes the effective batch instead (64 is enough for
    ImageNet): neighbouring replicas, in the order of their ids, share statistics up to that size.
    A group is one of

    - a whole number of neighbouring replicas' batches, that number a divisor of the replicas, or
    - a divisor of one replica's batch ("ghost" statistics): its examples in order, cut evenly.

    Different groups share nothing, neither forward nor backward. Mean and (biased) variance are
    taken over the group's examples and all axes but `axis`, in float32 at least. In training,

        moving = momentum * moving + (1 - momentum) * mean over all groups of their statistic,

    all groups of all replicas, so that the variance is that within a group; nothing is corrected
    for its size (Keras does neither). The moving statistics are equal on all replicas, float32 also
    where the policy is bfloat16, and serve for `training=False`, which is Keras' own code.

    What counts is the batch that a replica holds at a time. With micro-batches (`Trainer`) a group
    lies in the micro-batches that the replicas process together, never in two that follow each
    other, and moves the statistics once each. Groups of several replicas cost one all-reduce
    forward and one backward, of (replicas, 3, channels); smaller ones cost one forward. One more
    of (replicas,) comes where the trace doesn't know the size of the batch.

    MirroredStrategy allows no collective within a loop, such as one over micro-batches. For groups
    of several replicas `Trainer` writes the loop out; in another's loop they are refused. With
    smaller groups each replica moves its own statistics there, and `Trainer` takes their mean after
    each update.

    On Keras' other backends a batch is that of one replica, however it is sharded.

    Args:
        examples_per_group: examples that share statistics.
        **kwargs: those of `keras.layers.BatchNormalization`, without `synchronized`, `renorm`
            and what belongs to it. The first axis can't be `axis`.

    Raises:
        ValueError: at trace time, if the batch can't be cut so; if only running shows its size
            (a dataset that keeps its last, smaller batch), TensorFlow's InvalidArgumentError then.

    >>> import numpy as np
    >>> x = np.array([[1.0], [3.0], [10.0], [30.0]], "float32")
    >>> layer = GroupBatchNormalization(examples_per_group=2, epsilon=0.0)
    >>> np.array(layer(x, training=True)).ravel()
    array([-1.,  1., -1.,  1.], dtype=float32)

    The mean over both groups, 11, of which momentum 0.99 lets in 1%; the variance 0.99 + 0.505:

    >>> layer.moving_mean.numpy(), layer.moving_variance.numpy()
    (array([0.11], dtype=float32), array([1.495], dtype=float32))
    """

    def __init__(self, examples_per_group=64, **kwargs):
        if _UNSUPPORTED & set(kwargs):
            raise ValueError(
                f"GroupBatchNormalization doesn't take {sorted(_UNSUPPORTED & set(kwargs))}: "
                "it synchronises groups. Leave that out, or use keras.layers.BatchNormalization."
            )
        super().__init__(**kwargs)
        try:
            self.examples_per_group = operator.index(examples_per_group)
        except TypeError:
            self.examples_per_group = 0
        if isinstance(examples_per_group, bool) or self.examples_per_group < 1:
            raise ValueError(
                "examples_per_group must be an integer of at least 1. "
                f"Received: examples_per_group={examples_per_group!r}. The thesis takes 64."
            )

    def build(self, input_shape):
        """Makes the weights, of the length of the channels; ValueError if `axis` is not theirs."""
        if self.axis % len(input_shape) == 0:
            raise ValueError(
                "axis must be that of the channels, and the first axis holds the examples. "
                f"Received: axis={self.axis}, input_shape={input_shape}. Use axis=-1 or axis=1."
            )
        super().build(input_shape)

    def add_weight(self, *args, name=None, dtype=None, **options):
        # In bfloat16 a moving average stands still within 20 % of what it is to follow.
        if name in ("moving_mean", "moving_variance"):
            dtype = keras.backend.result_type(dtype or self.variable_dtype, "float32")
        return super().add_weight(*args, name=name, dtype=dtype, **options)

    def call(self, inputs, training=None, mask=None):
        """Normalises (batch, ...) inputs; returns their shape and dtype.

        In training by the statistics of each group, which also move the averages; otherwise, and
        where the layer is frozen, by the averages, and only then with a mask.

        Raises:
            ValueError: for a mask in training, and where the batch can't be cut into groups.
        """
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        if mask is not None:
            raise ValueError(
                "GroupBatchNormalization takes no mask in training: groups are of whole examples. "
                f"Received a mask of shape {mask.shape}. Use keras.layers.BatchNormalization, or "
                "stop the mask before this layer."
            )
        context, replicas = _replica_context()
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        # Groups on this replica, at least 1; replicas of a group, at least 1: one of them is 1.
        cut = _cut if inputs.shape[0] is not None else _cut_at_run_time
        groups, across = cut(self.examples_per_group, ops.shape(inputs)[0], replicas)

        # (groups, examples, ..., channels, ...)
        x = ops.reshape(ops.cast(inputs, dtype), (groups, -1, *ops.shape(inputs)[1:]))
        axis = 1 + self.axis % len(inputs.shape)
        around = [x.shape[i] if i == axis else 1 for i in range(1, len(x.shape))]
        own = _statistics(x, [i for i in range(1, len(x.shape)) if i != axis])
        if isinstance(across, int) and across == 1:
            shift, offset, variance = own
            means = [ops.mean(shift + offset, axis=0), ops.mean(variance, axis=0)]
            if replicas > 1:
                means = _all_reduce(context, "MEAN", means) or means
        else:
            shift, offset, variance, means = _statistics_across(context, replicas, across, own)

        for moving, mean in zip((self.moving_mean, self.moving_variance), means, strict=True):
            moving.assign(
                ops.cast(moving, dtype) * self.momentum
                + ops.cast(mean, dtype) * (1.0 - self.momentum)
            )
        shift, offset, variance = (ops.reshape(s, (-1, *around)) for s in (shift, offset, variance))
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor *= ops.reshape(ops.cast(self.gamma, dtype), around)
        y = (x - shift - offset) * factor
        if self.center:
            y += ops.reshape(ops.cast(self.beta, dtype), around)
        return ops.cast(ops.reshape(y, ops.shape(inputs)), self.compute_dtype)

    def get_config(self):
        config = {**super().get_config(), "examples_per_group": self.examples_per_group}
        return {name: value for name, value in config.items() if name not in _UNSUPPORTED}


def _statistics(x, axes):
    """Shift, offset and variance of each group: (groups, channels); the mean is shift + offset.

    The shift is the mean as rounded, and a constant to the gradient, which is right for every
    constant; the offset is what the rounding lost. So x - shift - offset and the variance keep
    their digits where the mean is 1e4 and the deviation 1, and E[x^2] - E[x]^2 loses all.
    """
    kept = ops.stop_gradient(ops.mean(x, axis=axes, keepdims=True))
    rest = x - kept
    offset = ops.mean(rest, axis=axes)
    variance = ops.maximum(ops.mean(ops.square(rest), axis=axes) - ops.square(offset), 0.0)
    return ops.reshape(kept, ops.shape(offset)), offset, variance


def _statistics_across(context, replicas, across, own):
    """Shift, offset and variance of this replica's group, and the means over all groups.

    TensorFlow has no public all-reduce over some of the replicas. So each writes its row into a
    table of zeros, the sum of the tables goes to all, and each reads the rows of its group. It
    writes by a choice, not by a product: a NaN stays in its row.
    """
    import tensorflow as tf

    here = context.replica_id_in_sync_group
    row = ops.mean(ops.stack(own, axis=1), axis=0)  # (3, channels); of one group, or unused below
    if not isinstance(across, int):
        row = tf.where(across > 1, row, tf.stop_gradient(row))  # unused, but 0 * NaN is NaN
    mine = tf.reshape(tf.range(replicas) == here, (replicas, 1, 1))
    table = _all_reduce(context, "SUM", tf.where(mine, row, tf.zeros_like(row)))
    if table is None:
        raise ValueError(
            "MirroredStrategy allows no collective within a loop, as over micro-batches. Received: "
            "a group of several replicas, or a batch of unknown size. Let a group fit in one "
            "replica's micro-batch, or take one micro-batch an update."
        )
    table = tf.reshape(table, (replicas // across, across, 3, row.shape[-1]))
    # From the group's first mean, not from 0, for the sake of the digits, and constant as above.
    shift = tf.stop_gradient(table[:, :1, 0])
    offsets = table[:, :, 0] - shift + table[:, :, 1]
    offset = tf.reduce_mean(offsets, axis=1, keepdims=True)
    # All replicas have as many examples: variances within them and of their means add up.
    variance = tf.reduce_mean(table[:, :, 2] + tf.square(offsets - offset), axis=1)
    means = [tf.reduce_mean((shift + offset)[:, 0], axis=0), tf.reduce_mean(variance, axis=0)]
    group = [tf.gather(s, [here // across]) for s in (shift[:, 0], offset[:, 0], variance)]
    if not isinstance(across, int):
        group = [tf.where(across > 1, s, of_own) for s, of_own in zip(group, own, strict=True)]
    return *group, means


def _replica_context():
    """TensorFlow's replica context, None outside `strategy.run`, and the number of replicas."""
    if keras.backend.backend() != "tensorflow":
        return None, 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context, context.num_replicas_in_sync if context else 1


def _all_reduce(context, operation, values):
    """`values` reduced over replicas, differentiably; None where the strategy allows none."""
    try:
        return context.all_reduce(operation, values)
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        return None


def _cut(examples_per_group, batch, replicas):
    """(groups on one replica, replicas of one group), at least 1 each."""
    divisors = [n for n in range(1, batch + 1) if batch % n == 0]
    multiples = [batch * n for n in range(1, replicas + 1) if replicas % n == 0]
    possible = sorted({*divisors, *multiples})
    if examples_per_group not in possible:
        below = [n for n in possible if n < examples_per_group][-1:]
        above = [n for n in possible if n > examples_per_group][:1]
        raise ValueError(
            f"examples_per_group must divide the {batch} examples that a replica holds at a time, "
            f"or be {batch} times a divisor of the {replicas} replicas. Received: "
            f"examples_per_group={examples_per_group}. "
            f"Nearest: {', '.join(map(str, below + above)) or 'none'}."
        )
    return max(1, batch // examples_per_group), max(1, examples_per_group // batch)


def _cut_at_run_time(examples_per_group, batch, replicas):
    """The same as tensors, checked when it runs, for a batch whose size the trace doesn't know."""
    import tensorflow as tf

    # Replicas of a group must be equally full, or their statistics don't weigh the same.
    sizes = tf.fill((replicas,), batch)
    if replicas > 1:
        context = tf.distribute.get_replica_context()
        mine = tf.range(replicas) == context.replica_id_in_sync_group
        gathered = _all_reduce(context, "SUM", tf.where(mine, tf.cast(sizes, tf.float32), 0.0))
        sizes = sizes if gathered is None else tf.cast(gathered, tf.int32)
    across = tf.maximum(1, examples_per_group // tf.maximum(1, batch)) if replicas > 1 else 1
    share = examples_per_group // across
    fits = (share * across == examples_per_group) & (batch % share == 0) & (replicas % across == 0)
    check = tf.debugging.Assert(
        (batch > 0) & fits & tf.reduce_all(sizes == batch),
        [
            f"examples_per_group={examples_per_group} must divide the examples that a replica "
            "holds at a time, or be that number times a divisor of the replicas; all replicas "
            "must hold as many. A last, smaller batch is often the cause: drop it "
            "(drop_remainder=True). Received examples on each replica: ",
            sizes,
        ],
        summarize=64,
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(batch // share), across if replicas == 1 else tf.identity(across)
