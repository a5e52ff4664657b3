"""train.py with --diagnostics: what is recorded, that it is resumed, what is refused."""

import csv

import pytest

from train_results import SHORT, result

pytestmark = pytest.mark.tensorflow
FLAGS = [*SHORT, "--global_batch_size=256", "--diagnose_every=2"]
ALL = ["--diagnostics=norms,noise_scale,lipschitz", "--micro_batch_size=128"]


@pytest.mark.slow
def test_a_resumed_run_records_what_a_straight_one_does(run, tmp_path):
    """The first part was killed after it had looked once more than its checkpoint knows."""
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    code, _, _ = run(*FLAGS, *ALL, f"--model_dir={straight}")
    assert code == 0
    run(*FLAGS, *ALL, f"--model_dir={halves}", "--max_updates=8")
    with open(halves / "diagnostics" / "norms.csv", "a") as file:
        file.write("8,conv1/kernel,1,1,1,1,1,1\r\n")
    code, out, _ = run(*FLAGS, *ALL, f"--model_dir={halves}", "--resume")
    assert (code, result(out)["status"]) == (0, "done")
    tables = [folder / "diagnostics" / "norms.csv" for folder in (straight, halves)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    rows = list(csv.DictReader(tables[0].read_text().splitlines()))
    assert {int(row["update"]) for row in rows} == set(range(0, result(out)["updates"], 2))
    looks = [(folder / "local_lipschitz.csv").read_text() for folder in (straight, halves)]
    assert looks[0] == looks[1]
    assert len(looks[0].splitlines()) == 1 + len(range(0, result(out)["updates"] + 1, 2))
    logs = [folder / "log.csv" for folder in (straight, halves)]
    found = [
        [
            (r["noise_scale"], r["local_lipschitz"])
            for r in csv.DictReader(p.read_text().splitlines())
        ]
        for p in logs
    ]
    assert found[0] == found[1] != []


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--diagnostics=norm"], "diagnostics must be of norms, noise_scale"),
        (["--diagnostics=noise_scale"], "one micro-batch on one replica. Set micro_batch_size"),
        (["--diagnostics=norms", "--diagnose_every=0"], "diagnose_every must be a whole number"),
    ],
)
def test_refusals(run, tmp_path, flags, words):
    code, _, err = run(*SHORT, *flags, f"--model_dir={tmp_path / 'run'}")
    assert code == 2
    assert words in err
    assert not (tmp_path / "run").exists()
