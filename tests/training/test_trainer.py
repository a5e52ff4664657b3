"""The trainer's laws: however a global batch is cut, the updates are the same."""

import functools

import keras
import numpy as np
import pytest

from replicas import strategy_of
from small_training import UPDATES, assert_same, rate, small_model, source, trained, weights
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB
from tf_largebatch.data.batches import evaluation_batches, training_batches
from tf_largebatch.training.trainer import Trainer

pytestmark = pytest.mark.tensorflow
OURS = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
ALL = {**OURS, "SGD": keras.optimizers.SGD, "AdamW": keras.optimizers.AdamW}


@functools.cache
def reference(name, **clip):
    """Weights after the updates on one device, each on its whole batch at once."""
    return weights(trained(lambda: ALL[name](rate(), **clip))[0])


def some_slow(names, quick):
    """All the names; those beyond the quick ones are left to `make test-slow`."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", some_slow(ALL, ("LAMB", "SGD")))
@pytest.mark.parametrize(
    "clip", [{}, {"global_clipnorm": 0.05}, {"clipnorm": 0.02}, {"clipvalue": 0.01}]
)
def test_replicas_and_micro_batches_equal_the_one_big_batch(name, clip):
    """2 replicas x 3 micro-batches of 4 are the batch of 24; the clips really clip."""
    one = reference(name, **clip)
    many, trainer = trained(lambda: ALL[name](rate(), **clip), replicas=2, micro_batch_size=4)
    assert trainer.plan == (24, 2, 3, 4)
    assert_same(one, many)
    assert int(many.optimizer.iterations.numpy()) == UPDATES
    assert float(many.optimizer.learning_rate) == pytest.approx(0.02 * (1 - UPDATES / 40))
    if clip:
        assert np.abs(reference(name) - one).max() > 1e-3


@pytest.mark.parametrize("name", some_slow(OURS, ("LARS",)))
@pytest.mark.parametrize("replicas, micro", [(1, 3), (1, 12), (2, None), (4, None), (4, 2)])
def test_every_layout(name, replicas, micro):
    many, _ = trained(lambda: OURS[name](rate()), replicas=replicas, micro_batch_size=micro)
    assert_same(reference(name), many)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_float64_for_200_updates(name):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    global UPDATES
    before, UPDATES = UPDATES, 200
    try:
        one, _ = trained(lambda: OURS[name](0.01), updates=200)
        many, _ = trained(lambda: OURS[name](0.01), updates=200, replicas=2, micro_batch_size=4)
    finally:
        UPDATES = before
    assert_same(one, many, 1e-8)


@pytest.mark.parametrize("name", ALL)
def test_fit_equals_trainer(name):
    theirs = small_model(ALL[name](rate()))
    batches = training_batches(source(), global_batch_size=24, seed=1, total_updates=UPDATES)
    theirs.fit(batches, shuffle=False, verbose=0)
    assert_same(reference(name), theirs)


def test_regularisers_count_once():
    options = {"regularise": 0.5}
    theirs = small_model(LAMB(rate()), **options)
    batches = training_batches(source(), global_batch_size=24, seed=1, total_updates=UPDATES)
    theirs.fit(batches, shuffle=False, verbose=0)
    many, _ = trained(lambda: LAMB(rate()), replicas=2, micro_batch_size=4, **options)
    assert_same(theirs, many)
    assert np.abs(reference("LAMB") - weights(many)).max() > 1e-2


@pytest.mark.parametrize("name, replicas", [("LAMB", 1), ("LAMB", 2), ("SGD", 2)])
def test_xla_equals_graph(name, replicas):
    """Under MirroredStrategy too, where `fit` can't on CPU devices."""
    other, _ = trained(lambda: ALL[name](rate()), jit=True, micro_batch_size=4, replicas=replicas)
    assert_same(reference(name), other)


