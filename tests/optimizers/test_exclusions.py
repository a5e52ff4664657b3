"""Which variables are excluded, on the models for which the lists were published."""

import warnings

import keras
import numpy as np
import pytest

from tf_largebatch import BIAS_AND_NORM, LAMB, LARS


def resnet_block():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="batch_normalization")(x)
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv_2")(x)
    x = keras.layers.BatchNormalization(name="bn_2")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head_supervised")(x))


def excluded(optimizer, model):
    optimizer.build(model.trainable_variables)
    return {row.variable for row in optimizer.exclusion_table() if not row.decayed}


def test_mlperf_list():
    patterns = ["batch_normalization", "bias", "bn"]
    optimizer = LARS(exclude_from_weight_decay=patterns)
    assert excluded(optimizer, resnet_block()) == {
        "conv/bias", "batch_normalization/gamma", "batch_normalization/beta",
        "bn_2/gamma", "bn_2/beta", "head_supervised/bias",
    }  # fmt: skip
    by = {row.variable: row.decay_pattern for row in optimizer.exclusion_table()}
    assert by["batch_normalization/gamma"] == "batch_normalization"
    assert by["bn_2/beta"] == "bn"
    assert by["conv/kernel"] is None


def test_simclr_list():
    patterns = ["batch_normalization", "bias", "head_supervised"]
    optimizer = LARS(exclude_from_weight_decay=patterns)
    found = excluded(optimizer, resnet_block())
    assert {"head_supervised/kernel", "head_supervised/bias"} <= found
    assert "bn_2/gamma" not in found


def bert():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=4,
    )  # fmt: skip
    return keras_hub.models.BertMaskedLM(backbone=backbone)


def test_bert_list_as_published_is_an_error_on_keras_hub():
    """Its "LayerNorm" names no variable there: the accident that decays everything in silence."""
    with pytest.raises(ValueError, match=r"'LayerNorm'.*matches no variable.*if case and"):
        excluded(LAMB(exclude_from_weight_decay=["LayerNorm", "bias"]), bert())


def test_bias_and_norm_on_keras_hub_bert():
    found = excluded(LAMB(exclude_from_weight_decay=[BIAS_AND_NORM]), bert())
    model = bert()
    expected = {
        v.path for v in model.trainable_variables
        if v.path.split("/")[-1] in ("bias", "gamma", "beta", "output_bias")
    }  # fmt: skip
    assert found == expected
    assert any(path.endswith("output_bias") for path in found)
    assert not any(path.endswith(("kernel", "embeddings")) for path in found)


@pytest.mark.parametrize(
    "path, matches",
    [
        ("dense/bias", True),
        ("bias", True),
        ("mlm_head/output_bias", True),
        ("layer_norm/gamma", True),
        ("layer_norm/beta", True),
        ("rms_normalization/scale", True),
        ("attention_layernorm/scale", True),
        ("t5_layer_norm/weight", True),
        ("dense/weight", False),
        ("dense/kernel", False),
        ("bias_table/embeddings", False),
        ("rescaling/scale", False),
        ("debias/kernel", False),
        ("norm_encoder/kernel", False),
        ("alphabeta", False),
    ],
)
def test_bias_and_norm(path, matches):
    import re

    assert bool(re.search(BIAS_AND_NORM, path)) is matches


def variables(*names):
    return [keras.Variable(np.ones(2, "float32"), name=n) for n in names]


def table(optimizer, *names):
    optimizer.build(variables(*names))
    return {row.variable: row for row in optimizer.exclusion_table()}


def test_adaptation_list_follows_unless_given():
    rows = table(LAMB(exclude_from_weight_decay=["b"]), "a", "b")
    assert (rows["b"].decayed, rows["b"].adapted) == (False, False)
    rows = table(LAMB(exclude_from_weight_decay=["b"], exclude_from_layer_adaptation=[]), "a", "b")
    assert (rows["b"].decayed, rows["b"].adapted) == (False, True)
    rows = table(LAMB(exclude_from_layer_adaptation=["b"]), "a", "b")
    assert (rows["b"].decayed, rows["b"].adapted) == (True, False)
    assert not table(LAMB(weight_decay=None), "a")["a"].decayed


def test_a_keras_variable_is_an_exact_path():
    a, b = variables("w", "w2")
    optimizer = LAMB(exclude_from_weight_decay=[a])
    optimizer.build([a, b])
    assert [row.decayed for row in optimizer.exclusion_table()] == [False, True]
    assert optimizer.get_config()["exclude_from_weight_decay"] == ["^w$"]


def test_a_layers_variables():
    model = resnet_block()
    layer = model.get_layer("bn_2")
    found = excluded(LAMB(exclude_from_weight_decay=list(layer.variables)), model)
    assert found == {"bn_2/gamma", "bn_2/beta"}


