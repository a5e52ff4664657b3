"""Updates by compiled programs and by stacks of small variables, against one variable at a time."""

import logging
import re

import keras
import numpy as np
import pytest

from halves import rounded
from replicas import strategy_of
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB
from tf_largebatch.optimizers import LayerwiseOptimizer
from tf_largebatch.rules import UNADAPTED

pytestmark = pytest.mark.tensorflow
ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
LARGE, SMALL, SCALAR = (128, 136), (3, 5), ()  # the first has 17,408 elements
# Two kinds of each size: excluded are the variables whose names begin with "bias".
SHAPES = {
    "w0": LARGE, "w1": LARGE, "bias_large": LARGE, "long": (16384 + 1,),
    "a0": SMALL, "a1": SMALL, "a2": SMALL, "bias0": SMALL, "bias1": SMALL, "alone": (7,),
    "s0": SCALAR, "s1": SCALAR, "zero0": (4,), "tiny0": (4,), "zero1": (4,),
}  # fmt: skip
UPDATES = 6


def one_by_one(monkeypatch):
    """Makes the optimizers update each variable by operations of its own."""
    module = "tf_largebatch.optimizers._tensorflow"
    monkeypatch.setattr(f"{module}._xla_works", lambda: False)
    monkeypatch.setattr(f"{module}._is_small", lambda variable: False)


def start(name, shape, random):
    if name.startswith("zero"):
        return np.zeros(shape, "float32")
    return random.normal(size=shape).astype("float32") * (1e-25 if name == "tiny0" else 1)


def trained(name, replicas=1, dtype="float32", jit=False, **options):
    """Weights and slots by path after some updates; replica i has its own part of the gradient."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    strategy = strategy_of(replicas)
    with strategy.scope():
        variables = [
            keras.Variable(rounded(start(name, shape, random)), dtype=dtype, name=name)
            for name, shape in SHAPES.items()
        ]
        optimizer = ALL[name](
            0.01, exclude_from_weight_decay=["^bias"], weight_decay=0.1, name="o", **options
        )
        optimizer.build(variables)
    gradients = [
        [random.normal(size=(replicas, *v.shape)).astype("float32") for v in variables]
        for _ in range(UPDATES)
    ]

    @tf.function(jit_compile=jit)
    def step(grads):
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            parts = [g[i] if replicas > 1 else g[0] for g in grads]
            optimizer.apply([tf.cast(g, dtype) for g in parts], variables)

        strategy.run(replica)

    for grads in gradients:
        step([tf.constant(g) for g in grads])
    everything = [*variables, *optimizer.variables]
    return {v.path: keras.ops.convert_to_numpy(v).astype("float64") for v in everything}


def assert_same(found, expected, rtol=2e-5):
    assert list(found) == list(expected)
    for path, value in expected.items():
        size = np.abs(value).max()
        np.testing.assert_allclose(found[path], value, rtol=rtol, atol=rtol * size, err_msg=path)


OPTIONS = {
    "plain": {},
    "clipped": {"global_clipnorm": 1.0, "clipvalue": 2.0},
    "accumulated": {"gradient_accumulation_steps": 2},
    "averaged": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
}


@pytest.mark.parametrize(
    "name, options, replicas",
    [(name, "plain", 1) for name in ALL] + [("LAMB", options, 2) for options in OPTIONS],
)
def test_equals_one_variable_at_a_time(name, options, replicas, monkeypatch):
    found = trained(name, replicas, **OPTIONS[options])
    one_by_one(monkeypatch)
    assert_same(found, trained(name, replicas, **OPTIONS[options]))


@pytest.mark.parametrize("rounding", ["compensated", "stochastic"])
def test_bfloat16(rounding, monkeypatch):
    """The rest of the weights is compared with them: each alone may round the other way."""

    def weights():
        values = trained("LAMB", dtype="bfloat16", weight_rounding=rounding)
        rest = {k: v for k, v in values.items() if k.endswith("_residual")}
        return {n: values[n] + rest.get(f"o/{n}_residual", 0) for n in SHAPES}

    found = weights()
    one_by_one(monkeypatch)
    assert_same(found, weights(), rtol=2e-5)


def test_the_whole_step_under_xla(monkeypatch):
    found = trained("NLAMB", jit=True)
    one_by_one(monkeypatch)
    assert_same(found, trained("NLAMB"))


def test_the_same_bits_every_time():
    first, again = trained("LAMB"), trained("LAMB")
    for path, value in first.items():
        np.testing.assert_array_equal(again[path], value, err_msg=path)


def graph_of(shapes, optimizer):
    """The graph of one update, and the optimizer's variables of these shapes."""
    import tensorflow as tf

    variables = [keras.Variable(np.ones(s, "float32"), name=f"v{i}") for i, s in enumerate(shapes)]
    optimizer.build(variables)

    @tf.function
    def step(grads):
        optimizer.apply(grads, variables)

    return step.get_concrete_function([tf.ones(s) for s in shapes]).graph


