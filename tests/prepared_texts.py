"""Texts as TensorFlow Datasets would leave them on disk."""


def write_prepared(root, name, config, texts, version="1.0.0"):
    """A folder as the package would leave it, two files."""
    import tensorflow as tf

    folder = root / name / config / version
    folder.mkdir(parents=True)
    for i in range(2):
        path = str(folder / f"{name}-train.tfrecord-{i:05}-of-00002")
        with tf.io.TFRecordWriter(path) as file:
            for text in texts[i::2]:
                value = tf.train.BytesList(
                    value=[text if isinstance(text, bytes) else text.encode()]
                )
                feature = {"text": tf.train.Feature(bytes_list=value)}
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                file.write(example.SerializeToString())
    return folder
