"""Looking changes nothing: not the weights, not what is trained afterwards, not a resumed run."""

import csv

import keras
import numpy as np
import pytest

from linear_loss import batches_of, examples, linear_model, train
from tf_largebatch import LAMB

pytestmark = pytest.mark.tensorflow
UPDATES, BATCH = 10, 8
OPTIMIZERS = {"LAMB": lambda: LAMB(0.05), "AdamW": lambda: keras.optimizers.AdamW(0.05)}


def both(folder=None, **files):
    from tf_largebatch.diagnostics import LayerNorms, NoiseScale

    noise = NoiseScale(every=3, momentum=0.5, global_batch_size=BATCH)
    return [LayerNorms(folder, 2, **files), noise]


def ops_of(trainer, model, x, y):
    """How many operations the trainer's update has, those of its branches and loops included."""
    import tensorflow as tf

    iterator = iter(trainer.distribute(batches_of(x, y, BATCH)))
    function = trainer.run_updates.get_concrete_function(
        iterator, tf.constant(1), trainer._step.observer
    )
    definition = function.graph.as_graph_def()
    return len(definition.node) + sum(len(f.node_def) for f in definition.library.function)


@pytest.mark.parametrize(
    "name, through, micro",
    [
        ("LAMB", "trainer", 2),
        pytest.param("LAMB", "fit", None, marks=pytest.mark.slow),
        pytest.param("AdamW", "trainer", 2, marks=pytest.mark.slow),
        ("AdamW", "fit", None),
    ],
)
def test_the_weights_are_those_without(name, through, micro):
    """Bit for bit, on two replicas; and so after a second run, which nobody looks at."""
    x, y = examples(UPDATES * BATCH)
    one, other = (linear_model(OPTIMIZERS[name], 2) for _ in range(2))
    callbacks = both()
    for looking in (callbacks, []):
        train(one, x, y, BATCH, through=through, micro=micro)
        train(other, x, y, BATCH, looking, through=through, micro=micro)
        for w, v in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(w, v)
    # Looks at 0, 2, ..., 8, and at 0, 3, 6, 9.
    assert callbacks[0].counts()["looks"] == 5
    assert callbacks[1].get_state()["looks"] == 4
    assert len(callbacks[0].table()) == 2


def test_after_a_fit_that_was_traced_without():
    """The function that `fit` has traced must give way to one with the figures."""
    x, y = examples(UPDATES * BATCH)
    model = linear_model(LAMB(0.05))
    train(model, x, y, BATCH, through="fit")
    norms = both()[0]
    for _ in range(2):  # each counts its own: at updates 10, 12, ... and at 20, 22, ...
        train(model, x, y, BATCH, [norms], through="fit")
        assert norms.counts()["looks"] == 5


@pytest.mark.parametrize("name", ["LAMB", pytest.param("AdamW", marks=pytest.mark.slow)])
def test_nothing_is_left_behind(name):
    x, y = examples(UPDATES * BATCH)
    model = linear_model(OPTIMIZERS[name])
    state = len(model.optimizer.variables), model.optimizer.get_config()
    trainer = train(model, x, y, BATCH, micro=2)
    plain = ops_of(trainer, model, x, y)
    optimizer = model.optimizer
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(ops_of(trainer, model, x, y))

    trainer.fit(
        batches_of(x, y, BATCH), num_examples=len(x), total_updates=2,
        callbacks=[*both(), Look()], verbose=0,
    )  # fmt: skip
    assert seen[0] > plain
    assert ops_of(trainer, model, x, y) == plain
    assert (len(optimizer.variables), optimizer.get_config()) == state
    assert getattr(optimizer, "observer", None) is None
    assert "update_step" not in vars(optimizer)
    assert "_all_reduce_sum_gradients" not in vars(optimizer)
    trained_plainly = train(linear_model(OPTIMIZERS[name]), x, y, BATCH, micro=2)
    assert ops_of(trained_plainly, trained_plainly.model, x, y) == plain


def test_no_look_is_missed_where_host_calls_are_long(tmp_path):
    """The trainer's calls of 20 updates end at each look's period."""
    x, y = examples(UPDATES * BATCH)
    train(linear_model(LAMB(0.05)), x, y, BATCH, both(tmp_path), micro=4)
    rows = csv.DictReader((tmp_path / "norms.csv").read_text().splitlines())
    assert [int(r["update"]) for r in rows if r["variable"] == "d/bias"] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("stop", [pytest.param(5, marks=pytest.mark.slow), 7])
def test_a_resumed_run_goes_on_counting(tmp_path, stop):
    """The rows, counts and averages of a run in two parts are those of one in one part."""
    from tf_largebatch.training import checkpoint

    x, y = examples(UPDATES * BATCH)
    straight = both(tmp_path / "straight")
    train(linear_model(OPTIMIZERS["LAMB"], 2), x, y, BATCH, straight, micro=2)
    parts = {"micro": 2, "folder": tmp_path / "checkpoints"}
    halves = tmp_path / "halves"
    train(linear_model(OPTIMIZERS["LAMB"], 2), x, y, BATCH, both(halves), stop=stop, **parts)
    model = linear_model(OPTIMIZERS["LAMB"], 2)
    first, progress = checkpoint.restore(tmp_path / "checkpoints", model)
    assert first == stop
    resumed = both(halves, append=True)
    train(model, x, y, BATCH, resumed, first=first, progress=progress, **parts)
    for one, other in zip(straight, resumed, strict=True):
        assert one.get_state() == other.get_state()
        assert one.get_state()["looks"] > 3
    tables = [(folder / "norms.csv").read_text() for folder in (tmp_path / "straight", halves)]
    assert tables[0] == tables[1]


def test_a_model_that_is_saved_while_it_is_watched(tmp_path):
    x, y = examples(UPDATES * BATCH)
    model = linear_model(LAMB(0.05))
    saving = keras.callbacks.ModelCheckpoint(str(tmp_path / "m.weights.h5"), save_weights_only=True)
    train(model, x, y, BATCH, [both()[0], saving], through="fit")
    other = linear_model(LAMB(0.05))
    other.load_weights(tmp_path / "m.weights.h5")
    for w, v in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)
