"""Small JPEGs, TFRecord files and folders of them, in which the grey level tells the number."""

import numpy as np

LABEL = {"image": "label", "image/encoded": "image/class/label"}


def jpeg(number):
    """The bytes of an image of grey level 5 * number."""
    import tensorflow as tf

    pixels = np.full((10 + number, 20, 3), 5 * number, np.uint8)
    return tf.io.encode_jpeg(pixels, quality=95).numpy()


def levels(images):
    """Which numbers the images of a batch, standardised, are of."""
    grey = images * [58.395, 57.12, 57.375] + [123.675, 116.28, 103.53]
    assert np.ptp(grey, axis=(1, 2, 3)).max() < 3
    return np.rint(grey.mean((1, 2, 3)) / 5).astype(int).tolist()


def write_tfrecord(path, numbers, *, image="image", first_label=0, encode=jpeg, options=None):
    """A file with one example for each number, which is its label; returns its path."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), options) as writer:
        for number in numbers:
            found = tf.train.Example()
            found.features.feature[image].bytes_list.value.append(encode(number))
            found.features.feature[LABEL[image]].int64_list.value.append(number + first_label)
            found.features.feature["file_name"].bytes_list.value.append(b"x")
            writer.write(found.SerializeToString())
    return str(path)


def fill(folder, **classes):
    """JPEGs in a subfolder for each class: fill(folder, cat=[1, 2], dog=[3])."""
    for name, numbers in classes.items():
        (folder / name).mkdir(parents=True)
        for number in numbers:
            (folder / name / f"{number:03}.JPEG").write_bytes(jpeg(number))
