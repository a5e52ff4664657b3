"""The least that a recipe file must hold, and how a test writes one."""

MINIMAL = """
title = "T"
source = "S"
default_global_batch_size = 8
[settings]
epochs = 2
[rule]
base_global_batch_size = 8
scaling = "sqrt"
[[rows]]
global_batch_size = 8
learning_rate = 0.1
warmup_epochs = 0.5
"""


def write(tmp_path, text):
    """The path of a new file `own.toml`."""
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path
