"""Data sources by name; their batches, which need TensorFlow, are in `tf_largebatch.data.batches`.

>>> splits = load("digits")
>>> splits.train.num_examples, splits.test.num_examples
(1437, 360)
"""

import difflib

from tf_largebatch.data.embedded import digits
from tf_largebatch.data.source import ArraySource, Splits


def _load_digits(data_dir):
    del data_dir  # scikit-learn carries the images inside itself
    return digits()


SOURCES = {"digits": _load_digits}


def load(name, data_dir=None):
    """Load the data called `name`.

    Args:
        name: A key of `SOURCES`: `"digits"`, the 1,797 digits that scikit-learn carries.
        data_dir: Folder of the data that lie in files; `"digits"` doesn't and ignores it.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If the name is unknown.
        ImportError: If the source needs a package that isn't installed.

    >>> load("digits").train.input_shape
    (28, 28, 1)
    """
    if name not in SOURCES:
        nearest = difflib.get_close_matches(str(name), SOURCES, n=3)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"There is no data source of this name. Received: name={name!r}.{hint} "
            f"The sources are: {', '.join(sorted(SOURCES))}."
        )
    return SOURCES[name](data_dir)


__all__ = ["SOURCES", "ArraySource", "Splits", "digits", "load"]
