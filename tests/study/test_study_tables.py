"""What stands in the report's cells, and what of a study's files it can't read."""

import numpy as np
import pytest

import studies
from tf_largebatch.study import _measures as measures
from tf_largebatch.study import _search_tables as search_tables
from tf_largebatch.study import _tables as tables
from tf_largebatch.study._reading import read


def study_of(folder, *lines, curves=(), **info):
    results = [run for some in lines for run in some]
    return read(studies.write(folder, studies.info(**info), results, curves))


def cells(table):
    """The table as {(row's head, column's head): cell}."""
    return {
        (row[0], head): cell
        for row in table.rows
        for head, cell in zip(table.head, row, strict=True)
    }


def test_accuracy_is_mean_and_deviation_in_per_cent(tmp_path):
    values = [0.9861111, 0.9916667, 0.9972222]
    study = study_of(
        tmp_path,
        studies.runs("sgd", 16, values),
        studies.runs("sgd", 512, [values[0], None, None]),
        studies.runs("lamb", 16, values, "tuned"),
        studies.runs("lamb", 512, [None] * 3, "tuned"),
        studies.runs("lamb", 512, values[:1], updates=120),
    )
    found = cells(tables.accuracy(study))
    percent = 100 * np.array(values)
    usual = f"{percent.mean():.2f} ± {percent.std(ddof=1):.2f}"
    assert found["sgd", "16 (5,400 updates)"] == usual
    assert found["lamb, tuned", "16 (5,400 updates)"] == usual
    assert found["sgd", "512 (120 updates)"] == "98.61 (n = 1), 2/3 diverged"
    assert found["lamb, tuned", "512 (120 updates)"] == "3/3 diverged"
    assert found["lamb", "16 (5,400 updates)"] == tables.NONE
    assert [row[0] for row in tables.accuracy(study).rows] == ["lamb", "lamb, tuned", "sgd"]


@pytest.mark.parametrize(("examples", "cell"), [(20, "99 ± 1"), (120, "99.2 ± 0.6")])
def test_few_held_out_examples_warrant_few_decimals(tmp_path, examples, cell):
    lines = studies.runs("sgd", 16, [0.9861111, 0.9916667, 0.9972222])
    study = study_of(tmp_path, lines, num_held_out_examples=examples)
    assert cells(tables.accuracy(study))["sgd", "16 (5,400 updates)"] == cell


def test_updates_to_the_target_are_medians_over_all_runs(tmp_path):
    runs = studies.runs("lamb", 16, [0.99, 0.98, None])
    late = studies.runs("lamb", 512, [0.97, 0.90, None])
    lost = studies.runs("sgd", 512, [0.9, 0.9])
    reached = {
        runs[0]["cell"]: [0.5, 0.98, 0.97],
        runs[1]["cell"]: [0.98, 0.98, 0.98],
        runs[2]["cell"]: [0.1],
        late[0]["cell"]: [0.5, 0.5, 0.98],
        late[1]["cell"]: [0.9, 0.9, 0.9],
        late[2]["cell"]: ["nan"],
        lost[0]["cell"]: [0.9, 0.9, 0.9],
    }
    curves = [
        line
        for run in (*runs, *late, *lost)
        if run["cell"] in reached
        for line in studies.curve(run, [1.0] * len(reached[run["cell"]]), reached[run["cell"]])
    ]
    study = study_of(tmp_path, runs, late, lost, curves=curves)
    # The lowest mean at batch 16 is lamb's, of 0.99 and 0.98.
    assert measures.target(study)[0] == pytest.approx(0.975)
    found = cells(tables.updates_to_target(study))
    assert found["lamb", "16 (5,400 updates)"] == "180 (2/3 reached)"  # 90, 180, never
    assert found["lamb", "512 (120 updates)"] == "not reached (1/3 reached)"
    assert found["sgd", "512 (120 updates)"] == "not reached (0/1 reached)"
    assert found["sgd", "16 (5,400 updates)"] == tables.NONE
    assert measures.updates_to_target(study, "untuned", "lamb", 16, 0.99).median == np.inf