def test_single_string_is_one_pattern():
    assert not table(LAMB(exclude_from_weight_decay="bias"), "bias")["bias"].decayed


def test_pattern_without_match_warns_and_names_the_nearest():
    with pytest.warns(UserWarning, match=r"'kernal'.*matches no variable.*kernel"):
        table(LAMB(exclude_from_weight_decay=["kernal"]), "kernel", "other")


def test_near_miss_is_an_error_unless_another_pattern_covers_it():
    names = ("LayerNorm_gamma", "kernel")
    with pytest.raises(ValueError, match=r"'layer_norm'.*LayerNorm_gamma"):
        table(LAMB(exclude_from_weight_decay=["layer_norm"]), *names)
    with pytest.warns(UserWarning, match="matches no variable"):
        table(LAMB(exclude_from_weight_decay=["layer_norm", "gamma"]), *names)


def test_no_warning_when_all_match():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table(LAMB(exclude_from_weight_decay=["bias"]), "bias", "kernel")


def test_refused_lists():
    with pytest.raises(ValueError, match="valid regular expressions.*Received: '\\('"):
        LAMB(exclude_from_weight_decay=["("])
    with pytest.raises(ValueError, match="regular expressions.*and Keras variables"):
        LAMB(exclude_from_layer_adaptation=[keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"Received: 3"):
        LAMB(exclude_from_layer_adaptation=[3])


def test_table_and_summary_need_build(capsys):
    optimizer = LAMB(exclude_from_weight_decay=["bias"])
    for method in (optimizer.exclusion_table, optimizer.summary):
        with pytest.raises(ValueError, match="before it is built"):
            method()
    optimizer.build(variables("kernel", "bias"))
    optimizer.summary()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["variable", "shape", "decayed", "adapted", "excluded", "by"]
    assert lines[1].split() == ["kernel", "2", "yes", "yes"]
    assert lines[2].split() == ["bias", "2", "no", "no", "bias"]


def test_keras_own_method_extends_the_list():
    a, b, c = variables("a", "b", "c")
    optimizer = LAMB(exclude_from_weight_decay=["^a$"])
    optimizer.exclude_from_weight_decay(var_list=[b], var_names=["c"])
    optimizer.build([a, b, c])
    assert not any(row.decayed for row in optimizer.exclusion_table())
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["a"])


def test_wrong_pattern_leaves_the_optimizer_unbuilt():
    optimizer = LAMB(exclude_from_weight_decay=["KERNEL"])
    with pytest.raises(ValueError, match="'KERNEL'"):
        optimizer.build(variables("kernel"))
    assert not optimizer.built


def test_a_frozen_layers_variables_stay_excluded():
    """`trainable` is the user's switch; what is named stays named. No warning either way."""
    model = resnet_block()
    layer = model.get_layer("bn_2")
    layer.trainable = False
    optimizer = LAMB(exclude_from_weight_decay=list(layer.variables))
    layer.trainable = True
    assert excluded(optimizer, model) == {"bn_2/gamma", "bn_2/beta"}


def test_a_variable_excludes_no_namesake():
    from tf_largebatch.optimizers.exclusions import resolve

    paths = ["encoder/dense/kernel", "dense/kernel"]
    assert resolve(paths, ["^encoder/dense/kernel$"], "x") == ["^encoder/dense/kernel$", None]
    # As a loaded Sequential has it, without the model's name:
    assert resolve(["dense/kernel"], ["^model/dense/kernel$"], "x") == ["^model/dense/kernel$"]
    with pytest.warns(UserWarning, match="2 variables share the path"):
        resolve(["dense/kernel"] * 2, ["^dense/kernel$"], "x")


def test_near_miss_begins_at_a_word():
    with pytest.warns(UserWarning, match="'bn'.*matches no variable"):
        table(LAMB(exclude_from_weight_decay=["bn"]), "sub_net")
    with pytest.raises(ValueError, match="'layernorm'"):
        table(LAMB(exclude_from_weight_decay=["layernorm"]), "my_layer_norm")
    with pytest.raises(ValueError, match="'norm'"):  # a capital begins a word, too
        table(LAMB(exclude_from_weight_decay=["norm"]), "myLayerNorm")


def test_empty_pattern_and_no_list_are_refused():
    with pytest.raises(ValueError, match="empty pattern"):
        LAMB(exclude_from_weight_decay=["bias", ""])
    with pytest.raises(ValueError, match="Received: 5"):
        LAMB(exclude_from_weight_decay=5)


def test_weight_decay_changed_after_build():
    optimizer = LAMB(weight_decay=None, exclude_from_weight_decay=["b"])
    assert [row.decayed for row in table(optimizer, "a", "b").values()] == [False, False]
    optimizer.weight_decay = 0.5
    assert [row.decayed for row in optimizer.exclusion_table()] == [True, False]
