"""README's code runs, and its figures are those of the code."""

import pathlib
import re

import keras
import numpy as np

from tf_largebatch import BIAS_AND_NORM

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def rows(text, first):
    """{first cell: the other cells} of the first table whose head begins with a cell."""
    table, *_ = re.findall(
        rf"^\| *{re.escape(first)} .*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines}


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


def test_its_accuracies_are_those_of_the_study():
    study = rows((ROOT / "docs/results/study_digits/table.md").read_text(), "Optimizer")
    (head, table) = re.findall(r"^\| batch \|(.*)\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)[0]
    assert [size.strip() for size in head.strip("| ").split("|")] == ["16", "128", "256", "512"]
    shown = {
        cells[0]: cells[1:]
        for line in table.splitlines()
        for cells in [[cell.strip() for cell in line.strip("| ").split("|")]]
    }
    names = {
        "LAMB, square root and LEGW": "lamb",
        "`keras.optimizers.Lamb`, the same rule": "keras_lamb",
        "AdamW, the same rule": "adamw",
        "Muon, the same rule": "muon",
    }
    for label, name in names.items():
        assert shown[label] == study[name], label
    nesterov = shown["Nesterov, linear scaling, 5 epochs warmup"]
    assert nesterov[0] == study["sgd"][0]
    for cell, measured in zip(nesterov[1:], study["sgd"][1:], strict=True):
        mean, deviation = (round(float(number)) for number in measured.split(" ± "))
        assert cell == f"fails ({mean} ± {deviation})" or (
            cell == f"fails ({mean})" and not deviation
        )


def test_its_times_are_those_of_the_benchmark():
    page = (ROOT / "docs/results/update_step.md").read_text()
    page = page[page.index("## bert_base") : page.index("## resnet50")]
    times = {
        line.split("|")[1].strip(): line.split("|")[2].split()[0]
        for line in re.findall(r"^\| \w.*$", page, re.MULTILINE)
    }
    shown = re.findall(
        r"^\| .* \| ([\d.; ]+) \|$", README[README.index("## How fast is it?") :], re.MULTILINE
    )
    assert shown == [
        f"{times['lamb']}; {times['lamb_xla']}",
        f"{times['keras_lamb']}; {times['keras_lamb_xla']}",
        *(times[name] for name in ("optax_lamb", "lars", "optax_lars", "keras_adamw_xla", "copy")),
    ]
