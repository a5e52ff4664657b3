"""results.csv and curves.csv: what the runs found, written whole after each of them."""

import contextlib
import csv
import io
import json
import os

COLUMNS = (
    "cell", "group", "optimizer", "variant", "trial", "global_batch_size", "seed", "learning_rate",
    "warmup_epochs", "weight_decay", "epochs", "updates", "status", "value", "best", "seconds",
    "loss",
)  # fmt: skip
CURVE_COLUMNS = (
    "cell", "optimizer", "variant", "group", "global_batch_size", "seed", "epoch", "update",
    "examples_seen", "loss", "val_metric", "learning_rate",
)  # fmt: skip


class Results:
    """The finished runs of a study's folder, by cell.

    Args:
        folder: of the study; what it holds is read.

    Raises:
        ValueError: if a file there isn't what the study writes.

    Attributes:
        rows: {cell: row of results.csv, a dict of strings and numbers}.
        curves: {cell: rows of curves.csv}.
    """

    def __init__(self, folder):
        self._folder = folder
        self.rows = {row["cell"]: row for row in _read(self._path("results"), COLUMNS)}
        self.curves = {}
        for row in _read(self._path("curves"), CURVE_COLUMNS):
            if row["cell"] in self.rows:  # else the study was stopped between the two files
                self.curves.setdefault(row["cell"], []).append(row)

    def add(self, row, curve):
        """Takes in a run and writes both files."""
        self.rows[row["cell"]] = row
        self.curves[row["cell"]] = curve
        curves = [line for lines in self.curves.values() for line in lines]
        _write(self._path("curves"), CURVE_COLUMNS, curves)
        _write(self._path("results"), COLUMNS, self.rows.values())

    def is_finished(self, cell):
        """Whether a cell needs no further run; a failed one does."""
        return self.rows.get(cell, {}).get("status") in ("done", "diverged")

    def _path(self, name):
        return os.path.join(self._folder, f"{name}.csv")


def result_of(text):
    """The object behind RESULT in the last line of train.py's output that has one; or None.

    >>> result_of('Epoch 1\\nRESULT {"accuracy": 0.5}\\n')
    {'accuracy': 0.5}
    """
    for line in reversed(text.splitlines()):
        if line.startswith("RESULT "):
            with contextlib.suppress(ValueError):
                return json.loads(line.removeprefix("RESULT "))
    return None


def is_complete(result):
    """Whether a RESULT is that of a whole run, with the value of the metric that it names.

    >>> is_complete({"status": "done", "metric": "accuracy", "accuracy": 0.5})
    True
    >>> is_complete({"status": "stopped early", "metric": "accuracy", "accuracy": 0.5})
    False
    """
    value = (result or {}).get((result or {}).get("metric"))
    return isinstance(value, (int, float)) and result["status"] == "done"


def row_of(job, cell, status, seconds, result):
    """The row of results.csv for a run that has ended.

    Args:
        job, cell: what was run.
        status: done, diverged or failed.
        seconds: wall time.
        result: as `result_of`; None if the run printed none.
    """
    result, setting, batch = result or {}, cell.setting, cell.global_batch_size
    examples, updates = result.get("num_examples"), result.get("updates")
    epochs, warmup = job.base.epochs, setting.warmup
    if epochs is None and examples and updates:
        epochs = job.examples_seen(batch, updates) / examples
    if setting.warmup_unit == "updates":
        warmup = setting.warmup * batch / examples if examples else None
    value = result.get(result.get("metric")) if status == "done" else None
    found = {
        "cell": cell.name, "group": cell.group, "optimizer": cell.optimizer,
        "variant": cell.variant, "trial": cell.trial, "global_batch_size": batch,
        "seed": cell.seed, "learning_rate": setting.learning_rate, "warmup_epochs": warmup,
        "weight_decay": setting.weight_decay, "epochs": epochs, "updates": updates,
        "status": status, "value": value, "best": result.get("best"),
        "seconds": round(seconds, 2), "loss": result.get("loss"),
    }  # fmt: skip
    return {key: "" if v is None else v for key, v in found.items()}


def curve_of(job, cell, run_folder, metric):
    """The rows of curves.csv for a run: the epochs of its log.csv, if it got that far.

    Args:
        job, cell: what was run.
        run_folder: its folder.
        metric: name of the held-out metric, or None if no run has told it yet.
    """
    rows = []
    for line in _read(os.path.join(run_folder, "log.csv")):
        update = int(line["update"])
        rows.append({
            "cell": cell.name, "optimizer": cell.optimizer, "variant": cell.variant,
            "group": cell.group, "global_batch_size": cell.global_batch_size, "seed": cell.seed,
            "epoch": int(line["epoch"]) + 1, "update": update,
            "examples_seen": job.examples_seen(cell.global_batch_size, update),
            "loss": line["loss"], "val_metric": line.get(f"val_{metric}", ""),
            "learning_rate": line["learning_rate"],
        })  # fmt: skip
    return rows


def write_text(path, text):
    """Writes a file whole or not at all."""
    temporary = f"{path}.unfinished"
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def _write(path, columns, rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _read(path, columns=()):
    """The rows of a CSV file, each with all of the columns; of no file, none."""
    rows = []
    with contextlib.suppress(FileNotFoundError), open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row or None in row.values() or not row.keys() >= set(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num}, isn't a whole line as a study writes it. "
                    "Delete it (the run of a line of results.csv is then made again), or name "
                    "another --out."
                )
            rows.append(row)
    return rows
