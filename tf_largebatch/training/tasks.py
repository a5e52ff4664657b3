"""What a model is compiled with and judged by, for each task that a data source can have."""

import importlib.util
import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.data.batches import evaluation_batches
from tf_largebatch.data.vocabulary import CLS, SEP
from tf_largebatch.losses import SmoothedCrossEntropy


class Task(NamedTuple):
    """The outputs of a task's models, None for a single one, and the metric of its best model."""

    outputs: tuple[str, ...] | None
    metric: str


_AUXILIARY = "auxiliary_"
TASKS = {
    "classification": Task(None, "accuracy"),
    "masked_lm": Task(("masked_lm", "next_sentence"), "masked_lm_accuracy"),
    "spans": Task(("start", "end"), "accuracy"),
    "language_model": Task(None, "accuracy"),
    "translation": Task(None, "accuracy"),
}


def objective(task, output_names, *, label_smoothing=0.0):
    """Loss and weighted metrics for `model.compile`: cross-entropy and accuracy of each output.

    Of several outputs the losses are added, each a mean by its own weights, as BERT adds those of
    masked tokens and of next sentences; of a span's start and end it takes the mean (Devlin et al.
    2018, arXiv:1810.04805, appendix A.2 and section 4.2; google-research/bert).

    Args:
        task: a key of `TASKS`.
        output_names: the model's outputs, where it has several: it may lack the task's last ones.
            Of images, beside "logits" those of heads on the way, which begin with "auxiliary_".
        label_smoothing: share of each label that is spread evenly.

    Returns:
        dict of `loss`, `weighted_metrics` and, for several outputs, `loss_weights`: auxiliary heads
        count 0.3 (Szegedy et al. 2014, arXiv:1409.4842, section 5).

    Raises:
        ValueError: if the model's outputs aren't the task's.

    >>> sorted(objective("masked_lm", ["masked_lm"])["loss"])
    ['masked_lm']
    """
    expected = TASKS[task].outputs
    if len(output_names) == 1 and expected is None:
        return {"loss": SmoothedCrossEntropy(label_smoothing), "weighted_metrics": _metrics()}
    if expected is None:
        heads = [name for name in output_names if name.startswith(_AUXILIARY)]
        if task != "classification" or set(output_names) != {"logits", *heads}:
            raise ValueError(
                f"A model for {task} must have one output. Received: a model with the outputs "
                f"{', '.join(output_names)}. Leave out the option that adds outputs."
            )
        return {
            "loss": {name: SmoothedCrossEntropy(label_smoothing) for name in output_names},
            "weighted_metrics": {"logits": _metrics()},
            "loss_weights": {name: 0.3 if name in heads else 1.0 for name in output_names},
        }
    if set(output_names) not in (set(expected), set(expected[:1])):
        raise ValueError(
            f"A model for {task} must have the outputs {', '.join(expected)}. Received: a model "
            f"with the outputs {', '.join(output_names)}. Choose another model for these data."
        )
    if task == "spans" and label_smoothing:
        raise ValueError(
            "Label smoothing would push an answer's ends onto padding. Received: label_smoothing="
            f"{label_smoothing:g} for the task spans. Leave it out."
        )
    return {
        "loss": {name: SmoothedCrossEntropy(label_smoothing) for name in output_names},
        # Several metrics of one output go without its name, unless they bring it along.
        "weighted_metrics": {
            name: _metrics(f"{name}_" if len(output_names) == 1 else "") for name in output_names
        },
        "loss_weights": dict.fromkeys(output_names, 0.5 if task == "spans" else 1.0),
    }


class LabelsForEach:
    """A source of labelled images whose labels are given to each output of a model.

    Args:
        source: the source; all but `read` is its own.
        output_names: the model's outputs.
    """

    def __init__(self, source, output_names):
        self._source, self._names = source, tuple(output_names)

    def __getattr__(self, name):
        return getattr(self._source, name)

    def read(self, examples, keys=None):
        """As every source; labels and weights are dicts of equal entries."""
        inputs, labels, weights = self._source.read(examples, keys)
        return inputs, dict.fromkeys(self._names, labels), dict.fromkeys(self._names, weights)


def splits_for(splits, output_names):
    """The data as a model with these outputs takes them: labels for each, if it has several.

    >>> from tf_largebatch import data
    >>> both = splits_for(data.load("digits"), ["logits", "auxiliary_logits"])
    >>> sorted(both.test.read(tf.constant([0]))[1])
    ['auxiliary_logits', 'logits']
    """
    if splits.train.task != "classification" or len(output_names) < 2:
        return splits
    return type(splits)(*(LabelsForEach(s, output_names) for s in (splits.train, splits.test)))


def metric_of(task, output_names):
    """The metric in the logs that says which model is the best."""
    metric = TASKS[task].metric
    return f"logits_{metric}" if task == "classification" and len(output_names) > 1 else metric


def _metrics(prefix=""):
    return [
        keras.metrics.SparseCategoricalAccuracy(name=f"{prefix}accuracy", dtype="float32"),
        keras.metrics.SparseCategoricalCrossentropy(
            from_logits=True, name=f"{prefix}cross_entropy", dtype="float32"
        ),
    ]


def with_common_figures(task, logs):
    """Logs of an evaluation, and what its task's papers state besides.

    For a task on words the perplexity, exp of the cross-entropy; for spans the accuracy, the mean
    of that of starts and ends.

    >>> with_common_figures("language_model", {"cross_entropy": 0.0})["perplexity"]
    1.0
    >>> with_common_figures("spans", {"start_accuracy": 0.25, "end_accuracy": 0.75})["accuracy"]
    0.5
    """
    if task == "spans":
        return {**logs, "accuracy": (logs["start_accuracy"] + logs["end_accuracy"]) / 2}
    key = {"masked_lm": "masked_lm_cross_entropy"}.get(task, "cross_entropy")
    if task not in ("masked_lm", "language_model", "translation") or key not in logs:
        return dict(logs)
    return {**logs, "perplexity": math.exp(min(logs[key], 700.0))}


def judge(model, source, *, batch_size, translator):
    """What only the whole answer shows, on a held-out source: F1 and exact match, or BLEU.

    Args:
        model: trained on the source's task.
        source: a held-out source; of a task without such a judgement nothing is computed.
        batch_size: examples to a call.
        translator: for the task "translation", class whose objects, made of (model, start_id=,
            end_id=), have `beam_search` from source ids (batch, length) to `tokens`, such ids.

    Returns:
        Percentages by name; empty for other tasks.
    """
    batches = evaluation_batches(source, batch_size=batch_size)
    n = source.num_examples
    if source.task == "spans":
        run = tf.function(lambda inputs: model(inputs, training=False))
        outputs = [run(inputs) for inputs, _, _ in batches]
        start, end = (np.concatenate([o[k].numpy() for o in outputs])[:n] for k in ("start", "end"))
        return source.judge(start, end)
    if source.task == "translation":
        if importlib.util.find_spec("sacrebleu") is None:
            print("No BLEU: the package sacrebleu isn't installed (pip install sacrebleu).")
            return {}
        ends = {f"{end}_id": source.tokenizer.id_of(t) for end, t in (("start", CLS), ("end", SEP))}
        search, found = translator(model, **ends).beam_search, []
        for inputs, _, _ in batches:
            found += source.detokenize(search(inputs["source_ids"].numpy()).tokens)
        return {"bleu": source.bleu(found[:n])}
    return {}