def test_dropout_and_statistics_go_through_micro_batches():
    """Seeds advance and moving statistics move with each micro-batch; replicas end alike."""
    import tensorflow as tf

    model, trainer = trained(
        lambda: LAMB(rate()), replicas=2, micro_batch_size=4, normalise=True, dropout=0.5
    )
    bn = model.get_layer("bn")
    for variable in (bn.moving_mean, bn.moving_variance):
        first, second = trainer.strategy.experimental_local_results(variable.value)
        tf.debugging.assert_equal(first, second)
    assert np.abs(bn.moving_mean.numpy()).max() > 1e-3


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("stop", [4, 13])
def test_resume_is_exact(tmp_path, replicas, stop):
    options = {"micro_batch_size": 4, "normalise": True, "dropout": 0.5}
    trained(
        lambda: LAMB(rate()), replicas=replicas, updates=stop, folder=tmp_path, every=5, **options
    )
    resumed, _ = trained(
        lambda: LAMB(rate()), replicas=replicas, folder=tmp_path, calls=3, **options
    )
    for one, other in zip(straight(replicas, **options), everything(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def everything(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@functools.cache
def straight(replicas, **options):
    """Weights, state and slots of a run that was never stopped."""
    return everything(trained(lambda: LAMB(rate()), replicas=replicas, **options)[0])


def test_resume_on_other_replicas_and_micro_batches(tmp_path):
    """The global batch stays, and with it the run."""
    trained(lambda: LAMB(rate()), updates=10, folder=tmp_path, replicas=2)
    trained(lambda: LAMB(rate()), updates=20, folder=tmp_path, micro_batch_size=3)
    resumed, _ = trained(lambda: LAMB(rate()), folder=tmp_path, replicas=4, micro_batch_size=2)
    assert_same(reference("LAMB"), resumed)


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("batch", [20, 200])
def test_evaluation_counts_each_example_once(replicas, batch):
    """96 examples in batches that don't divide them, against NumPy over all at once."""
    data = source()
    with strategy_of(replicas).scope():
        model = small_model(LAMB(0.1), top_k=True)
    trainer = Trainer(model, data.images, data.labels, global_batch_size=24)
    logs = trainer.evaluate(evaluation_batches(data, batch_size=batch))
    logits = np.float64(model.predict(data.images, verbose=0))
    log_sum = np.log(np.exp(logits).sum(axis=1))
    losses = log_sum - logits[np.arange(len(logits)), data.labels]
    right = logits.argmax(axis=1) == data.labels
    assert logs["loss"] == pytest.approx(losses.mean(), abs=1e-6)
    assert logs["top1"] == pytest.approx(right.mean(), abs=1e-6)
    assert logs["topk"] == pytest.approx(right.mean(), abs=1e-6)


@pytest.mark.parametrize("bad_replica", [0, 1])
@pytest.mark.parametrize("name", ["LAMB", "SGD"])
def test_infinite_gradients_on_any_replica_change_nothing_but_the_scale(name, bad_replica):
    """Keras looks at the first replica's share only, before the reduction."""
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_float16")
    data = source(24)
    with strategy_of(2).scope():
        model = small_model(ALL[name](0.1))
    trainer = Trainer(model, data.images, data.labels, global_batch_size=24)
    images = data.images.copy()
    images[12 * bad_replica] = 6e4  # infinite in the first product in float16
    images[12 * bad_replica, ::2] *= -1
    optimizer = model.optimizer
    optimizer.dynamic_scale.assign(2.0**30)
    before = [v.numpy() for v in [*model.trainable_variables, *optimizer.inner_optimizer.variables]]
    batches = tf.data.Dataset.from_tensors((images, data.labels))
    trainer.run_updates(iter(trainer.distribute(batches)), tf.constant(1))
    after = [v.numpy() for v in [*model.trainable_variables, *optimizer.inner_optimizer.variables]]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert optimizer.dynamic_scale.numpy() == 2.0**29


def test_mixed_float16_trains_and_clips_unscaled_gradients():
    keras.config.set_dtype_policy("mixed_float16")
    for name in ("LAMB", "SGD"):
        one, _ = trained(lambda: ALL[name](0.05, global_clipnorm=0.05))  # noqa: B023
        many, _ = trained(lambda: ALL[name](0.05, global_clipnorm=0.05), replicas=2)  # noqa: B023
        assert_same(one, many, 2e-2)


@pytest.mark.parametrize(
    "clip", [{"global_clipnorm": 0.05}, {"clipnorm": 0.05}, {"clipvalue": 0.02}]
)
def test_the_loss_scale_moves_no_clip(clip):
    """SGD, whose step would show it, goes as far as without a scale."""
    make = lambda: keras.optimizers.SGD(1.0, **clip)  # noqa: E731
    start = weights(small_model(make()))
    plain, _ = trained(make, updates=10)
    fixed, _ = trained(
        lambda: keras.optimizers.SGD(1.0, loss_scale_factor=1024.0, **clip), updates=10
    )
    assert_same(plain, fixed, 1e-5)
    keras.config.set_dtype_policy("mixed_float16")
    scaled, _ = trained(make, updates=10)
    assert_same(plain, scaled, 1e-2)
    assert np.abs(weights(scaled) - start).max() > 0.1


def test_collectives_do_not_grow_with_accumulation():
    """In the traced graph, its functions included."""
    import tensorflow as tf

    def reductions(micro_batch_size):
        data = source()
        with strategy_of(2).scope():
            model = small_model(LAMB(rate()))
        trainer = Trainer(
            model, data.images, data.labels, global_batch_size=64,
            micro_batch_size=micro_batch_size,
        )  # fmt: skip
        batches = training_batches(data, global_batch_size=64, seed=1, total_updates=2)
        iterator = iter(trainer.distribute(batches))
        graph = trainer.run_updates.get_concrete_function(iterator, tf.constant(1)).graph
        definition = graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        # Summing over devices is what reduces here; its inputs come from both of them.
        return trainer.plan.accumulation, sum(n.op in ("AddN", "CollectiveReduceV2") for n in nodes)

    counts = dict(reductions(size) for size in (32, 16, 4))
    assert set(counts) == {1, 2, 8}
    assert counts[1] == counts[2] == counts[8] > 0


def test_clips_stay_in_the_optimizer():
    """A second trainer of the same model, and a saved model, still have them."""
    data = source()
    model = small_model(keras.optimizers.SGD(0.1, global_clipnorm=1e-3))
    for _ in range(2):
        before = weights(model)
        trainer = Trainer(model, data.images, data.labels, global_batch_size=24)
        trainer.fit(
            training_batches(data, global_batch_size=24, seed=1, total_updates=1),
            num_examples=96, total_updates=1, verbose=0,
        )  # fmt: skip
        assert np.linalg.norm(weights(model) - before) <= 1.01e-4
    assert model.optimizer.get_config()["global_clipnorm"] == 1e-3


def test_each_gradient_is_reduced_once():
    """Of Keras' optimizers, and with loss scaling, too: there are as many sums as with LAMB."""
    import tensorflow as tf

    def sums(make, policy="float32"):
        keras.config.set_dtype_policy(policy)
        data = source()
        with strategy_of(2).scope():
            model = small_model(make())
        trainer = Trainer(model, data.images, data.labels, global_batch_size=24)
        batches = training_batches(data, global_batch_size=24, seed=1, total_updates=1)
        iterator = iter(trainer.distribute(batches))
        graph = trainer.run_updates.get_concrete_function(iterator, tf.constant(1)).graph
        definition = graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        return sum(n.op == "AddN" for n in nodes)

    ours = sums(lambda: LAMB(0.1))
    assert sums(lambda: keras.optimizers.SGD(0.1)) == ours
    assert sums(lambda: LAMB(0.1), "mixed_float16") <= ours + 2  # and the check for infinities


def test_frozen_weights_are_left_alone():
    """Not even the rounding of a mean over three replicas touches them."""
    data = source()
    with strategy_of(3).scope():
        model = small_model(LAMB(0.1), normalise=True)
        model.get_layer("a").trainable = False
        model.get_layer("bn").trainable = False
        model.get_layer("bn").moving_mean.assign(np.full(8, 0.1, "float32"))
        model.compile(LAMB(0.1), loss=model.loss)
        model.optimizer.build(model.trainable_variables)
    frozen = [*model.get_layer("a").variables, *model.get_layer("bn").variables]
    before = [v.numpy() for v in frozen]
    trainer = Trainer(model, data.images, data.labels, global_batch_size=24)
    trainer.fit(
        training_batches(data, global_batch_size=24, seed=1, total_updates=3),
        num_examples=96, total_updates=3, verbose=0,
    )  # fmt: skip
    for variable, value in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
