"""What a sharded update does on logical devices, for sharded_update.py: a process of its own.

    python benchmarks/_sharded_job.py < JOB

JOB is JSON: {"kind": "jax" or "mirrored", "name": "LAMB" or "LARS", "devices", "shapes", "rounds"}.
The last line printed is what was found, as JSON.
"""

import json
import re
import sys
import time

import numpy as np

from benchmarks import _traffic

PROGRAMS = ("replicated", "shardings", "reduce_scatter")
RATES = {"LAMB": 0.01, "LARS": 10.0}  # steps of about 1 % of the weights
UPDATES_CHECKED = 2
_INSTRUCTION = re.compile(
    r" = (.*?) "
    r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)"
    r"(-start)?\("
)


def cut_dimension(shape, devices):
    """The first dimension that so many devices can share evenly, or None.

    >>> cut_dimension((30522, 768), 4), cut_dimension((2,), 4)
    (1, None)
    """
    return next((i for i, size in enumerate(shape) if size and size % devices == 0), None)


def count(program, devices):
    """What an update sends, and what only one with norms out of range sends as well.

    Args:
        program: compiled HLO as text, for so many partitions.
        devices: p; collectives go around a ring of them, as the least bytes do.

    Returns:
        ({collective: how many}, bytes that a device sends), of the main computation; and bytes in
        the branches of conditionals.

    Raises:
        ValueError: For asynchronous collectives and broadcasts, whose bytes aren't known here.
    """
    p = devices
    share = {  # of the bytes of its result, what a device sends
        "all-reduce": 2 * (p - 1) / p, "all-gather": (p - 1) / p, "all-to-all": (p - 1) / p,
        "reduce-scatter": p - 1, "collective-permute": 1,
    }  # fmt: skip
    counts, sent, in_branches, in_main = {}, 0.0, 0.0, False
    for line in program.splitlines():
        if line and not line[0].isspace():
            in_main = line.startswith("ENTRY")
        found = _INSTRUCTION.search(line)
        if not found:
            continue
        shape, kind, asynchronous = found.groups()
        if asynchronous or kind not in share:
            raise ValueError(f"Cannot count the bytes of {kind}{asynchronous or ''}.")
        size = share[kind] * _traffic._bytes(shape)
        if in_main:
            counts[kind] = counts.get(kind, 0) + 1
            sent += size
        else:
            in_branches += size
    return (dict(sorted(counts.items())), sent), in_branches


class InFloat64:
    """One update after the other of LAMB or LARS with default arguments, in NumPy."""

    def __init__(self, name):
        self.name, self.t, self.slots = name, 0, {}

    def update(self, weights, gradients):
        """{variable: array} twice, to the new weights; biases are neither decayed nor adapted."""
        self.t += 1
        return {key: self._one(key, w, gradients[key]) for key, w in weights.items()}

    def _one(self, key, w, g):
        free = "bias" in key
        a, b = self.slots.get(key, (0.0, 0.0))
        rate, w_norm = RATES[self.name], np.sqrt(np.sum(w * w))
        if self.name == "LARS":
            decay = 0.0 if free else 1e-4
            g_norm = np.sqrt(np.sum(g * g))
            ratio = (
                1.0 if free or not w_norm * g_norm else 1e-3 * w_norm / (g_norm + decay * w_norm)
            )
            a = 0.9 * a + rate * ratio * (g + decay * w)
            self.slots[key] = a, b
            return w - a
        a, b = 0.9 * a + 0.1 * g, 0.999 * b + 0.001 * g * g
        self.slots[key] = a, b
        u = (a / (1 - 0.9**self.t)) / (np.sqrt(b / (1 - 0.999**self.t)) + 1e-6)
        u = u + (0.0 if free else 0.01) * w
        u_norm = np.sqrt(np.sum(u * u))
        ratio = 1.0 if free or not w_norm * u_norm else w_norm / u_norm
        return w - rate * ratio * u


def optimizer_for(name, shapes):
    """(LAMB or LARS, its variables), built; the weights are zero."""
    import keras

    import tf_largebatch

    optimizer = getattr(tf_largebatch, name)(
        RATES[name], exclude_from_weight_decay=[tf_largebatch.BIAS_AND_NORM]
    )
    variables = []
    for path, shape in shapes.items():
        with keras.name_scope(path.rpartition("/")[0] or "bert"):
            variables.append(keras.Variable(np.zeros(shape, "float32"), name=path.split("/")[-1]))
    optimizer.build(variables)
    return optimizer, variables


