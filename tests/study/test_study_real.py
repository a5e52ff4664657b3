"""The study with train.py itself: a network of the user's own, a Keras baseline, real digits."""

import csv
import json

import pytest

from tf_largebatch import study

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

OWN = """
import keras

def linear(input_shape, num_classes):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Flatten()(inputs)))
"""


def test_two_optimizers_on_digits_from_the_command_to_the_report(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "own_linear.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    code = study.main([
        "--model=own_linear:linear", "--optimizers=lamb,nadam", "--epochs=2", "--processes=2",
        "--base_learning_rates=lamb=0.01,nadam=0.003", "--out=out", "--", "--augmentation=none",
    ])  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    with open("out/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["optimizer"] for row in rows} == {"lamb", "nadam"}
    for row in rows:
        assert (row["status"], row["updates"], row["epochs"]) == ("done", "180", "2.0")
        assert float(row["value"]) > 0.5
    with open("out/curves.csv", newline="") as file:
        curve = [line for line in csv.DictReader(file) if line["optimizer"] == "nadam"]
    assert [line["update"] for line in curve] == ["90", "180"]
    assert float(curve[1]["loss"]) < float(curve[0]["loss"])
    [row] = [row for row in rows if row["optimizer"] == "nadam"]
    assert float(curve[1]["val_metric"]) == pytest.approx(float(row["value"]), abs=1e-5)
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (info["metric"], info["num_examples"]) == ("accuracy", 1437)
    assert info["model"] == "own_linear:linear"
    assert "nadam" in printed.out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
