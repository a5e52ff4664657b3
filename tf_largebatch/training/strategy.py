"""The devices of a run, as a `tf.distribute.Strategy`."""

import tensorflow as tf


def make_strategy(name="auto", *, num_replicas=None):
    """The strategy of this name.

    Args:
        name: "one_device": the first GPU, or the CPU. "mirrored": `num_replicas` GPUs, all by
            default; without a GPU, so many logical CPU devices, 2 by default, which anyone can try.
            "auto": mirrored where there are several GPUs or `num_replicas` is above 1.
        num_replicas: int or None.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: if there aren't so many devices, or `num_replicas` contradicts "one_device".
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        several = len(gpus) > 1 if num_replicas is None else num_replicas > 1
        name = "mirrored" if several else "one_device"
    if name == "one_device":
        if num_replicas not in (None, 1):
            raise ValueError(
                f"strategy=one_device has one replica. Received: num_replicas={num_replicas}. Use "
                "strategy=mirrored."
            )
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    if name != "mirrored":
        raise ValueError(
            f"strategy must be auto, one_device or mirrored. Received: strategy={name!r}."
        )
    if gpus:
        count = num_replicas or len(gpus)
        if count > len(gpus):
            raise ValueError(f"There are {len(gpus)} GPUs. Received: num_replicas={count}.")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
    count = num_replicas or 2
    _make_logical_cpus(count)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)],
        # TensorFlow's collectives allow one strategy a process on CPU: each takes the same keys.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _make_logical_cpus(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    made = tf.config.get_logical_device_configuration(cpu)
    if made is None or len(made) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError:
            raise ValueError(
                f"TensorFlow has started with {len(made or [cpu])} CPU devices and can't make "
                f"more. Received: num_replicas={count}. Call make_strategy before anything else "
                "of TensorFlow."
            ) from None
