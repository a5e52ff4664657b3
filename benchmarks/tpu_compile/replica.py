"""A strategy that stands for the N cores of a TPU slice where there is none, for tracing only.

What `tf.distribute.TPUStrategy` does on a core: the function of `run` is traced once for all
replicas, variables are read and assigned on the core itself, and what the replicas share is summed
by an all-reduce within the program. So it is here; nothing can run. It is a `TPUStrategy` to those
who ask, for code that takes another path on TPUs.
"""

import itertools

import tensorflow as tf
from tensorflow.python.distribute import one_device_strategy

GROUP_KEY = 1  # of the one group in which all replicas are


class Slice(tf.distribute.TPUStrategy):
    """`replicas` cores, of which one is traced.

    Args:
        replicas: number of cores.
        all_reduce: function (tensor, replicas) that returns the sum over the replicas:
            `cross_replica_sum` or `collective_reduce`.
    """

    def __init__(self, replicas, all_reduce):
        # Past the constructor of TPUStrategy, which looks for a TPU.
        tf.distribute.Strategy.__init__(self, _Extended(self, replicas, all_reduce))

    def run(self, fn, args=(), kwargs=None, options=None):
        """Traces `fn` as one replica."""
        return tf.distribute.Strategy.run(self, fn, args, kwargs, options)


class _Extended(one_device_strategy.OneDeviceExtended):
    _tpu_cluster_resolver = None  # one host

    def __init__(self, strategy, replicas, all_reduce):
        super().__init__(strategy, "CPU:0")
        self._replicas, self._all_reduce = replicas, all_reduce

    @property
    def _num_replicas_in_sync(self):
        return self._replicas

    def _reduce_to(self, reduce_op, value, destinations, options):
        # As TPUStrategy: a mean is the sum of the shares.
        if reduce_op == tf.distribute.ReduceOp.MEAN:
            value = tf.math.scalar_mul(1.0 / self._replicas, value)
        return self._all_reduce(value, self._replicas)


def cross_replica_sum(tensor, replicas):
    """The operation that TPUStrategy uses; only TensorFlow's builds for TPUs can compile it."""
    return tf.raw_ops.CrossReplicaSum(input=tensor, group_assignment=[list(range(replicas))])


_instance_keys = itertools.count(1)


def collective_reduce(tensor, replicas):
    """The operation that the other strategies use, which every TensorFlow can compile."""
    return tf.raw_ops.CollectiveReduceV2(
        input=tensor, group_size=replicas, group_key=GROUP_KEY, instance_key=next(_instance_keys),
        ordering_token=[], merge_op="Add", final_op="Id", communication_hint="auto",
    )  # fmt: skip
