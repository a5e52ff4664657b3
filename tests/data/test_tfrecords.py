"""TFRecord files: any record at any time, and a damaged one by its name."""

import os
import pathlib
import re

import numpy as np
import pytest

from jpeg_files import jpeg, levels, write_tfrecord

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def files(tmp_path):
    """20 examples in three files, of which one is empty."""
    parts = [range(7), range(0), range(7, 20)]
    return [
        write_tfrecord(tmp_path / f"train-{i:05}-of-00003", part) for i, part in enumerate(parts)
    ]


def source(files, **options):
    from tf_largebatch.data.jpeg import JpegSource
    from tf_largebatch.data.tfrecords import TFRecords

    names = ("index_path", "first_label")
    records = TFRecords(files, **{k: options.pop(k) for k in names if k in options})
    options = {"num_classes": 20, "image_size": 8, "augmentation": "none", **options}
    return JpegSource(name="toy", records=records, **options)


def evaluate(given):
    from tf_largebatch.data.batches import evaluation_batches

    batches = evaluation_batches(given, batch_size=6).as_numpy_iterator()
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def edit(path, change):
    content = bytearray(pathlib.Path(path).read_bytes())
    change(content)
    pathlib.Path(path).write_bytes(content)


@pytest.mark.parametrize("image, first_label", [("image", 0), ("image/encoded", 1)])
def test_each_record_comes_once_in_the_order_of_the_files(tmp_path, image, first_label):
    names = [tmp_path / "a", tmp_path / "b"]
    parts = [range(3), range(3, 20)]
    files = [
        write_tfrecord(name, part, image=image, first_label=first_label)
        for name, part in zip(names, parts, strict=True)
    ]
    images, labels, mask = evaluate(source(files, first_label=first_label))
    assert labels[mask == 1].tolist() == list(range(20))
    assert levels(images[mask == 1]) == list(range(20))


def test_any_record_is_read_by_its_number(files):
    records = source(files).records
    assert len(records) == 20
    for number in (19, 0, 6, 7, 12):
        found, label = records.parse(records.raw(number), number)
        assert (found.numpy(), int(label)) == (jpeg(number), number)
    assert records.name_of(6) == f"record 6 of {files[0]}"
    assert records.name_of(7) == f"record 0 of {files[2]}"


@pytest.mark.parametrize("shuffle", ["global", "per_worker"])
@pytest.mark.parametrize("pipelines", [2, 5])  # of two files that aren't empty
def test_pipelines_share_files_and_see_each_example_once(files, pipelines, shuffle):
    from tf_largebatch.data.batches import training_batches

    seen = []
    for i in range(pipelines):
        batches = training_batches(
            source(files), global_batch_size=20, seed=0, total_updates=1,
            pipeline=i, num_pipelines=pipelines, shuffle=shuffle,
        )  # fmt: skip
        seen += [int(label) for _, labels in batches.as_numpy_iterator() for label in labels]
    assert sorted(seen) == list(range(20)) and seen != sorted(seen)


def test_the_index_is_kept_and_made_again_when_the_files_change(files, tmp_path, monkeypatch):
    from tf_largebatch.data import tfrecords

    path = str(tmp_path / "index" / "train.npz")
    expected = tfrecords.load_index(files, path)  # there is no such folder: nothing is kept
    assert not os.path.exists(path) and expected.shape == (3, 20)
    os.mkdir(tmp_path / "index")
    tfrecords.load_index(files, path)
    assert os.listdir(tmp_path / "index") == ["train.npz"]
    with monkeypatch.context() as patch:
        patch.setattr(tfrecords, "_records_of", None)  # so that making it would fail
        np.testing.assert_array_equal(tfrecords.load_index(files, path), expected)
    write_tfrecord(files[1], range(2))
    assert tfrecords.load_index(files, path).shape == (3, 22)
    os.utime(files[1], (0, 0))  # as if it were another one of the same size
    with monkeypatch.context() as patch:
        patch.setattr(tfrecords, "_records_of", None)
        with pytest.raises(TypeError):
            tfrecords.load_index(files, path)
    pathlib.Path(path).write_bytes(pathlib.Path(path).read_bytes()[:-40])  # half an index
    assert tfrecords.load_index(files, path).shape == (3, 22)
    assert tfrecords.load_index(files[:1], path).shape == (3, 7)