def test_a_given_target_is_taken(tmp_path):
    study = study_of(tmp_path, studies.runs("lamb", 16, [0.99]), target=0.9)
    assert measures.target(study) == (0.9, "as given")


def test_a_sweep_tells_its_stable_rates(tmp_path):
    means = {0.001: [0.95, 0.97], 0.002: [0.98, 0.99], 0.004: [0.99, 0.99], 0.008: [0.99, None]}
    lines = [
        studies.runs("lamb", 512, values, "sweep", learning_rate=rate)
        for rate, values in reversed(means.items())
    ]
    lines.append(studies.runs("sgd", 512, [None], "sweep"))
    rows = search_tables.sweeps(study_of(tmp_path, *lines)).rows
    assert rows[0][:4] == ["lamb", "512", "0.001 to 0.008 (4)", "1"]
    assert rows[0][4:] == ["0.004", "99.00", "0.002 to 0.004", "2"]
    assert rows[1][:4] == ["sgd", "512", "0.003 to 0.003 (1)", "1"]
    ends = [studies.runs("lamb", 16, [0.9], "sweep", learning_rate=rate) for rate in (0.1, 0.4)]
    (row,) = search_tables.sweeps(study_of(tmp_path, *ends)).rows
    assert row[-2:] == ["≤ 0.1 to ≥ 0.4", "≥ 4"]  # the grid may be too narrow


def test_an_ablation_is_the_change_from_untuned(tmp_path):
    from scipy import stats

    usual, without = [0.99, 0.991, 0.995], [0.97, 0.98, 0.99]
    study = study_of(
        tmp_path,
        studies.runs("lamb", 512, usual),
        studies.runs("lamb", 512, without, "ablation", variant="bias_correction=false"),
    )
    (row,) = search_tables.ablations(study).rows
    low, high = stats.ttest_ind(without, usual, equal_var=False).confidence_interval(0.95)
    assert row[0] == "lamb, bias_correction=false"
    assert row[-1] == f"-1.20 [{100 * low:.2f}, {100 * high:.2f}]"


def test_the_winner_is_the_trial_that_the_tuned_runs_repeat(tmp_path):
    lines = [
        studies.runs("lamb", 512, [value], "trial", learning_rate=rate, trial=trial)
        for trial, (rate, value) in enumerate([(0.001, 0.99), (0.01, 0.98), (0.1, None)])
    ]
    study = study_of(tmp_path, *lines)
    assert search_tables.winners(study, "trial").rows == [
        ["lamb", "512", "3", "1", "not run yet", "–"]
    ]
    lines.append(studies.runs("lamb", 512, [0.97], "tuned", learning_rate=0.01))
    study = study_of(tmp_path, *lines)
    assert search_tables.winners(study, "trial").rows[0][4:] == [
        "0.01, warmup 0.2, wd 0.01",
        "98.00",
    ]
    lines[-1] = studies.runs("lamb", 512, [0.97], "tuned", learning_rate=0.001)
    words = search_tables.winners(study_of(tmp_path, *lines), "trial").rows[0][4]
    assert words == "0.001, warmup 0.2, wd 0.01; the lowest rate tried"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("study.json", None, "There is no study"),
        ("study.json", "{", "isn't JSON"),
        ("study.json", '{"metric": "accuracy"}', "lacks base_global_batch_size, optimizers"),
        ("results.csv", None, "No run of the study"),
        ("results.csv", "cell,group\n", "lacks the column optimizer"),
        ("results.csv", ",".join(studies.RESULTS) + "\n", "No run of the study"),
        ("results.csv", ",".join(studies.RESULTS) + "\na,b,c\n", "results.csv, line 2"),
        ("curves.csv", "cell,update\n", "lacks the column examples_seen, loss, val_metric"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, name, text, words):
    studies.write(tmp_path, studies.info(), studies.runs("lamb", 16, [0.99]))
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read(tmp_path)
