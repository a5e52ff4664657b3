"""The figures of `LayerNorms` as files: rows, TensorBoard's events, and a figure made of rows."""

import csv
import importlib.util
import io
import math
import os

import tensorflow as tf

from tf_largebatch import plots

NORMS = "norms.csv"
COLUMNS = (
    "update", "variable", "weight_norm", "gradient_norm", "update_norm", "trust_ratio",
    "update_to_weight", "learning_rate",
)  # fmt: skip
_FIGURES = COLUMNS[2:7]  # of each variable; the learning rate is one for all


class NormsWriter:
    """Writes looks to `norms.csv` and to TensorBoard's events, if that package is installed.

    Args:
        folder: on any file system that TensorFlow knows.
        append: keep the rows that are there.
    """

    def __init__(self, folder, *, append):
        self.folder, self.append = str(folder), append
        self._events = None

    def open(self):
        """Makes the folder; without `append`, an empty table in it."""
        tf.io.gfile.makedirs(self.folder)
        path = os.path.join(self.folder, NORMS)
        begun = tf.io.gfile.exists(path) and tf.io.gfile.stat(path).length > 0
        if not (self.append and begun):
            self._write_rows([COLUMNS], mode="w")
        self.append = True  # the next run with this callback goes on
        if importlib.util.find_spec("tensorboard") is not None:
            self._events = tf.summary.create_file_writer(self.folder)

    def write(self, update, rows):
        """One look: `rows` of `LayerFigures` after update number `update`."""
        named = [{name: getattr(row, name) for name in COLUMNS[1:]} for row in rows]
        self._write_rows([[update, *map(_cell, row.values())] for row in named], mode="a")
        if self._events is None or not rows:
            return
        with self._events.as_default(step=update):
            tf.summary.scalar("learning_rate", rows[0].learning_rate)
            for name in _FIGURES:
                known = {r["variable"]: r[name] for r in named if not math.isnan(r[name])}
                for variable, value in known.items():
                    tf.summary.scalar(f"{name}/{variable}", value)
                if known:
                    tf.summary.histogram(f"all_variables/{name}", list(known.values()))
        self._events.flush()

    def close(self):
        """Closes the events' file; `open` begins another one."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _write_rows(self, rows, mode):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        with tf.io.gfile.GFile(os.path.join(self.folder, NORMS), mode) as file:
            file.write(text.getvalue())


def plot_trust_ratios(table, path, *, updates=None):
    """Plots trust ratios by layer at several updates, as the thesis' Figures 6.10-6.15.

    Args:
        table: path of a `norms.csv`.
        path: .png or .svg to write.
        updates: numbers of the updates to show; None or none of them: up to six, evenly chosen.

    Raises:
        ValueError: if the table has no trust ratio, as with Keras' own optimizers, or none of
            these updates.
        ImportError: without matplotlib.
    """
    with tf.io.gfile.GFile(str(table)) as file:
        rows = [row for row in csv.DictReader(file) if row["trust_ratio"]]
    if not rows:
        raise ValueError(
            f"{table} holds no trust ratios. They are LARS' and LAMB's; train with one of these."
        )
    found = list(dict.fromkeys(int(row["update"]) for row in rows))
    if not updates:
        count = min(6, len(found))
        updates = [found[round(i * (len(found) - 1) / max(count - 1, 1))] for i in range(count)]
    missing = [update for update in updates if update not in found]
    if missing:
        raise ValueError(
            f"{table} has no look at update {', '.join(map(str, missing))}. It has those at "
            f"{', '.join(map(str, found[:8]))}{', ...' * (len(found) > 8)}."
        )
    layers = list(dict.fromkeys(row["variable"] for row in rows))
    named = len(layers) <= 40
    with plots.figure(height=4.5 if named else 3.2) as (figure, axes):
        axis = axes[0, 0]
        for number, update in enumerate(updates):
            ratios = {
                r["variable"]: float(r["trust_ratio"]) for r in rows if int(r["update"]) == update
            }
            places = [i for i, layer in enumerate(layers, 1) if layer in ratios]
            values = [ratios[layers[i - 1]] for i in places]
            axis.plot(places, values, label=f"update {update:,}", **plots.line_style(number))
        axis.set_yscale("log")
        axis.set_ylabel("trust ratio (log scale)")
        axis.set_xlabel("layer" if named else "layer, from input to output")
        if named:
            axis.set_xticks(range(1, len(layers) + 1), layers, rotation=60, ha="right", fontsize=7)
        axis.legend(ncols=3)
        plots.save(figure, path)


def _cell(value):
    return "" if isinstance(value, float) and math.isnan(value) else value