def compiled_update(program, optimizer, mesh, shapes):
    """(state, gradients of each device stacked, weights) to (weights, state), compiled."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    devices = mesh.size

    def spec(shape):
        dimension = cut_dimension(shape, devices)
        if program == "replicated" or dimension is None:
            return PartitionSpec()
        return PartitionSpec(*[None] * dimension, "replica")

    def sum_own(*own):  # each (1, *shape): of this device alone
        return [
            jax.lax.psum(g[0], "replica") if cut_dimension(g[0].shape, devices) is None
            else jax.lax.psum_scatter(
                g[0], "replica", tiled=True, scatter_dimension=cut_dimension(g[0].shape, devices)
            )
            for g in own
        ]  # fmt: skip

    if program == "reduce_scatter":
        in_rows = PartitionSpec("replica")
        summed = jax.shard_map(
            sum_own, mesh=mesh, in_specs=in_rows, out_specs=[spec(s) for s in shapes]
        )
    else:

        def summed(*own):
            return [
                jax.lax.with_sharding_constraint(g.sum(axis=0), NamedSharding(mesh, spec(s)))
                for g, s in zip(own, shapes, strict=True)
            ]

    everywhere = [NamedSharding(mesh, PartitionSpec())] * len(shapes)
    of_device = [NamedSharding(mesh, PartitionSpec("replica"))] * len(shapes)
    in_state = [NamedSharding(mesh, spec(v.shape)) for v in optimizer.variables]
    update = jax.jit(
        lambda state, own, weights: optimizer.stateless_apply(state, summed(*own), weights),
        in_shardings=(in_state, of_device, everywhere), out_shardings=(everywhere, in_state),
        donate_argnums=(0, 2),
    )  # fmt: skip
    float32 = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return update.lower(
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in optimizer.variables],
        [jax.ShapeDtypeStruct((devices, *shape), "float32") for shape in shapes], float32,
    ).compile()  # fmt: skip


def measure_jax(name, devices, shapes, rounds):
    """What a process of its own finds on so many logical devices, by program."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("replica",))
    random = np.random.default_rng(0)
    start = {
        key: random.standard_normal(shape, "float32") * np.float32(0.02)
        for key, shape in shapes.items()
    }
    own = {
        key: random.standard_normal((devices, *shape), "float32") * np.float32(1e-3)
        for key, shape in shapes.items()
    }
    oracle, expected = InFloat64(name), {key: w.astype("float64") for key, w in start.items()}
    total = {key: g.sum(axis=0, dtype="float64") for key, g in own.items()}
    for _ in range(UPDATES_CHECKED):
        before, expected = expected, oracle.update(expected, total)
    steps = {key: np.abs(expected[key] - before[key]).max() for key in shapes}
    optimizer, _ = optimizer_for(name, shapes)
    gradients = [
        jax.device_put(g, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("replica")))
        for g in own.values()
    ]
    found, held, compiled = {}, {}, {}
    for program in PROGRAMS:
        compiled[program] = compiled_update(program, optimizer, mesh, list(shapes.values()))
        (state_at, _, weights_at), _ = compiled[program].input_shardings
        state = jax.device_put([v.numpy() for v in optimizer.variables], state_at)
        weights = jax.device_put(list(start.values()), weights_at)
        for _ in range(UPDATES_CHECKED):
            weights, state = compiled[program](state, gradients, weights)
        errors = [
            np.abs(np.asarray(shard.data, "float64") - expected[key]).max() / steps[key]
            for key, w in zip(shapes, weights, strict=True) for shard in w.addressable_shards
        ]  # fmt: skip
        counted, in_branches = count(compiled[program].as_text(), devices)
        found[program] = {
            "error": max(errors), "collectives": counted[0], "sent": counted[1],
            "in_branches": in_branches, "seconds": [],
            "state": sum(v.addressable_shards[0].data.nbytes for v in state),
        }  # fmt: skip
        held[program] = weights, state
    for _ in range(rounds):
        for program in random.permutation(PROGRAMS).tolist():
            weights, state = held.pop(program)
            began = time.perf_counter()
            held[program] = jax.block_until_ready(compiled[program](state, gradients, weights))
            found[program]["seconds"].append(time.perf_counter() - began)
    return found


def measure_mirrored(name, devices, shapes, rounds):
    """Seconds of what a sharded update would consist of, on so many logical devices."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    rows = {key: (s[0] // devices, *s[1:]) for key, s in shapes.items() if s[0] % devices == 0}
    contestants = {}

    def add(label, shapes):
        with strategy.scope():
            optimizer, variables = optimizer_for(name, shapes)
        # Of each replica its own: a tensor that all share isn't reduced but multiplied.
        gradients = [
            strategy.experimental_distribute_values_from_function(
                lambda replica, shape=shape: tf.random.stateless_normal(
                    shape, (0, replica.replica_id_in_sync_group), stddev=1e-3
                )
            )
            for shape in shapes.values()
        ]

        @tf.function
        def update():
            strategy.run(lambda own: optimizer.apply(own, variables), args=(gradients,))

        @tf.function
        def add_up():
            def of_replica(own):
                return tf.distribute.get_replica_context().all_reduce("sum", own)

            return strategy.run(of_replica, args=(gradients,))

        contestants[f"update {label}"], contestants[f"sum {label}"] = update, add_up
        return {key: v.value for key, v in zip(shapes, variables, strict=True)}

    whole, own = add("whole", shapes), add("rows", shapes | rows)

    @tf.function
    def gather():
        def of_replica():
            context = tf.distribute.get_replica_context()
            return {key: context.all_gather(own[key].read_value(), axis=0) for key in rows}

        for key, value in strategy.run(of_replica).items():
            strategy.extended.update(whole[key], lambda v, x: v.assign(x), args=(value,))

    contestants["gather"] = gather
    for run in contestants.values():
        run()
    for key in rows:
        if not np.array_equal(whole[key].numpy(), np.concatenate([own[key].numpy()] * devices)):
            raise RuntimeError(f"The gathered {key} isn't its parts.")
    random, seconds = np.random.default_rng(0), {label: [] for label in contestants}
    for _ in range(rounds):
        for label in random.permutation(list(contestants)).tolist():
            began = time.perf_counter()
            contestants[label]()
            seconds[label].append(time.perf_counter() - began)
    return seconds


def main():
    """Does the job that it reads."""
    job = json.load(sys.stdin)
    measure = {"jax": measure_jax, "mirrored": measure_mirrored}[job.pop("kind")]
    print(json.dumps(measure(**job)))


if __name__ == "__main__":
    main()
