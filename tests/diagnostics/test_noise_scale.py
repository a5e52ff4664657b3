"""The noise scale of a quadratic, whose closed form is sigma^2 / mu^2, by each way to it."""

import math

import keras
import numpy as np
import pytest

from linear_loss import examples, linear_model, train
from replicas import strategy_of
from tf_largebatch import LAMB

pytestmark = pytest.mark.tensorflow
DIMENSION, CURVATURE, MU, SIGMA = 50, 3.0, 0.5, 1.5
BATCH, UPDATES = 32, 60


def diagnostics():
    from tf_largebatch import diagnostics

    return diagnostics


def points():
    random = np.random.default_rng(7)
    x = random.normal(MU, SIGMA, size=(BATCH * UPDATES, DIMENSION)).astype("float32")
    return x, x[:, :1]


class Distance(keras.layers.Layer):
    """w - x, for one point w that begins at 0."""

    def build(self, shape):
        self.w = self.add_weight(shape=(DIMENSION,), initializer="zeros", name="w")

    def call(self, x):
        return self.w - x


def quadratic(make=lambda: LAMB(0.0), replicas=1):
    """The mean over examples of CURVATURE/2 * |w - x|^2; a rate of 0 stays at w = 0."""
    with strategy_of(replicas).scope():
        inputs = keras.Input((DIMENSION,))
        model = keras.Model(inputs, Distance(name="p")(inputs))
        model.compile(
            make(),
            loss=lambda y, p: CURVATURE / 2 * keras.ops.sum(p * p, axis=-1),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    return model


def check(estimate):
    """Against tr(Sigma) = a^2 d sigma^2 and |G|^2 = a^2 d mu^2, by the definition of both."""
    trace = CURVATURE**2 * DIMENSION * SIGMA**2
    gradient_square = CURVATURE**2 * DIMENSION * MU**2
    assert estimate.trace == pytest.approx(trace, rel=0.1)
    assert estimate.gradient_square == pytest.approx(gradient_square, rel=0.1)
    assert estimate.noise_scale == pytest.approx(SIGMA**2 / MU**2, rel=0.1)
    assert estimate.suggested_batch_size == 8.0


@pytest.mark.parametrize(
    "replicas, micro, jit",
    [
        pytest.param(1, 4, False, marks=pytest.mark.slow),
        pytest.param(2, None, False, marks=pytest.mark.slow),
        (2, 4, True),
    ],
)
def test_through_the_trainer(replicas, micro, jit):
    x, y = points()
    noise = diagnostics().NoiseScale(every=1, momentum=0.999)
    train(quadratic(replicas=replicas), x, y, BATCH, [noise], micro=micro, jit=jit)
    check(noise.estimate())


@pytest.mark.parametrize(
    "make", [lambda: LAMB(0.0, global_clipnorm=0.1), lambda: keras.optimizers.SGD(0.0)]
)
def test_through_fit_on_two_replicas(make):
    """LAMB's clip comes after the reduction, and the gradients are taken before it."""
    x, y = points()
    noise = diagnostics().NoiseScale(every=1, momentum=0.999, global_batch_size=BATCH)
    history = train(quadratic(make, 2), x, y, BATCH, [noise], through="fit").history
    check(noise.estimate())
    assert history["noise_scale"] == [noise.estimate().noise_scale]
    assert history["suggested_batch_size"] == [8.0]


def test_from_one_batch():
    x, y = points()
    model = quadratic()
    before = model.get_weights()
    check(diagnostics().gradient_noise_scale(model, x, y, micro_batch_size=4))
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_the_average_is_over_looks_with_its_start_corrected():
    """From each batch's own estimates, in float64, as in appendix A.1."""
    x, y = examples(32)
    momentum, averages = 0.8, np.zeros(2)
    for k, batch in enumerate(np.float64(y * np.c_[x, np.ones(32)]).reshape(4, 8, 4)):
        if k % 2 == 0:  # looked at
            parts = batch.reshape(4, 2, 4).mean(1)
            big, small = (batch.mean(0) ** 2).sum(), (parts**2).sum(1).mean()
            square = (8 * big - 2 * small) / (8 - 2)
            trace = (small - big) / (1 / 2 - 1 / 8)
            averages = momentum * averages + (1 - momentum) * np.array([square, trace])
    square, trace = averages / (1 - momentum**2)
    noise = diagnostics().NoiseScale(every=2, momentum=momentum)
    train(linear_model(LAMB(0.01)), x, y, 8, [noise], micro=2)
    found = noise.estimate()
    assert found.gradient_square == pytest.approx(square, rel=1e-4)
    assert found.trace == pytest.approx(trace, rel=1e-4)


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(lambda: LAMB(0.0), marks=pytest.mark.slow),
        lambda: keras.optimizers.SGD(0.0),
    ],
)
def test_the_loss_scale_is_taken_out(inner):
    """The scale, which lifts float16's gradients, leaves the estimate as it is."""
    x, y = examples(32)
    make = lambda: keras.optimizers.LossScaleOptimizer(inner(), 2.0**10)  # noqa: E731
    for through, micro in ("trainer", 2), ("fit", None):
        found = []
        for optimizer in (inner, make):
            noise = diagnostics().NoiseScale(every=1, global_batch_size=8)
            train(linear_model(optimizer, 2), x, y, 8, [noise], through=through, micro=micro)
            found.append(noise.estimate())
        np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_an_estimate_that_is_not_positive_is_not_known():
    """Labels of mean 0: |G|^2 is 0 and its estimate as often negative."""
    x = np.ones((8, 3), "float32")
    y = np.float32([1, -1, -1, 1, 1, -1, -1, 1])[:, None]
    noise = diagnostics().NoiseScale(every=1)
    assert math.isnan(noise.estimate().noise_scale)
    train(linear_model(LAMB(0.01)), x, y, 8, [noise], micro=1)
    found = noise.estimate()
    assert found.gradient_square < 0 < found.trace
    assert math.isnan(found.noise_scale) and math.isnan(found.suggested_batch_size)


