"""Data sources by name; their batches, which need TensorFlow, are in `tf_largebatch.data.batches`.

>>> splits = load("digits")
>>> splits.train.num_examples, splits.test.num_examples
(1437, 360)
"""

import difflib
import importlib
import inspect

from tf_largebatch.data.embedded import digits
from tf_largebatch.data.source import ArraySource, Splits

# The function that loads each source; all but the digits need TensorFlow to be loaded.
SOURCES = {
    "digits": "tf_largebatch.data.embedded:digits",
    "digits32": "tf_largebatch.data.embedded:digits32",
    "crops": "tf_largebatch.data.crops:crops",
    "mnist": "tf_largebatch.data.prepared:mnist",
    "cifar10": "tf_largebatch.data.prepared:cifar10",
    "imagenet2012": "tf_largebatch.data.prepared:imagenet2012",
    "image_folder": "tf_largebatch.data.folders:image_folder",
    "tfrecords": "tf_largebatch.data.folders:tfrecords",
    "topics": "tf_largebatch.data.pretraining:topics",
    "english": "tf_largebatch.data.pretraining:english",
    "text_folder": "tf_largebatch.data.pretraining:text_folder",
    "wikipedia": "tf_largebatch.data.pretraining:wikipedia",
    "wiki40b": "tf_largebatch.data.pretraining:wiki40b",
    "c4": "tf_largebatch.data.pretraining:c4",
    "wikipedia_books": "tf_largebatch.data.pretraining:wikipedia_books",
    "squad": "tf_largebatch.data.squad:squad",
    "questions": "tf_largebatch.data.questions:questions",
    "phrases": "tf_largebatch.data.phrases:phrases",
    "parallel_text": "tf_largebatch.data.parallel_text:parallel_text",
    "wmt16": "tf_largebatch.data.parallel_text:wmt16",
    "english_lm": "tf_largebatch.data.language_model:english_lm",
    "topics_lm": "tf_largebatch.data.language_model:topics_lm",
    "lm_folder": "tf_largebatch.data.lm_folder:lm_folder",
}


def load(name, data_dir=None, **options):
    """Load the data called `name`.

    Args:
        name: A key of `SOURCES`. Embedded, for which nothing is downloaded: `"digits"`, the 1,797
            digits that scikit-learn carries; `"digits32"`, the same as 32x32 pixels in three
            colours; `"crops"`, JPEG crops of its two photographs. As TensorFlow Datasets prepares
            them: `"mnist"`, `"cifar10"`, `"imagenet2012"`. From your own files: `"image_folder"`,
            `"tfrecords"`. Text for pre-training (`tf_largebatch.data.pretraining`): embedded
            `"topics"` and `"english"`; prepared `"wikipedia"`, `"wiki40b"`, `"c4"` and
            `"wikipedia_books"`; your own, `"text_folder"`. For language models: the same embedded
            text as `"topics_lm"` and `"english_lm"`; your own, such as the Penn Treebank,
            `"lm_folder"`. Questions with answers: embedded `"questions"`; `"squad"`, from its own
            files. Translation: embedded `"phrases"`; prepared `"wmt16"`; your own,
            `"parallel_text"`.
        data_dir: Folder of the data that lie in files; the embedded ones ignore it.
        options: What the source's own function takes, such as `image_size` and `augmentation`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If the name or an option is unknown, or the data can't be used.
        ImportError: If the source needs a package that isn't installed.
        ConnectionError: If the data must be downloaded and there is no network.

    >>> load("digits", image_size=8).train.input_shape
    (8, 8, 1)
    """
    if name not in SOURCES:
        raise ValueError(
            f"There is no data source of this name. Received: name={name!r}."
            f"{_nearest(name, SOURCES)} The sources are: {', '.join(sorted(SOURCES))}."
        )
    module, function = SOURCES[name].split(":")
    function = getattr(importlib.import_module(module), function)
    known = _options(function)
    for option in options:
        if option not in known:
            raise ValueError(
                f"The source {name} has no option {option!r}.{_nearest(option, known)} "
                f"It has: {', '.join(sorted(known)) or 'none'}."
            )
    if "data_dir" in inspect.signature(function).parameters:
        options["data_dir"] = data_dir
    return function(**options)


def _options(function):
    """The names of its arguments; `**options` stands for those of the class it is annotated with.

    Without an annotation that is `JpegSource`.
    """
    parameters = inspect.signature(function).parameters
    known = set(parameters) - {"data_dir", "options"}
    if "options" in parameters:
        owner = parameters["options"].annotation
        if owner is inspect.Parameter.empty:
            from tf_largebatch.data.jpeg import JpegSource as owner

        known |= set(inspect.signature(owner).parameters) - {"name", "records", "num_classes"}
    return known


def _nearest(name, known):
    nearest = difflib.get_close_matches(str(name), known, n=3)
    return f" Nearest: {', '.join(nearest)}." if nearest else ""


__all__ = ["SOURCES", "ArraySource", "Splits", "digits", "load"]
