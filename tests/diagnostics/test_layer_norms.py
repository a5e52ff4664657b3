"""Norms and trust ratios along a run equal those of a float64 oracle; what is rare is counted."""

import csv
import math

import keras
import numpy as np
import pytest

import oracles
from linear_loss import PATHS, examples, gradients, linear_model, train
from tf_largebatch import BIAS_AND_NORM, LAMB, LARS

pytestmark = pytest.mark.tensorflow
UPDATES, BATCH, EVERY = 7, 8, 3
FIGURES = ("weight_norm", "gradient_norm", "update_norm", "trust_ratio")


def norms_of(*args, **options):
    from tf_largebatch.diagnostics import LayerNorms

    return LayerNorms(*args, **options)


def oracle_rows(oracle, x, y, rate, *, excluded=False):
    """{(update, path): figures} at each look, by float64 NumPy."""
    weights = [np.array([[3.0], [4.0], [0.0]]), np.zeros(1)]
    found = {}
    for update in range(UPDATES):
        batch = slice(update * BATCH, (update + 1) * BATCH)
        for i, g in enumerate(gradients(x[batch], y[batch])):
            free = excluded and i == 1
            w, (new, ratio) = (
                weights[i],
                oracle.step(i, weights[i], g, rate, decayed=not free, adapted=not free),
            )
            weights[i] = new
            if update % EVERY == 0:
                norms = [oracles.size_of(a) for a in (w, g, new - w)]
                found[update, PATHS[i]] = [*norms, math.nan if free else ratio]
    return found


def written_rows(path):
    rows = list(csv.DictReader(path.read_text().splitlines()))
    figures = {
        (int(r["update"]), r["variable"]): [float(r[name] or "nan") for name in FIGURES]
        for r in rows
    }
    return rows, figures


@pytest.mark.parametrize(
    "through, replicas, micro, steps",
    [
        ("trainer", 1, None, None), ("trainer", 2, 2, None), ("fit", 1, None, None),
        ("fit", 2, None, 2),
    ],
)  # fmt: skip
def test_lamb_equals_the_oracle(tmp_path, through, replicas, micro, steps):
    """`steps`: Keras' own accumulation, over as many batches of `fit`."""
    x, y = examples(UPDATES * BATCH)
    expected = oracle_rows(oracles.Lamb(weight_decay=0.1), x, y, 0.05, excluded=True)
    model = linear_model(
        lambda: LAMB(0.05, weight_decay=0.1, exclude_from_weight_decay=[BIAS_AND_NORM],
                     gradient_accumulation_steps=steps),
        replicas,
    )  # fmt: skip
    norms = norms_of(tmp_path, EVERY)
    train(model, x, y, BATCH // (steps or 1), [norms], through=through, micro=micro)
    rows, figures = written_rows(tmp_path / "norms.csv")
    assert list(figures) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(figures[key], values, rtol=2e-5, atol=1e-7, err_msg=str(key))
    assert {float(r["learning_rate"]) for r in rows} == {float(np.float32(0.05))}
    assert norms.counts()["looks"] == 3
    last = norms.table()[0]
    assert last.variable == PATHS[0]
    assert last.trust_ratio == pytest.approx(expected[6, PATHS[0]][3], rel=2e-5)
    assert last.weight_to_gradient == pytest.approx(last.weight_norm / last.gradient_norm)
    assert last.update_to_weight == pytest.approx(float(rows[-2]["update_to_weight"]))


@pytest.mark.parametrize("through, replicas", [("trainer", 2), ("fit", 1)])
def test_lars_equals_the_oracle(tmp_path, through, replicas):
    x, y = examples(UPDATES * BATCH)
    expected = oracle_rows(oracles.Lars(weight_decay=0.1, trust_coefficient=0.1), x, y, 0.5)
    make = lambda: LARS(0.5, weight_decay=0.1, trust_coefficient=0.1)  # noqa: E731
    norms = norms_of(tmp_path, EVERY)
    train(linear_model(make, replicas), x, y, BATCH, [norms], through=through)
    _, figures = written_rows(tmp_path / "norms.csv")
    assert list(figures) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(figures[key], values, rtol=2e-5, atol=1e-7, err_msg=str(key))


@pytest.mark.parametrize("through, replicas", [("trainer", 1), ("fit", 2)])
def test_of_keras_optimizers_the_decay_is_part_of_the_update(through, replicas):
    """AdamW's first update is lr * (sign(g) + decay * w)."""
    x, y = examples(BATCH)
    model = linear_model(lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), replicas)
    norms = norms_of(every=1)
    train(model, x, y, BATCH, [norms], through=through)
    g = gradients(x, y)[0]
    moved = 0.01 * (np.sign(g) + 0.1 * np.array([[3.0], [4.0], [0.0]]))
    row = norms.table()[0]
    assert row.weight_norm == pytest.approx(5.0, rel=1e-5)
    assert row.gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-5)
    assert row.update_norm == pytest.approx(np.linalg.norm(moved), rel=1e-4)
    assert math.isnan(row.trust_ratio)