def count(graph, kind):
    return sum(op.type == kind for op in graph.get_operations())


def test_small_variables_share_their_operations():
    few, many = (graph_of([SMALL] * n, LAMB()) for n in (4, 40))
    for kind in ("Sqrt", "RealDiv", "StatelessIf", "If", "Sum", "PartitionedCall"):
        assert count(few, kind) == count(many, kind), kind
    assert count(many, "Pack") == 4  # weights, gradients and two slots


def test_large_variables_of_a_shape_share_a_program():
    graph = graph_of([LARGE] * 3 + [(LARGE[1], LARGE[0])], LAMB())
    calls = [op for op in graph.get_operations() if op.type.endswith("PartitionedCall")]
    names = [op.get_attr("f").name for op in calls if "_XlaMustCompile" in op.node_def.attr]
    assert len(names) == 4 and len(set(names)) == 2
    assert count(graph, "Sqrt") == 0  # all is in the programs


def test_programs_work_in_place():
    """What XLA returns takes the place of the weights and slots: no copy of them is made."""
    import tensorflow as tf

    optimizer = LAMB()
    variable = keras.Variable(np.ones(LARGE, "float32"), name="w")
    optimizer.build([variable])
    m, v = (optimizer._slots[name][0].value for name in optimizer.slot_names)

    @tf.function(jit_compile=True)
    def program(w, m, v, g, rate, t):
        optimizer._move([w], [None], [[m], [v]], [g], rate, (t,), 0.01, adapt=True, index=None)

    arguments = (variable.value, m, v, tf.ones(LARGE), tf.constant(0.1), tf.constant(1))
    text = program.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    alias = re.search(r"input_output_alias=\{ (.*?) \}, ", text).group(1)
    assert len(re.findall(r"may-alias|must-alias", alias)) == 3


def test_many_shapes_give_no_warning(caplog):
    """One program for each shape is intended: TensorFlow shall not complain of retracing."""
    caplog.set_level("WARNING")
    absl = logging.getLogger("tensorflow")
    absl.addHandler(caplog.handler)
    try:
        optimizer = LARS()
        variables = [keras.Variable(np.ones((128, 128 + 8 * i), "float32")) for i in range(7)]
        for _ in range(2):
            optimizer.apply([np.ones(v.shape, "float32") for v in variables], variables)
    finally:
        absl.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text


def changes(optimizer, variables):
    """The largest change of each variable by one eager update by ones."""
    before = [v.numpy() for v in variables]
    optimizer.apply([np.ones(v.shape, "float32") for v in variables], variables)
    return [np.abs(v.numpy() - b).max() for v, b in zip(variables, before, strict=True)]


def large_and_small():
    return [
        keras.Variable(np.ones(s, "float32"), name=f"v{i}") for i, s in enumerate((LARGE, SMALL))
    ]


def test_settings_changed_on_the_way_count_for_all():
    variables, optimizer = large_and_small(), LARS(0.1, trust_coefficient=1.0)
    assert min(changes(optimizer, variables)) > 0
    optimizer.momentum, optimizer.trust_ratio_clip = 0.0, (0.0, 0.0)
    assert changes(optimizer, variables) == [0.0, 0.0]
    optimizer.trust_ratio_clip, optimizer.weight_decay = None, 1e9  # r is 1 over the decay
    for change in changes(optimizer, variables):
        np.testing.assert_allclose(change, 0.1 * 0.9, rtol=1e-4)
    optimizer.learning_rate = 0.2
    for change in changes(optimizer, variables):
        np.testing.assert_allclose(change, 0.2 * 0.81, rtol=1e-4)


