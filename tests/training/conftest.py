"""Folders for checkpoints: on the disk, and as in an object store."""

import pytest


@pytest.fixture
def bucket(tmp_path):
    """A folder in TensorFlow's memory, which stands for one in an object store.

    As there, the path has a scheme, and only `tf.io.gfile` can open it. Unlike there, an object
    shows while it is written, and "wb" writes behind what was there: worse, so that it tests more.
    """
    return f"ram://{tmp_path.name}"


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path, bucket):
    return f"{tmp_path if request.param == 'local' else bucket}/checkpoints"
