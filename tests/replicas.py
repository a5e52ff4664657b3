"""Strategies on the logical CPU devices that conftest.py makes."""


def strategy_of(replicas):
    """One device, or so many replicas."""
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("CPU:0")
    # TensorFlow's collectives on CPU allow one strategy a process: the next takes the same keys.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
