"""JPEGs read while the model trains: the same ones however they are read, bad ones by name."""

import dataclasses
import re
import struct

import numpy as np
import pytest

from jpeg_files import jpeg, levels

pytestmark = pytest.mark.tensorflow

N = 20


@pytest.fixture(scope="module")
def jpegs():
    return [jpeg(number) for number in range(N)]


def source(jpegs, labels=None, **options):
    from tf_largebatch.data.jpeg import JpegSource
    from tf_largebatch.data.records import MemoryRecords

    labels = np.arange(len(jpegs)) if labels is None else labels
    options = {"image_size": 8, "augmentation": "none", "num_classes": N, **options}
    return JpegSource(name="toy", records=MemoryRecords(jpegs, labels), **options)


def train(given, updates=5, batch_size=8, **options):
    from tf_largebatch.data.batches import training_batches

    options = {"seed": 1, "global_batch_size": batch_size, "total_updates": updates, **options}
    return list(training_batches(given, **options).as_numpy_iterator())


def evaluate(given, batch_size=8, **options):
    from tf_largebatch.data.batches import evaluation_batches

    batches = evaluation_batches(given, batch_size=batch_size, **options).as_numpy_iterator()
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def broken(jpegs, *bad):
    """Those whose numbers are given lose their second half."""
    return [j[: len(j) // 2] if i in bad else j for i, j in enumerate(jpegs)]


def test_pixels_and_labels_travel_together_in_the_order_of_every_source(jpegs):
    from tf_largebatch.data.source import ArraySource

    numbers = ArraySource("numbers", np.zeros((N, 1)), np.arange(N), num_classes=N)
    expected = [labels.tolist() for _, labels in train(numbers)]
    given = source(jpegs)
    for _ in range(2):
        batches = train(given)
        assert [labels.tolist() for _, labels in batches] == expected
        assert [levels(images) for images, _ in batches] == expected
    images, labels, mask = evaluate(given)
    assert labels[mask == 1].tolist() == levels(images[mask == 1]) == list(range(N))


@pytest.mark.parametrize("augmentation", ["weak", "heavy"])
def test_an_augmented_example_depends_on_seed_epoch_and_example_alone(augmentation):
    import tensorflow as tf

    random = np.random.default_rng(0)
    noise = [
        tf.io.encode_jpeg(random.integers(0, 256, (*size, 3), np.uint8)).numpy()
        for size in random.integers(20, 90, (N, 2))
    ]
    given = source(noise, augmentation=augmentation)

    def seen(**options):
        parts = zip(*train(given, **options), strict=True)
        images, labels = (np.concatenate(part) for part in parts)
        return images, labels

    images, labels = seen(updates=10, batch_size=4)
    first = [np.flatnonzero(labels == i)[0] for i in range(N)]
    second = [np.flatnonzero(labels == i)[1] for i in range(N)]
    changes = abs(images[first] - images[second]).max(axis=(1, 2, 3)) > 0.1
    assert changes.mean() > 0.8  # in small images two crops may be the same
    assert abs(images - seen(updates=10, batch_size=4, seed=2)[0]).max() > 0.1

    np.testing.assert_array_equal(seen(updates=2, batch_size=20)[0], images)
    np.testing.assert_array_equal(seen(updates=10, batch_size=4, first_update=7)[0], images[28:])
    halves = [
        seen(updates=2, batch_size=20, pipeline=i, num_pipelines=2)[0].reshape(2, 10, 8, 8, 3)
        for i in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(halves, 1).reshape(images.shape), images)
    given = dataclasses.replace(given, parallel_reads=7, cache=True, skip_bad_records=True)
    for _ in range(2):
        np.testing.assert_array_equal(seen(updates=2, batch_size=20)[0], images)


def test_shapes_are_static_and_the_length_is_known(jpegs):
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    for skip in (False, True):
        given = source(jpegs, skip_bad_records=skip)
        batches = training_batches(given, global_batch_size=8, seed=0, total_updates=9)
        judged = evaluation_batches(given, batch_size=8)
        assert [s.shape.as_list() for s in batches.element_spec] == [[8, 8, 8, 3], [8]]
        assert [s.shape.as_list() for s in judged.element_spec] == [[8, 8, 8, 3], [8], [8]]
        assert [s.dtype.name for s in judged.element_spec] == ["float32", "int32", "float32"]
        assert (len(batches), len(judged)) == (9, 3)


@pytest.mark.parametrize("prefetch", [0, 1, -1])
def test_prefetch_changes_nothing_but_the_wait(jpegs, prefetch):
    expected = [labels.tolist() for _, labels in train(source(jpegs))]
    found = train(source(jpegs), prefetch=prefetch)
    assert [labels.tolist() for _, labels in found] == expected


def test_replicas_read_it_as_well(jpegs):
    import tensorflow as tf

    from replicas import strategy_of
    from tf_largebatch.data.batches import training_batches

    options = {"global_batch_size": 8, "seed": 1, "total_updates": 5}
    given = source(jpegs, cache=True)
    strategy = strategy_of(2)
    batches = strategy.distribute_datasets_from_function(
        lambda context: training_batches(given, **options).unbatch().batch(4, drop_remainder=True)
    )

    @tf.function
    def step(iterator):
        return strategy.run(lambda images, labels: labels, args=next(iterator))

    iterator = iter(batches)
    labels = [np.concatenate(strategy.experimental_local_results(step(iterator))) for _ in range(5)]
    assert [part.tolist() for part in labels] == [part.tolist() for _, part in train(given)]


@pytest.mark.parametrize("bad", [0, 7, N - 1])
def test_a_truncated_jpeg_stops_the_run_and_is_named(jpegs, bad):
    import tensorflow as tf

    given = source(broken(jpegs, bad))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        train(given)
    size = f"{len(jpegs[bad]) // 2:,}"
    assert re.search(
        rf"record {bad} of toy cannot be used: the JPEG is truncated, after {size} bytes. Mend it, "
        "remove it, or pass skip_bad_records=True.",
        caught.value.message,
    )
    assert list(given.bad_records) == [f"record {bad}"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"record {bad} of toy"):
        evaluate(given)


def test_what_is_wrong_with_a_jpeg_is_said(jpegs):
    import tensorflow as tf

    png = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    damaged = jpegs[3][:20] + bytes(100) + jpegs[3][120:]
    size = jpegs[3].index(b"\xff\xc0") + 5  # in the header, two bytes each for height and width
    huge = jpegs[3][:size] + struct.pack(">HH", 12_000, 16_000) + jpegs[3][size + 4 :]
    for content, words in [
        (png, f"its {len(png)} bytes aren't a JPEG"),
        (b"", "its 0 bytes aren't a JPEG"),
        (damaged, "the JPEG is damaged"),
        (huge, "its 16,000x12,000 pixels in three colours are more than the 536,870,912 bytes .*"),
    ]:
        given = source([*jpegs[:3], content, *jpegs[4:]])
        with pytest.raises(tf.errors.InvalidArgumentError, match="record 3 of toy"):
            train(given)
        assert list(given.bad_records) == ["record 3"]
        assert re.fullmatch(words, given.bad_records["record 3"])


def test_the_first_of_several_bad_records_of_a_batch_is_named(jpegs):
    import tensorflow as tf

    order = train(source(jpegs))[0][1]
    given = source(broken(jpegs, order[2], order[5]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"record {order[2]} of toy"):
        train(given)


@pytest.mark.parametrize("bad", [(7,), (N - 1,), (3, 4, 5), (0, N - 1)])
def test_skipped_records_are_replaced_by_the_next_good_one_and_counted(jpegs, bad):
    given = source(broken(jpegs, *bad), skip_bad_records=True)
    good = [i for i in range(N) if i not in bad]
    stands_in = {i: min(good, key=lambda g: (g - i) % N) for i in range(N)}
    whole = train(source(jpegs))
    for batches in (train(given), train(given, prefetch=0)):
        for (images, labels), (_, before) in zip(batches, whole, strict=True):
            assert labels.tolist() == [stands_in[i] for i in before.tolist()] == levels(images)
    assert set(given.bad_records) == {f"record {i}" for i in bad}
    assert all("truncated" in what for what in given.bad_records.values())


def test_skipped_records_count_for_nothing_in_evaluation(jpegs):
    given = source(broken(jpegs, 7, N - 1), skip_bad_records=True)
    images, labels, mask = evaluate(given)
    assert labels[mask == 1].tolist() == [i for i in range(N) if i not in (7, N - 1)]
    assert levels(images[mask == 1]) == labels[mask == 1].tolist()
    assert len(given.bad_records) == 2


def test_if_nothing_is_good_skipping_ends(jpegs):
    import tensorflow as tf

    given = source(broken(jpegs, *range(N)), skip_bad_records=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Nor can the 100 records after it"):
        train(given)


def test_the_cache_reads_each_file_once(jpegs, tmp_path):
    from tf_largebatch.data.jpeg import JpegSource
    from tf_largebatch.data.records import FileRecords

    paths = [str(tmp_path / f"{i}.jpg") for i in range(N)]
    for i, content in enumerate(jpegs):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    options = {"num_classes": N, "image_size": 8, "augmentation": "none"}
    records = FileRecords(paths, np.arange(N))
    given = JpegSource(name="files", records=records, cache=True, **options)
    expected = [labels.tolist() for _, labels in train(given)]  # two epochs
    for path in tmp_path.iterdir():
        path.unlink()
    found = train(given)
    assert [labels.tolist() for _, labels in found] == expected
    assert [levels(images) for images, _ in found] == expected


def test_a_missing_file_is_named(jpegs, tmp_path):
    import tensorflow as tf

    from tf_largebatch.data.jpeg import JpegSource
    from tf_largebatch.data.records import FileRecords

    path = tmp_path / "gone.jpg"
    given = JpegSource(name="files", records=FileRecords([str(path)], [0]), num_classes=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="gone.jpg of files cannot be used"):
        train(given, updates=1, batch_size=1)
    assert given.bad_records[str(path)] == f"{path}; No such file or directory"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"image_size": 0}, "image_size must be a whole number of at least 1"),
        ({"augmentation": "cifar"}, "none, weak, heavy. Received: augmentation='cifar'"),
        ({"min_area": 0}, "min_area must be a finite number above 0"),
        ({"min_area": 1.5}, "min_area must be at most 1. Received: min_area=1.5"),
        ({"parallel_reads": 0}, "parallel_reads must be a whole number"),
        ({"num_classes": 19}, "record 19 of toy.*between 0 and 18. Received: 19 .1 such"),
        ({"labels": [-1] * N}, "record 0 of toy.*Received: -1 .20 such in all"),
    ],
)
def test_a_source_says_what_is_wrong_with_it(jpegs, options, words):
    with pytest.raises(ValueError, match=words):
        source(jpegs, **options)
    with pytest.raises(ValueError, match="toy has no examples"):
        source([])
