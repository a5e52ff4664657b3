"""A record that can't be read ends train.py in one sentence, or is counted and passed over."""

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight JPEGs for each split, one of them truncated."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in "ab":
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(8):
                pixels = random.integers(0, 255, (48, 48, 3), dtype="uint8")
                (place / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
    bad = tmp_path / "data" / "train" / "a" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:600])
    return tmp_path


@pytest.mark.parametrize("skip", [False, True])
def test_a_truncated_jpeg_is_named(run, folder, skip):
    code, out, err = run(
        "--progress=none", "--data=image_folder", f"--data_dir={folder / 'data'}",
        "--image_size=32", "--global_batch_size=8", "--epochs=1", "--warmup_epochs=0",
        f"--model_dir={folder / 'run'}", *(["--skip_bad_records"] if skip else []),
    )  # fmt: skip
    if skip:
        assert code == 0, err
        assert "1 training records can't be read and were passed over:" in out
        assert "3.jpg" in out
    else:
        assert code == 2, err
        assert "3.jpg of image_folder cannot be used: the JPEG is truncated" in err