def test_clipped_gradients_without_the_loss_scale():
    """What the rule got is what is shown: unscaled, reduced, clipped."""
    x, y = examples(BATCH)

    def make():
        return keras.optimizers.LossScaleOptimizer(LAMB(0.01, global_clipnorm=0.01), 2.0**12)

    norms = norms_of(every=1)
    train(linear_model(make, 2), x, y, BATCH, [norms])
    total = math.hypot(*(row.gradient_norm for row in norms.table()))
    assert total == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    "options, kernel, labels, expected",
    [
        # The bias is 0 at the first look, and moved after it.
        ({}, [3.0, 4.0, 0.0], 1.0, {"zero_weight_norms": 1}),
        ({}, [3.0, 4.0, 0.0], 0.0, {"zero_weight_norms": 2, "zero_gradient_norms": 4}),
        ({"trust_ratio_clip": (0.0, 1.0)}, [3.0, 4.0, 0.0], 1.0,
         {"zero_weight_norms": 1, "trust_ratios_at_high_clip": 2}),
        ({"trust_ratio_clip": (20.0, 30.0)}, [3.0, 4.0, 0.0], 1.0,
         {"zero_weight_norms": 1, "trust_ratios_at_low_clip": 3}),
        ({"weight_norm_clip": (0.1, 4.0)}, [3.0, 4.0, 0.0], 1.0,
         {"zero_weight_norms": 1, "weight_norms_outside_clip": 3}),
    ],
)  # fmt: skip
def test_counts(options, kernel, labels, expected):
    """Two looks at kernel and bias; a rate of 0.005 moves within Hinton's band."""
    x = np.ones((2 * BATCH, 3), "float32")
    model = linear_model(LAMB(0.005, weight_decay=0.0, **options))
    model.set_weights([np.array(kernel)[:, None], np.zeros(1)])
    norms = norms_of(every=1)
    train(model, x, np.full((len(x), 1), labels, "float32"), BATCH, [norms], through="fit")
    counts = norms.counts()
    below, above = counts.pop("updates_below_band"), counts.pop("updates_above_band")
    assert counts.pop("looks") == 2
    assert {name: n for name, n in counts.items() if n} == expected
    if not options:
        assert (below, above) == ((0, 0) if labels else (2, 0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norms_of_16_bit_variables_are_float32s(dtype):
    """Keras' optimizers work in the variable's dtype, which holds 2 to 3 digits of a norm."""
    model = keras.Sequential(
        [keras.Input((64,), dtype=dtype), keras.layers.Dense(64, use_bias=False, dtype=dtype)]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    norms = norms_of(every=1)
    before = np.float64(keras.ops.convert_to_numpy(keras.ops.cast(model.weights[0], "float32")))
    x = np.ones((4, 64), "float32")
    model.fit(x, x, batch_size=4, verbose=0, callbacks=[norms])
    after = np.float64(keras.ops.convert_to_numpy(keras.ops.cast(model.weights[0], "float32")))
    [row] = norms.table()
    assert row.weight_norm == pytest.approx(oracles.size_of(before), rel=1e-6)
    assert row.update_norm == pytest.approx(oracles.size_of(after - before), rel=1e-6)


def test_updates_outside_the_band():
    x, y = examples(BATCH)
    for rate, low, high in ((1e-4, 1, 0), (0.1, 0, 1)):
        norms = norms_of(every=1)
        train(linear_model(LAMB(rate)), x, y, BATCH, [norms], through="fit")
        counts = norms.counts()
        assert (counts["updates_below_band"], counts["updates_above_band"]) == (low, high)


def test_a_variable_without_a_gradient_is_left_out():
    inputs = keras.Input((3,))
    used, unused = keras.layers.Dense(1, name="used"), keras.layers.Dense(1, name="unused")
    model = keras.Model(inputs, [used(inputs), unused(inputs)])
    model.compile(LAMB(0.01), loss=["mse", None])
    x, y = examples(BATCH)
    norms = norms_of(every=1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        model.fit(x, [y, y], batch_size=BATCH, verbose=0, callbacks=[norms])
    assert [row.variable for row in norms.table()] == ["used/kernel", "used/bias"]


def test_the_printed_table(capsys):
    norms = norms_of(every=1)
    with pytest.raises(ValueError, match="has seen no update yet. Pass it to fit"):
        norms.table()
    x, y = examples(BATCH)
    train(linear_model(LAMB(0.01)), x, y, BATCH, [norms], through="fit")
    norms.print_table()
    header, kernel, bias, counts = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["variable", "|w|", "|g|", "|w|/|g|"]
    assert kernel.split()[:2] == ["d/kernel", "5"]
    assert bias.split()[0] == "d/bias" and bias.split()[-1] == "-"
    assert counts.startswith("looks 1, zero_weight_norms 1, ")


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_mistakes(every):
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        norms_of(every=every)


def test_a_model_without_variables():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(LAMB(), "mse")
    norms = norms_of()
    norms.set_model(model)
    with pytest.raises(ValueError, match="isn't built. Call it on a batch first"):
        norms.on_train_begin()


def test_two_at_once():
    x, y = examples(BATCH)
    both = [norms_of(), norms_of()]
    with pytest.raises(ValueError, match="A run can have one LayerNorms"):
        train(linear_model(LAMB()), x, y, BATCH, both)


def test_tensorboard_and_its_histograms(tmp_path):
    import tensorflow as tf

    x, y = examples(2 * BATCH)
    train(linear_model(LAMB(0.01)), x, y, BATCH, [norms_of(tmp_path, 1)], through="fit")
    [path] = tmp_path.glob("*tfevents*")
    tags = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append(event.step)
    assert tags["trust_ratio/d/kernel"] == [0, 1]
    assert tags["all_variables/trust_ratio"] == [0, 1]
    assert tags["learning_rate"] == [0, 1]
    assert tags["update_to_weight/d/bias"] == [1]  # the bias was 0 at first


def test_the_plot(tmp_path):
    from tf_largebatch.diagnostics import plot_trust_ratios

    x, y = examples(4 * BATCH)
    train(linear_model(LAMB(0.01)), x, y, BATCH, [norms_of(tmp_path, 1)], through="fit")
    table = tmp_path / "norms.csv"
    plot_trust_ratios(table, tmp_path / "a.png")
    plot_trust_ratios(table, tmp_path / "b.png", updates=[0, 3])
    a, b = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert a.startswith(b"\x89PNG") and a != b
    plot_trust_ratios(table, tmp_path / "d.png", updates=[])  # by default all four
    assert (tmp_path / "d.png").read_bytes() == a
    with pytest.raises(ValueError, match=r"has no look at update 5. It has those at 0, 1, 2, 3\."):
        plot_trust_ratios(table, tmp_path / "c.png", updates=[0, 5])
    train(
        linear_model(keras.optimizers.SGD(0.01)), x, y, BATCH, [norms_of(tmp_path, 1)],
        through="fit",
    )  # fmt: skip
    with pytest.raises(ValueError, match="holds no trust ratios. They are LARS' and LAMB's"):
        plot_trust_ratios(table, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()