@pytest.mark.parametrize("keep, record", [(-1, 12), (-20, 12), (4, 0)])
def test_a_truncated_file_is_named(files, keep, record):
    edit(files[2], lambda content: content.__delitem__(slice(keep, None)))
    with pytest.raises(ValueError, match=f"{files[2]} isn't a whole.*its record {record}, at byte"):
        source(files)


def test_compressed_or_other_files_are_refused(tmp_path):
    path = write_tfrecord(tmp_path / "a.gz", range(5), options="GZIP")
    with pytest.raises(ValueError, match="a.gz isn't a whole TFRecord file.*compressed"):
        source([path])


def test_files_without_images_are_refused(tmp_path, files):
    import tensorflow as tf

    with pytest.raises(ValueError, match=f"no record in the files. Received: .*{files[1]}"):
        source(files[1:2])
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        found = tf.train.Example()
        found.features.feature["text"].bytes_list.value.append(b"x")
        writer.write(found.SerializeToString())
    with pytest.raises(ValueError, match="record 0 of .*other must have an image.*Received: text"):
        source([str(tmp_path / "other")])


def spoil(content):
    content[-30] ^= 1  # within the last record, whose length still is right


@pytest.mark.parametrize("skip", [False, True])
def test_a_flipped_bit_is_found_by_the_checksum(files, skip):
    import tensorflow as tf

    edit(files[2], spoil)
    given = source(files, skip_bad_records=skip)
    if skip:
        _, labels, mask = evaluate(given)
        assert labels[mask == 1].tolist() == list(range(19))
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="record 12 of .*cannot be used"):
            evaluate(given)
    assert list(given.bad_records) == [f"record 12 of {files[2]}"]
    assert "corrupted" in given.bad_records[f"record 12 of {files[2]}"]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("options, record, label", [
    ({"num_classes": 19}, 12, "19 (if the classes count from 1, pass first_label=1)"),
    ({"num_classes": 20, "first_label": 1}, 0, "-1"),
])  # fmt: skip
def test_a_label_out_of_range_is_found_when_it_is_read(files, options, record, label, skip):
    import tensorflow as tf

    given = source(files, skip_bad_records=skip, **options)
    if skip:
        assert evaluate(given)[2].sum() == 19
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"record {record} of"):
            evaluate(given)
    (what,) = given.bad_records.values()
    last = options["num_classes"] - 1
    assert what == f"its label must lie between 0 and {last}. Received: {label}"


def test_a_label_of_more_than_32_bits_does_not_wrap(tmp_path):
    import tensorflow as tf

    given = source([write_tfrecord(tmp_path / "a", [1], first_label=2**32)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="19. Received: 4294967297. Mend"):
        evaluate(given)


def test_what_a_record_lacks_is_said(tmp_path):
    import tensorflow as tf

    files = [write_tfrecord(tmp_path / "a", [1]), str(tmp_path / "b"), str(tmp_path / "c")]
    with tf.io.TFRecordWriter(files[1]) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with tf.io.TFRecordWriter(files[2]) as writer:
        writer.write(b"hello")
    given = source(files, skip_bad_records=True)
    evaluate(given)
    first, second = given.bad_records.values()
    assert re.fullmatch("Feature: image .* is required but could not be found", first)
    assert re.fullmatch("Could not parse example input, value: 'hello'", second)
    with pytest.raises(ValueError, match="record 0 of .*c must be a tf.train.Example.*: 5 bytes"):
        source(files[2:])
