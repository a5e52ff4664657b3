"""Accumulation, averaging and schedules are clocked on updates, and equal the big batch."""

import keras
import numpy as np
import pytest

import oracles
from stepping import MODES, run
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB, schedules

ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
MODE = MODES[0]
UPDATES, STEPS = 6, 4


def variables():
    random = np.random.default_rng(5)
    return [
        keras.Variable(random.normal(size=s).astype("float32"), name=n)
        for n, s in (("kernel", (3, 2)), ("bias", (2,)))
    ]


def micro_gradients():
    random = np.random.default_rng(6)
    return [
        [random.normal(size=s).astype("float32") for s in ((3, 2), (2,))]
        for _ in range(UPDATES * STEPS)
    ]


def means():
    grads = micro_gradients()
    return [
        [np.mean([g[j] for g in grads[i : i + STEPS]], axis=0) for j in range(2)]
        for i in range(0, len(grads), STEPS)
    ]


def options(**more):
    schedule = schedules.LinearWarmup(schedules.Polynomial(0.1, 10), 4)
    return {"learning_rate": schedule, "weight_decay": 0.01, **more}


CLIPS = [(clip, MODE) for clip in ({"global_clipnorm": 0.5}, {"clipnorm": 0.3, "clipvalue": 0.2})]
CLIPS += [({}, mode) for mode in MODES if mode != "xla"]
CLIPS += [({"clipvalue": 0.2, "global_clipnorm": 0.5}, mode) for mode in MODES if mode != MODE]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("clip, mode", CLIPS)
def test_accumulation_equals_the_big_batch(name, clip, mode):
    """Rate, bias correction, mu product, clipping: all on the mean of k micro-gradients."""
    big = run(ALL[name](**options(**clip)), variables(), means(), mode)
    optimizer = ALL[name](**options(**clip, gradient_accumulation_steps=STEPS))
    small = run(optimizer, variables(), micro_gradients(), mode)
    assert int(optimizer.iterations) == UPDATES
    for i in range(UPDATES * STEPS):
        expected = big[i // STEPS] if (i + 1) % STEPS == 0 else (
            big[i // STEPS - 1] if i >= STEPS else [v.numpy() for v in variables()]
        )  # fmt: skip
        for ours, theirs in zip(small[i], expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frequency", [None, 2])
@pytest.mark.parametrize("accumulated", [False, True])
def test_average_is_clocked_on_updates(mode, frequency, accumulated):
    """The average of weights after each update, from an oracle that knows nothing of Keras."""
    more = {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": frequency}
    if accumulated:
        more["gradient_accumulation_steps"] = STEPS
    optimizer = LAMB(**options(learning_rate=0.1, **more))
    own = variables()
    weights = [np.float64(v.numpy()) for v in own]
    averages = None
    oracle = oracles.Lamb()
    for i, grads in enumerate(means()):
        weights = [
            oracle.step(j, w, g, 0.1)[0]
            for j, (w, g) in enumerate(zip(weights, grads, strict=True))
        ]
        if averages is None:
            averages = weights
        else:
            averages = [0.7 * a + 0.3 * w for a, w in zip(averages, weights, strict=True)]
        if frequency and (i + 1) % frequency == 0:
            weights = averages
    ours = run(optimizer, own, micro_gradients() if accumulated else means(), mode)[-1]
    for one, other in zip(ours, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    optimizer.finalize_variable_values(own)
    for one, other in zip(own, averages, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)


def test_keras_own_clock_is_wrong():
    """The fault that we exist to mend: with k = 4, Keras' warmup is over after a quarter of it."""
    schedule = schedules.LinearWarmup(1.0, 8)
    rates = {}
    for name, cls in {"ours": LAMB, "keras": keras.optimizers.Lamb}.items():
        optimizer = cls(schedule, gradient_accumulation_steps=4)
        run(optimizer, variables(), micro_gradients()[:8], "eager")
        rates[name] = float(optimizer.learning_rate)
    assert rates == {"ours": pytest.approx(0.25), "keras": pytest.approx(1.0)}


def test_schedule_reads_completed_updates():
    optimizer = LAMB(schedules.LinearWarmup(1.0, 10))
    seen = []
    own = variables()
    for grads in means()[:3]:
        seen.append(float(optimizer.learning_rate))
        optimizer.apply(grads, own)
    assert seen == pytest.approx([0.0, 0.1, 0.2])


def test_momentum_product_advances_once_an_update():
    """Not once a variable, nor once a micro-step."""
    optimizer = NLAMB(0.1, beta_1=0.5, gradient_accumulation_steps=STEPS)
    run(optimizer, variables(), micro_gradients()[: 2 * STEPS + 1], MODE)
    assert float(optimizer._momentum_product) == pytest.approx(0.5**2)


@pytest.mark.parametrize("name", ALL)
def test_accumulation_in_fit(name):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(160, 4)).astype("float32"), random.normal(size=(160, 2))
    ends = []
    for batch, steps in ((32, None), (8, 4)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile(ALL[name](0.1, gradient_accumulation_steps=steps), loss="mse")
        model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
        ends.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_keras_still_has_the_methods_that_are_overridden():
    """A renamed hook would bring Keras' decay, clipping and branches back in silence."""
    import inspect

    base = keras.optimizers.Optimizer
    for method in (
        "_backend_apply_gradients", "_clip_gradients", "_apply_weight_decay",
        "_get_current_learning_rate", "_all_reduce_sum_gradients", "add_variable",
        "_overwrite_model_variables_with_average_value", "save_own_variables",
        "load_own_variables", "exclude_from_weight_decay", "_get_variable_index",
    ):  # fmt: skip
        assert callable(getattr(base, method, None)), method
    assert "self._backend_apply_gradients(" in inspect.getsource(base.apply)
