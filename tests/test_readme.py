"""README's code runs, and its figures are those of the code."""

import pathlib
import re

import keras
import numpy as np

from tf_largebatch import BIAS_AND_NORM

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_the_six_lines():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 6
    names = {}
    exec(code, names)
    model = names["model"]
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 8)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=64, epochs=5, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.9 * before
    assert type(model.optimizer).__name__ == "LAMB"
    assert [row.decayed for row in model.optimizer.exclusion_table()] == [True, False] * 2
    assert isinstance(model.optimizer, keras.optimizers.Optimizer)


def test_the_regex_is_printed_as_it_is():
    assert f"`{BIAS_AND_NORM}`" in README


def test_the_two_commands_are_targets():
    makefile = (pathlib.Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+) ", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
