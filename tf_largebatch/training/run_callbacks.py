"""The Keras callbacks of a run: what is kept, logged, recorded and profiled."""

import importlib.util
import math
import os

import keras

from tf_largebatch.training.callbacks import CSVLogger, KeepBest, Profile
from tf_largebatch.training.run_folder import DIAGNOSTICS


def make_callbacks(
    recipe, model_dir, progress, stage, *, append=False, last=True, chief=True, diagnostics=None
):
    """The callbacks of one phase of a recipe's run, the one that keeps the best model first.

    Args:
        recipe: the `Recipe`.
        model_dir: folder of the run.
        progress: dict that is saved along with the run.
        stage: `Stage` of the phase.
        append: whether the run has logs already.
        last: whether it is the run's last phase, whose metric the target is for.
        chief: whether this worker writes.
        diagnostics: {name: function}, at least those that the recipe names. Each is called on all
            workers, since it may look into the update, as function(stage, every, folder=...,
            append=..., write=chief), and returns a callback.

    Returns:
        List of Keras callbacks.
    """
    best, metric = os.path.join(model_dir, "best.keras"), f"val_{stage.metric}"
    target = recipe.target_metric if last else None
    found = [KeepBest(best, metric, progress, target=target, write=chief)]
    # Before the loggers, which must see what diagnostics add to the logs.
    for name in dict.fromkeys(recipe.diagnostics):
        files = {"folder": os.path.join(model_dir, DIAGNOSTICS), "append": append, "write": chief}
        found.append(diagnostics[name](stage, recipe.diagnose_every, **files))
    if not chief:
        return found
    found.append(CSVLogger(os.path.join(model_dir, "log.csv"), append=append))
    if importlib.util.find_spec("tensorboard") is None:
        print("No TensorBoard logs: the package tensorboard isn't installed.")
    else:
        folder = os.path.join(model_dir, "tensorboard")
        found.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    if recipe.profile_updates is not None:
        found.append(Profile(os.path.join(model_dir, "profile"), *profiled_updates(recipe)))
    return found


def profiled_updates(recipe, total_updates=math.inf):
    """(first, last) of the recipe's `profile_updates`, or ().

    Raises:
        ValueError: if the run of `total_updates` ends before the first.

    >>> from tf_largebatch.recipes import Recipe
    >>> profiled_updates(Recipe(profile_updates="10:20"))
    (10, 20)
    """
    if recipe.profile_updates is None:
        return ()
    first, last = map(int, recipe.profile_updates.split(":"))
    if first >= total_updates:
        raise ValueError(
            f"profile_updates must begin within the run's {total_updates} updates. Received: "
            f"{recipe.profile_updates}."
        )
    return first, last