@pytest.mark.parametrize("graph", [False, True])
def test_variables_on_another_device(graph):
    import tensorflow as tf

    with tf.device("CPU:1"):
        variables = large_and_small()
    optimizer = LARS(0.1, trust_coefficient=1.0, momentum=0.0, weight_decay=0.0)
    optimizer.build(variables)

    def step():
        optimizer.apply([tf.ones(v.shape) for v in variables], variables)

    (tf.function(step) if graph else step)()
    assert [v.value.device[-5:] for v in variables] == ["CPU:1"] * 2
    for v in variables:
        np.testing.assert_allclose(v.numpy(), 0.9, rtol=1e-6)


def test_update_step_by_hand():
    variables = large_and_small()
    optimizer = LARS(0.1, trust_coefficient=1.0, momentum=0.0, weight_decay=0.0)
    optimizer.build(variables)
    for v in variables:
        optimizer.update_step(keras.ops.ones(v.shape), v, 0.1)
        np.testing.assert_allclose(v.numpy(), 0.9, rtol=1e-6)


def test_update_step_overridden():
    """Keras' hook is called for every variable, also for two of a shape."""
    seen = []

    class Watched(LAMB):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(tuple(variable.shape))
            super().update_step(gradient, variable, learning_rate)

    graph_of([SMALL, SMALL, LARGE], Watched())
    assert seen == [SMALL, SMALL, LARGE]


class Plain(LayerwiseOptimizer):
    """Gradient descent by a rule that knows of no stacks."""

    def __init__(self, **base):
        super().__init__(
            0.1, weight_decay=None, exclude_from_weight_decay=None,
            exclude_from_layer_adaptation=None, weight_norm_clip=None, trust_ratio_clip=None,
            **base,
        )  # fmt: skip

    def rule(self, w, g, lr, clock, *, adapt, weight_decay):
        return w - lr * g, UNADAPTED


class Stacked(Plain):
    """The same for stacks."""

    takes_stacks = True

    def rule(self, w, g, lr, clock, *, adapt, weight_decay, stacked=False):
        return w - lr * g, UNADAPTED


@pytest.mark.parametrize("cls", [Plain, Stacked])
def test_a_rule_of_ones_own(cls):
    variables = [*large_and_small(), *large_and_small()]
    for change in changes(cls(), variables):
        np.testing.assert_allclose(change, 0.1, rtol=1e-6)


def test_a_variable_passed_twice_moves_twice():
    options = {"momentum": 0.0, "weight_decay": None, "exclude_from_layer_adaptation": ["v"]}
    variables = large_and_small()
    optimizer = LARS(0.1, **options)
    optimizer.build(variables)
    twice = [variables[0], variables[0], variables[1], variables[1]]
    for change in changes(optimizer, twice):
        np.testing.assert_allclose(change, 0.2, rtol=1e-6)


def test_layers_frozen_after_the_build():
    """The groups are made anew of what is passed: a variable left out doesn't move."""
    variables = [keras.Variable(np.ones(SMALL, "float32"), name=f"v{i}") for i in range(4)]
    optimizer = LAMB()
    optimizer.build(variables)
    part = [variables[0], variables[3]]
    optimizer.apply([np.ones(SMALL, "float32")] * 2, part)
    moved = [not np.array_equal(v.numpy(), np.ones(SMALL)) for v in variables]
    assert moved == [True, False, False, True]


def test_a_setting_may_be_a_list():
    class Listed(Plain):
        hyperparameters = ("steps",)
        steps = [1.0]  # noqa: RUF012 - as a user may write it

        def rule(self, w, g, lr, clock, *, adapt, weight_decay):
            return w - lr * self.steps[0] * g, UNADAPTED

    optimizer, variables = Listed(), large_and_small()
    for expected in (0.1, 0.3):
        for change in changes(optimizer, variables):
            np.testing.assert_allclose(change, expected, rtol=1e-5)
        optimizer.steps[0] = 3.0
