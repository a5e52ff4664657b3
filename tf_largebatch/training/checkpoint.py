"""Checkpoints of a run: written whole or not at all, checked whole before anything is assigned.

A checkpoint is one .npz file of plain arrays (no pickle), `update-00001234.npz`, with a JSON record
beside them: their shapes and types, the number of updates done, and what the loop keeps.
"""

import contextlib
import json
import os
import re
import struct
import warnings
import zipfile
import zlib

import numpy as np

_NAME = re.compile(r"update-(\d{8,})\.npz")
_RECORD = "record"
# What zipfile, NumPy and json raise on a file with missing or altered bytes.
_DAMAGED = (
    EOFError, KeyError, OSError, OverflowError, RuntimeError, ValueError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save(directory, model, *, update, progress, keep=3):
    """Writes the state of `model` and its optimizer after `update` updates.

    Args:
        directory: folder of the checkpoints; made if missing.
        model: a compiled Keras model with a built optimizer.
        update: int, updates done.
        progress: JSON-serialisable dict that `restore` gives back.
        keep: how many checkpoints to keep; older ones are deleted.

    Returns:
        The path of the new checkpoint.

    Raises:
        NonFiniteWeightsError: if a weight is NaN or infinite; nothing is written.
    """
    check_finite(model, update)
    arrays = _state(model)
    record = {
        "update": update,
        "progress": progress,
        "arrays": {key: [str(a.dtype), list(a.shape)] for key, a in arrays.items()},
    }
    stored = {key: _storable(array) for key, array in arrays.items()}
    stored[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"update-{update:08d}.npz")
    with replacing(path) as file:
        np.savez(file, **stored)
    for old in paths(directory)[keep:]:
        os.remove(old)
    return path


def check_finite(model, update):
    """Raises NonFiniteWeightsError if a variable of the model is NaN or infinite."""
    for variable in model.variables:
        if not np.isfinite(_comparable(variable.numpy())).all():
            raise NonFiniteWeightsError(
                f"After update {update} the variable {variable.path} holds NaN or infinity."
            )


def restore(directory, model):
    """Loads the newest sound checkpoint of `directory` into `model` and its built optimizer.

    A damaged checkpoint is passed over, with a warning, for the one before it.

    Returns:
        (update, progress) as given to `save`, or None if there is no checkpoint.

    Raises:
        ValueError: if all checkpoints are damaged, or the newest sound one is of another model or
            optimizer. Nothing has been assigned then.
    """
    damaged = []
    for path in paths(directory):
        try:
            record, arrays = _read(path)
        except _DAMAGED as error:
            damaged.append(f"{path} ({error})")
            continue
        if damaged:
            warnings.warn(
                f"Damaged checkpoints are passed over: {'; '.join(damaged)}. Going on from {path}.",
                stacklevel=2,
            )
        _assign(model, arrays, path)
        return record["update"], record["progress"]
    if damaged:
        raise ValueError(
            f"Every checkpoint in {directory} is damaged or cut short: {'; '.join(damaged)}. Train "
            "again in another folder, or copy a sound checkpoint back."
        )
    return None


def paths(directory):
    """The checkpoints in `directory`, newest first."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
    return [os.path.join(directory, name) for _, name in sorted(found, reverse=True)]


class NonFiniteWeightsError(ArithmeticError):
    """Training has diverged: a weight is NaN or infinite."""


@contextlib.contextmanager
def replacing(path):
    """Opens a temporary file beside `path`, which takes its place only if all goes well."""
    folder, name = os.path.split(str(path))
    temporary = os.path.join(folder, f"unfinished-{os.getpid()}-{name}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _variables(model):
    """The model's variables and seed generators."""
    return {f"model/{i:05d}/{v.path}": v for i, v in enumerate(model.variables)}


def _metrics(model):
    """The metrics' variables, by key: for each the parts that the replicas hold."""
    split = getattr(model.distribute_strategy, "experimental_local_results", lambda v: (v,))
    return {
        f"metrics/{i:05d}/{v.path}": split(v.value) for i, v in enumerate(model.metrics_variables)
    }


def _state(model):
    optimizer = {}
    model.optimizer.save_own_variables(optimizer)
    state = {key: v.numpy() for key, v in _variables(model).items()}
    state |= {key: np.stack([p.numpy() for p in parts]) for key, parts in _metrics(model).items()}
    return state | {f"optimizer/{key}": np.asarray(v) for key, v in optimizer.items()}


def _read(path):
    with open(path, "rb") as raw:
        with zipfile.ZipFile(raw) as archive:
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"the sum of {bad} is wrong")
        raw.seek(0)
        file = np.load(raw, allow_pickle=False)
        record = json.loads(bytes(file[_RECORD]).decode())
        arrays = {
            key: file[key].view(np.dtype(dtype)).reshape(shape)
            for key, (dtype, shape) in record["arrays"].items()
        }
    return record, arrays


def _assign(model, arrays, path):
    variables = _variables(model)
    current = _state(model)
    # The paths are information: another instance of the model may call its layers otherwise.
    saved, now = ({_place(key): key for key in group} for group in (arrays, current))
    wrong = [f"{now[place]} is missing" for place in now.keys() - saved.keys()]
    wrong += [f"{saved[place]} is not expected" for place in saved.keys() - now.keys()]
    wrong += [
        f"{saved[place]} has shape {arrays[saved[place]].shape}, not {current[now[place]].shape}"
        for place in now.keys() & saved.keys()
        if arrays[saved[place]].shape != current[now[place]].shape
        # How many replicas held a part may have changed, and what is said of exclusions.
        and not place.startswith(("metrics/", "optimizer/exclusions"))
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(
            f"The checkpoint {path} is of another model or optimizer: "
            f"{'; '.join(sorted(wrong)[:4])}{more}. Resume with the configuration of that run."
        )
    for key, variable in variables.items():
        variable.assign(arrays[saved[_place(key)]])
    for key, parts in _metrics(model).items():
        values = arrays[saved[_place(key)]]
        if len(values) != len(parts):  # other replicas than before: the first takes all
            values = [values.sum(axis=0), *[np.zeros_like(values[0])] * (len(parts) - 1)]
        for part, value in zip(parts, values, strict=True):
            part.assign(value)
    model.optimizer.load_own_variables(
        {k.removeprefix("optimizer/"): v for k, v in arrays.items() if k.startswith("optimizer/")}
    )


def _place(key):
    return "/".join(key.split("/")[:2]) if key.startswith(("model/", "metrics/")) else key


def _comparable(array):
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _storable(array):
    # NumPy's format knows no bfloat16 (kind "V"); its bytes are kept, its name is in the record.
    array = np.ascontiguousarray(array)
    return array.reshape(-1).view(np.uint8) if array.dtype.kind == "V" else array.reshape(-1)
