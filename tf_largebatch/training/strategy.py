"""The devices of a run, as a `tf.distribute.Strategy`."""

import os

import tensorflow as tf

from tf_largebatch.training.workers import multi_worker_strategy, read_tf_config

NAMES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


def make_strategy(
    name="auto", *, num_replicas=None, workers=None, worker_index=None, tpu=None, tpu_zone=None,
    tpu_project=None, settings=None,
):  # fmt: skip
    """The strategy of this name. Call it before anything else of TensorFlow.

    Args:
        name: "one_device": the first GPU, or the CPU. "mirrored": `num_replicas` GPUs, all by
            default; without a GPU, so many logical CPU devices, 2 by default, which anyone can try.
            "multi_worker": all GPUs, or one CPU device, of each worker. "tpu": all cores of a TPU.
            "auto": tpu where one is named, multi_worker where workers are, by argument or by
            TF_CONFIG, mirrored where there are several GPUs or `num_replicas` is above 1.
        num_replicas: int or None. With workers and TPUs it is checked, not chosen.
        workers, worker_index, settings: as in `multi_worker_strategy`.
        tpu, tpu_zone, tpu_project: as in `make_tpu_strategy`.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: if there aren't so many devices, the arguments contradict each other or
            TF_CONFIG is malformed; and as `multi_worker_strategy` and `make_tpu_strategy`.
    """
    if name not in NAMES:
        raise ValueError(f"strategy must be one of {list(NAMES)}. Received: strategy={name!r}.")
    told, _ = read_tf_config(os.environ.get("TF_CONFIG") or "{}")
    if name == "auto" and tpu is not None:
        name = "tpu"
    if name == "auto" and (workers is not None or len(told) > 1):
        name = "multi_worker"
    if name == "auto" and worker_index is not None:
        raise ValueError(
            f"worker_index belongs to workers. Received: worker_index={worker_index} without "
            "workers. Give both, or let TF_CONFIG say both."
        )
    for argument, value, needed in (
        ("workers", workers, "multi_worker"), ("worker_index", worker_index, "multi_worker"),
        ("tpu", tpu, "tpu"), ("tpu_zone", tpu_zone, "tpu"), ("tpu_project", tpu_project, "tpu"),
    ):  # fmt: skip
        if value is not None and name != needed:
            raise ValueError(
                f"{argument} says nothing with strategy={name}. Received: {argument}={value!r}. "
                f"Use strategy={needed}, or leave it out."
            )
    if name in ("multi_worker", "tpu"):
        if name == "tpu":
            from tf_largebatch.training.tpu import make_tpu_strategy

            made = make_tpu_strategy(tpu or "", zone=tpu_zone, project=tpu_project)
        else:
            made = multi_worker_strategy(workers, worker_index, settings=settings)
        if num_replicas not in (None, made.num_replicas_in_sync):
            raise ValueError(
                f"strategy={name} has {made.num_replicas_in_sync} replicas here, as the devices "
                f"are. Received: num_replicas={num_replicas}. Leave it out."
            )
        return made
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
