"""Checkpoints of a run: written whole or not at all, checked whole before anything is assigned.

A checkpoint is one .npz file of plain arrays (no pickle), `update-00001234.npz`, with a JSON record
beside them: their shapes and types, the number of updates done, and what the loop keeps. On a
remote file system it counts once its marker, `update-00001234.npz.complete`, is there.

With several workers all of them call `save` and `restore` at the same time, since they exchange
what each alone holds; one of them writes.
"""

import json
import os
import re
import struct
import warnings
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tf_largebatch.training import files
from tf_largebatch.training.workers import number_of_workers

_NAME = re.compile(r"update-(\d{8,})\.npz")
_RECORD = "record"
# What zipfile, NumPy and json raise on a file with missing or altered bytes.
_DAMAGED = (
    EOFError, KeyError, OSError, OverflowError, RuntimeError, ValueError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save(directory, model, *, update, progress, keep=3, write=True):
    """Writes the state of `model` and its optimizer after `update` updates.

    Args:
        directory: folder of the checkpoints; made if missing.
        model: a compiled Keras model with a built optimizer.
        update: int, updates done.
        progress: JSON-serialisable dict that `restore` gives back.
        keep: how many checkpoints to keep; older ones are deleted.
        write: False on the workers that take part and leave the writing to another.

    Returns:
        The path of the new checkpoint.

    Raises:
        NonFiniteWeightsError: if a weight is NaN or infinite; nothing is written.
        OSError: if it can't be written; the checkpoints before it are kept.
    """
    check_finite(model, update)
    arrays = _state(model)
    path = os.path.join(directory, f"update-{update:08d}.npz")
    if not write:
        return path
    record = {
        "update": update,
        "progress": progress,
        "arrays": {key: [str(a.dtype), list(a.shape)] for key, a in arrays.items()},
    }
    stored = {key: _storable(array) for key, array in arrays.items()}
    stored[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    files.make_folder(directory)
    with files.committing(path) as file:
        np.savez(file, **stored)
    for old in paths(directory)[keep:]:
        files.remove_committed(old)
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

    A damaged or incomplete checkpoint is passed over, with a warning, for the one before it.

    Returns:
        (update, progress) as given to `save`, or None if there is no checkpoint.

    Raises:
        ValueError: if all checkpoints are damaged, the newest sound one is of another model or
            optimizer, or the workers see different ones. Nothing has been assigned then.
        OSError: if a remote checkpoint can't be fetched.
    """
    found = _newest_sound(directory)
    _check_agreement(model, directory, -1 if found is None else found[1]["update"])
    if found is None:
        return None
    path, record, arrays = found
    _assign(model, arrays, path)
    return record["update"], record["progress"]


def paths(directory):
    """The complete checkpoints in `directory`, newest first."""
    return [path for path, complete in _listed(directory) if complete]


def remove_unfinished(directory):
    """Deletes what a killed run was writing or deleting on a remote file system."""
    listed = _listed(directory)
    # If none is complete, they were copied from a local folder, or the first one was cut short.
    for path, complete in listed if any(complete for _, complete in listed) else []:
        if not complete:
            files.remove_committed(path)


class NonFiniteWeightsError(ArithmeticError):
    """Training has diverged: a weight is NaN or infinite."""


def _variables(model):
    """The model's variables and seed generators."""
    return {f"model/{i:05d}/{v.path}": v for i, v in enumerate(model.variables)}


def metric_parts(model):
    """What each replica has added up in the metrics' variables since they were reset.

    Returns:
        dict of arrays (replicas, ...), by key, in the order of replica ids.
    """
    strategy = model.distribute_strategy
    parts = (_local_parts(strategy, variable) for variable in model.metrics_variables)
    tables = [np.stack([part.numpy() for part in of_replicas]) for of_replicas in parts]
    if _has_other_workers(strategy):
        tables = _gathered(strategy, tables)
    return dict(zip(_metric_keys(model), tables, strict=True))


def _set_metric_parts(model, tables):
    """Gives each replica of this worker its row; if they were others, the first takes all."""
    strategy = model.distribute_strategy
    others = _has_other_workers(strategy)
    for key, variable in zip(_metric_keys(model), model.metrics_variables, strict=True):
        parts = _local_parts(strategy, variable)
        replica_ids = _local_replica_ids(strategy) if others else range(len(parts))
        replicas = strategy.num_replicas_in_sync if others else len(parts)
        rows = tables[key]
        if len(rows) != replicas:
            rows = [rows.sum(axis=0), *[np.zeros_like(rows[0])] * (replicas - 1)]
        for replica_id, part in zip(replica_ids, parts, strict=True):
            part.assign(rows[replica_id])


def _local_parts(strategy, variable):
    """What the replicas of this worker hold of a variable, in the order of their ids."""
    return strategy.experimental_local_results(variable.value)


def _metric_keys(model):
    return [f"metrics/{i:05d}/{v.path}" for i, v in enumerate(model.metrics_variables)]


def _has_other_workers(strategy):
    """Whether replicas live in other processes, whose parts aren't to be seen from here."""
    return number_of_workers(strategy) > 1


def _local_replica_ids(strategy):
    ids = []
    strategy.experimental_distribute_values_from_function(
        lambda context: ids.append(context.replica_id_in_sync_group) or 0.0
    )
    return [int(i) for i in ids]


def _gathered(strategy, tables):
    """Of arrays (local replicas, ...) of this worker, arrays (replicas, ...) of all of them."""
    ids = _local_replica_ids(strategy)
    # int64: int32 stays in the host's memory, which GPUs' collectives don't reach.
    rows = dict(zip(ids, zip(np.int64(ids), *tables, strict=True), strict=True))
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: [tf.convert_to_tensor(v) for v in rows[context.replica_id_in_sync_group]]
    )
    # Each replica gets all of them.
    gathered = map(strategy.experimental_local_results, _gather(strategy, parts))
    ids, *tables = (of_replicas[0].numpy() for of_replicas in gathered)
    return [table[np.argsort(ids)] for table in tables]


@tf.function
def _gather(strategy, parts):
    def of_replica(parts):
        context = tf.distribute.get_replica_context()
        return context.all_gather([tf.expand_dims(part, 0) for part in parts], axis=0)

    return strategy.run(of_replica, args=(parts,))


def _check_agreement(model, directory, update):
    """Workers that go on from different updates would train on, and wrongly."""
    strategy = model.distribute_strategy
    if not _has_other_workers(strategy):
        return
    here = np.full(len(_local_replica_ids(strategy)), update, np.int64)
    (updates,) = _gathered(strategy, [here])
    if len(set(updates)) > 1:
        said = ", ".join("none" if u < 0 else f"update {u}" for u in updates)
        raise ValueError(
            f"The workers must see the same checkpoints. Received: {directory}, where the replicas "
            f"find {said}. Use a folder on a file system that all workers share."
        )


def _state(model):
    optimizer = {}
    model.optimizer.save_own_variables(optimizer)
    state = {key: v.numpy() for key, v in _variables(model).items()}
    state |= metric_parts(model)
    return state | {f"optimizer/{key}": np.asarray(v) for key, v in optimizer.items()}


def _listed(directory):
    """(path, complete) of all checkpoints in `directory`, newest first."""
    names = files.names(directory)
    numbers = {name: int(match[1]) for name in names if (match := _NAME.fullmatch(name))}
    newest_first = sorted(numbers, key=numbers.get, reverse=True)
    found = [os.path.join(directory, name) for name in newest_first]
    return [(path, files.is_complete(path, names)) for path in found]


def _newest_sound(directory):
    """(path, record, arrays), or None if there is no checkpoint."""
    listed = _listed(directory)
    # Copied from a local folder, none has a marker: each is then judged by its own sums.
    marked = any(complete for _, complete in listed)
    passed, sound = [], None
    for path, complete in listed:
        if marked and not complete:
            passed.append(f"{path} (incomplete: it has no marker)")
            continue
        try:
            sound = path, *_read(path, marked)
            break
        except _DAMAGED as error:
            if files.is_remote(path) and isinstance(error, OSError):
                raise  # it wasn't read, which doesn't say that it is damaged
            passed.append(f"{path} ({error})")
    if sound is None and passed and (marked or len(passed) > 1 or not files.is_remote(directory)):
        raise ValueError(
            f"Every checkpoint in {directory} is damaged or cut short: {'; '.join(passed)}. Train "
            "again in another folder, or copy a sound checkpoint back."
        )
    if passed:
        warnings.warn(
            f"Damaged checkpoints are passed over: {'; '.join(passed)}. "
            + (f"Going on from {sound[0]}." if sound else "There is none before it."),
            stacklevel=3,
        )
    return sound


def _read(path, marked):
    with files.committed(path, marked=marked) as raw:
        file = np.load(raw, allow_pickle=False)  # zipfile compares the sum of each array
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
    _set_metric_parts(model, {key: arrays[saved[_place(key)]] for key in _metric_keys(model)})
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
