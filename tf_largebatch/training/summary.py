"""What a run prints about itself: what is trained, what it costs, how it ended."""

import json

import numpy as np


def describe(recipe, run, stages, model):
    """Prints what will be trained: network, data, and each phase.

    Args:
        recipe: the `Recipe`.
        run: its `Length`.
        stages: its phases with their data.
        model: the built model.
    """
    first = stages[0].splits
    print(
        f"Model {recipe.model}: {model.count_params():,} parameters. Data {recipe.data}: "
        f"{first.train.num_examples:,} examples to train on, {first.test.num_examples:,} held out."
    )
    warmup_epochs = run.warmup_updates * recipe.global_batch_size / first.train.num_examples
    length = f"{run.epochs:.4g} epochs"
    if len(stages) > 1:
        length = f"{len(stages)} phases"
    print(
        f"{recipe.optimizer}: {run.total_updates:,} updates of {recipe.global_batch_size:,} "
        f"examples ({length}), warmup {run.warmup_updates:,} updates "
        f"({warmup_epochs:.4g} epochs), peak rate {recipe.learning_rate:.6g}, "
        f"{recipe.schedule} decay, {recipe.precision}, seed {recipe.seed}."
    )
    for source in (first.train, first.test):
        for note in getattr(source, "notes", ()):
            print(f"{note}.")
    if len(stages) == 1:
        return
    for number, stage in enumerate(stages):
        phase, examples = stage.phase, stage.splits.train.num_examples
        updates = phase.end_update - phase.start_update
        epochs = updates * phase.global_batch_size / examples
        again = ""
        if recipe.phase_learning_rates:
            again = (
                f"; warmup {recipe.phase_warmup_updates[number]:,} updates, peak rate "
                f"{recipe.phase_learning_rates[number]:.6g}"
            )
        print(
            f"Phase {number + 1}: {updates:,} updates of {phase.global_batch_size:,} examples of "
            f"{phase.sequence_length} tokens ({epochs:.4g} epochs of {examples:,})"
            f"{again}."
        )


def print_cost(total_updates, stages, model, count_operations):
    """Prints what an example, an update and the run cost, wherever they run.

    Args:
        total_updates: of the run.
        stages: its phases: text costs by the length of theirs.
        model: with a built optimizer.
        count_operations: function of a model and of the length of its inputs, as
            `Stage.input_lengths` gives it, that returns the multiply-adds an example, or raises a
            ValueError that says why it can't.
    """
    counts = []
    try:
        for lengths in (stage.input_lengths() for stage in stages):
            longest = max(lengths.values()) if isinstance(lengths, dict) else lengths
            what = "" if counts else " multiply-adds an example"
            what += "" if longest is None else f" of {longest} tokens"
            counts.append(f"{count_operations(model, lengths):,}{what}")
        operations = f"{', '.join(counts)}, forward"
    except ValueError as error:
        operations = f"operations not counted ({error})"
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    # Gradients are reduced in float32, whatever the weights are.
    reduced = total_updates * 4 * weights
    print(
        f"Cost: {operations}; {_nbytes(model.variables):,} bytes of weights, "
        f"{_nbytes(model.optimizer.variables):,} of the optimizer's state. A run on several "
        f"replicas reduces gradients {total_updates:,} times, {4 * weights:,} bytes each, "
        f"{reduced / 1e9:,.4g} GB in all."
    )


def _nbytes(variables):
    return sum(v.numpy().nbytes for v in variables)


def report_bad_records(splits):
    """Says which records were passed over, if any were."""
    for name, source in (("training", splits.train), ("held-out", splits.test)):
        bad = source.bad_records
        if bad:
            first = "; ".join(f"{record}: {why}" for record, why in list(bad.items())[:3])
            print(f"{len(bad)} {name} records can't be read and were passed over: {first}.")


def rounded(logs):
    """Metrics as they are printed, to six digits after the point."""
    return {name: round(value, 6) for name, value in logs.items()}


def report(recipe, status, logs, **more):
    """The last line, for scripts: RESULT and one JSON object."""
    result = {
        "status": status,
        "recipe": recipe.recipe,
        "optimizer": recipe.optimizer,
        "global_batch_size": recipe.global_batch_size,
        "seed": recipe.seed,
        **rounded(logs),
        **{name: value for name, value in more.items() if value is not None},
    }
    print("RESULT " + json.dumps(result, allow_nan=False))