@pytest.mark.parametrize(
    "noise_scale, size", [(0.3, 1.0), (1.0, 1.0), (5.0, 4.0), (6.0, 8.0), (3000.0, 4096.0)]
)
def test_the_suggested_batch_size(noise_scale, size):
    assert diagnostics().NoiseEstimate(noise_scale, 1.0, 1.0).suggested_batch_size == size


def test_one_part_has_nothing_to_compare():
    x, y = examples(8)
    words = "one micro-batch on one replica. Set micro_batch_size in the Trainer to half the batch"
    for through in ("trainer", "fit"):
        noise = diagnostics().NoiseScale(global_batch_size=8)
        with pytest.raises(ValueError, match=words):
            train(linear_model(LAMB()), x, y, 8, [noise], through=through)


def test_fit_does_not_say_how_large_its_batches_are():
    x, y = examples(8)
    with pytest.raises(ValueError, match="`fit` doesn't say.*Pass global_batch_size"):
        train(linear_model(LAMB, 2), x, y, 8, [diagnostics().NoiseScale()], through="fit")


@pytest.mark.parametrize("momentum", [-0.1, 1.0, "a", math.nan])
def test_mistakes(momentum):
    with pytest.raises(ValueError, match=r"momentum must be a number in \[0, 1\)"):
        diagnostics().NoiseScale(momentum=momentum)


@pytest.mark.parametrize("size", [0, -8, 8.5, "8", True])
def test_a_batch_size_that_is_none(size):
    with pytest.raises(ValueError, match="global_batch_size must be a whole number of at least 1"):
        diagnostics().NoiseScale(global_batch_size=size)


@pytest.mark.parametrize(
    "size, words",
    [
        (np.int64(3), "must cut the batch into two or more equal parts"),
        (8, "must cut the batch into two or more equal parts"),
        (0, "micro_batch_size must be a whole number of at least 1"),
        (2.5, "micro_batch_size must be a whole number of at least 1"),
    ],
)
def test_parts_of_one_batch(size, words):
    x, y = examples(8)
    with pytest.raises(ValueError, match=words):
        diagnostics().gradient_noise_scale(linear_model(LAMB()), x, y, micro_batch_size=size)
