"""train.py stopped, killed, damaged or diverged: what it says, and how it goes on."""

import contextlib
import csv
import io
import shutil

import numpy as np
import pytest

from train_results import SHORT, result, weights

pytestmark = pytest.mark.tensorflow
NINE_UPDATES = [*SHORT, "--global_batch_size=479", "--checkpoint_every=1", "--epochs=3"]


@pytest.fixture(scope="module")
def whole(main, tmp_path_factory):
    """The folder and the results of a run that nothing disturbed."""
    folder, out = tmp_path_factory.mktemp("whole") / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(*NINE_UPDATES, f"--model_dir={folder}") == 0
    return folder, result(out.getvalue())


def rows_of(folder):
    """Those of log.csv, without the speed."""
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    return [{k: v for k, v in row.items() if k != "examples_per_second"} for row in rows]


def test_stopping_and_resuming_ends_with_the_same_weights(run, whole, tmp_path):
    flags = [*NINE_UPDATES, "--checkpoint_every=5", f"--model_dir={tmp_path}"]
    code, out, _ = run(*flags, "--max_updates=4")
    assert (code, result(out)["status"], result(out)["updates"]) == (0, "stopped early", 4)
    code, out, _ = run(*flags, "--resume")
    assert "from update 4" in out
    assert (code, result(out)["status"], result(out)["updates"]) == (0, "done", 9)
    for one, other in zip(weights(whole[0]), weights(tmp_path), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["0", "1", "2"]
    assert rows_of(tmp_path) == rows_of(whole[0])


def test_resume_on_an_empty_folder_starts_afresh(run, tmp_path):
    code, out, _ = run(*SHORT, f"--model_dir={tmp_path}", "--resume")
    assert (code, result(out)["status"]) == (0, "done")


def test_damaged_checkpoints(run, tmp_path):
    folder = tmp_path / "r"
    run(*SHORT, "--max_updates=4", "--checkpoint_every=2", f"--model_dir={folder}")
    newest = max((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Damaged checkpoints are passed over"):
        code, out, _ = run(*SHORT, f"--model_dir={folder}", "--resume", "--max_updates=4")
    assert code == 0
    assert "from update 2" in out
    for path in (folder / "checkpoints").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    code, _, err = run(*SHORT, f"--model_dir={folder}", "--resume")
    assert code == 2
    assert "is damaged or cut short" in err


def test_divergence_stops_with_a_message(run, tmp_path):
    code, _, err = run(
        *SHORT, "--optimizer=sgd", "--learning_rate=1e30", f"--model_dir={tmp_path / 'r'}"
    )
    assert code == 3
    assert "training diverged" in err
    assert "at update" in err
    assert not (tmp_path / "r" / "final.keras").exists()
    for path in (tmp_path / "r").rglob("*.npz"):
        with np.load(path) as file:
            assert all(np.isfinite(file[k]).all() for k in file.files if file[k].dtype.kind == "f")


def test_evaluation_that_is_not_finite_is_divergence(run, tmp_path):
    """One huge step: the loss before it is finite, and there is none after it."""
    code, out, err = run(
        "--progress=none", "--optimizer=sgd", "--learning_rate=1e38", "--warmup_epochs=0",
        "--global_batch_size=1437", "--epochs=2", "--max_updates=1",
        f"--model_dir={tmp_path / 'r'}",
    )  # fmt: skip
    assert code == 3
    assert "training diverged" in err
    assert "RESULT" not in out
    assert not (tmp_path / "r" / "final.keras").exists()
    assert not (tmp_path / "r" / "best.keras").exists()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_kill_around_the_checkpoint_at_an_epochs_end(run, whole, tmp_path, monkeypatch, cut):
    """Logs, best and TensorBoard points are those of a run that wasn't killed."""
    from tf_largebatch.training import checkpoint

    flags, save = [*NINE_UPDATES, f"--model_dir={tmp_path}"], checkpoint.save

    def die(*arguments, update, **options):
        if update == 6 and cut == "before":
            raise SystemExit(9)
        save(*arguments, update=update, **options)
        if update == 6:
            raise SystemExit(9)

    monkeypatch.setattr(checkpoint, "save", die)
    with pytest.raises(SystemExit):
        run(*flags)
    monkeypatch.undo()
    (tmp_path / "checkpoints" / "unfinished-1-update-00000007.npz").write_bytes(b"half")
    _, again, _ = run(*flags, "--resume")
    folder, expected = whole
    assert result(again)["best"] == expected["best"]
    assert result(again)["accuracy"] == expected["accuracy"]
    assert not list(tmp_path.rglob("unfinished-*"))
    assert rows_of(tmp_path) == rows_of(folder)
    assert epoch_points(tmp_path) == epoch_points(folder) == [0, 1, 2]


def epoch_points(folder):
    import tensorflow as tf

    steps = []
    for path in sorted((folder / "tensorboard" / "train").glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            steps += [event.step for value in event.summary.value if value.tag == "epoch_loss"]
    return steps


def test_resuming_a_finished_run_changes_nothing(run, finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    log = (folder / "log.csv").read_text()
    _, again, _ = run(*SHORT, "--seed=3", f"--model_dir={folder}", "--resume")
    assert result(again) == result(finished.out) | {"model_dir": str(folder)}
    assert (folder / "log.csv").read_text() == log


def test_resuming_with_another_layout_says_so(run, tmp_path):
    flags = [*SHORT, f"--model_dir={tmp_path / 'r'}"]
    run(*flags, "--max_updates=4")
    _, out, _ = run(*flags, "--resume", "--micro_batch_size=64", "--max_updates=5")
    assert "the same but for rounding" in out
