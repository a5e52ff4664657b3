"""The verdict says what the numbers show: equal, better, worse, diverged, not known."""

import pytest

import studies
from tf_largebatch.study._reading import read
from tf_largebatch.study._verdict import comparison, drop, holds, match, sentences

GOOD = [0.990, 0.992, 0.991]
SAME = [0.991, 0.993, 0.990]
WORSE = [0.960, 0.962, 0.961]


def study_of(folder, *lines, **info):
    return read(
        studies.write(folder, studies.info(**info), [run for some in lines for run in some])
    )


@pytest.mark.parametrize(
    ("package", "baseline", "winner", "words"),
    [
        (GOOD, SAME, "equal", "sgd is as good as lamb;"),
        (WORSE, GOOD, "baseline", "sgd is better than lamb;"),
        (GOOD, WORSE, "package", "lamb is better than sgd;"),
        (GOOD[:1], WORSE[:1], "unknown", "as lamb isn't known, lamb's mean is higher;"),
        (WORSE[:1], GOOD[:1], "unknown", "as lamb isn't known, sgd's mean is higher;"),
        ([0.99] * 3, [0.98] * 3, "unknown", "isn't known, lamb's mean is higher;"),
        ([0.99, 0.991, None], WORSE, "baseline", "sgd is better than lamb;"),
        (WORSE, [None] * 3, "package", "lamb is better than sgd;"),
        ([None] * 3, [None] * 3, "unknown", "isn't known;"),
    ],
)
def test_the_best_baseline_is_judged_as_the_package_is(tmp_path, package, baseline, winner, words):
    lines = studies.runs("lamb", 512, package), studies.runs("sgd", 512, baseline)
    found = match(study_of(tmp_path, *lines), "untuned", 512)
    assert found.winner == winner
    assert words in comparison(found, 2)


def test_the_verdict_is_the_same_with_the_sides_exchanged(tmp_path):
    """Nothing but the names decides who is the baseline."""
    exchanged = {"equal": "equal", "baseline": "package", "package": "baseline"}
    values = [GOOD, SAME, WORSE, [None, *GOOD[1:]]]
    for one in values:
        for other in values:
            winners = []
            for mine, theirs in ((one, other), (other, one)):
                lines = studies.runs("lars", 512, mine), studies.runs("adam", 512, theirs)
                winners.append(match(study_of(tmp_path, *lines), "untuned", 512).winner)
            assert winners[1] == exchanged[winners[0]], (one, other)


def test_the_best_of_each_side_is_compared(tmp_path):
    lines = [
        studies.runs("lamb", 512, WORSE),
        studies.runs("nlamb_l2+", 512, GOOD),
        studies.runs("keras_lamb", 512, [0.999, 0.998, None]),  # a mean over the survivors
        studies.runs("muon", 512, WORSE),
        studies.runs("adamw", 512, SAME),
        studies.runs("sgd", 512, [0.999] * 3, "tuned"),  # not against untuned ones
    ]
    study = study_of(tmp_path, *lines)
    found = match(study, "untuned", 512)
    assert (found.package.optimizer, found.baseline.optimizer) == ("nlamb_l2+", "adamw")
    assert match(study, "tuned", 512) is None


def test_an_equal_verdict_says_how_little_it_may_show(tmp_path):
    lines = studies.runs("lamb", 512, [0.99, 0.95]), studies.runs("sgd", 512, [0.98, 0.93])
    said = comparison(match(study_of(tmp_path, *lines), "untuned", 512), 1)
    assert "sgd is as good as lamb" in said
    assert "up to" in said and "isn't ruled out" in said


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([0.991, 0.990, 0.992], 0.5),
        ([0.994, 0.995, 0.996], 0.5),  # a gain
        ([0.987, 0.986, 0.985], 1.0),
        ([0.984, 0.990, 0.979], "open"),
        ([0.970, 0.971, 0.969], "loses"),
        ([0.991, None, 0.992], "diverges"),
        ([0.991], "unknown"),
        ([], "unknown"),
    ],
)
def test_holding_needs_the_whole_interval(tmp_path, values, word):
    study = study_of(tmp_path, studies.runs("lamb", 16, GOOD), studies.runs("lamb", 512, values))
    assert holds(study, "untuned", "lamb", 512) == word


def test_a_base_batch_that_diverges_is_no_reference(tmp_path):
    lines = studies.runs("lamb", 16, [None, *GOOD[1:]]), studies.runs("lamb", 512, GOOD)
    assert holds(study_of(tmp_path, *lines), "untuned", "lamb", 512) == "unknown"


def test_tuned_runs_are_measured_from_tuned_ones_if_there_are_any(tmp_path):
    lines = [
        studies.runs("lamb", 16, GOOD),
        studies.runs("sgd", 16, GOOD),
        studies.runs("sgd", 16, WORSE, "tuned"),
        *(studies.runs(name, 512, SAME, "tuned") for name in ("lamb", "sgd")),
    ]
    study = study_of(tmp_path, *lines)
    assert drop(study, "tuned", "lamb", 512)[0] == "untuned"
    reference, found = drop(study, "tuned", "sgd", 512)
    assert reference == "tuned"
    assert found.value == pytest.approx(96.1 - 99.1333333)


def test_the_base_is_the_smallest_batch_where_the_recipes_is_not_run(tmp_path):
    lines = studies.runs("lamb", 64, WORSE), studies.runs("lamb", 512, GOOD)
    study = study_of(tmp_path, *lines, batch_sizes=[64, 512])
    assert drop(study, "untuned", "lamb", 512)[1].value == pytest.approx(96.1 - 99.1)


def test_the_sentences_name_every_optimizer_of_the_largest_batch(tmp_path):
    lines = [
        *(studies.runs(name, 16, GOOD) for name in ("lamb", "sgd", "muon", "adam")),
        studies.runs("lamb", 512, WORSE),
        studies.runs("sgd", 512, GOOD),
        studies.runs("muon", 512, [None, *GOOD[1:]]),
        studies.runs("adam", 512, [None] * 3),
    ]
    (about, held), (_, compared) = sentences(study_of(tmp_path, *lines))
    assert about == "Batch 512, untuned, drop from batch 16 in points"
    assert held == (
        "hold within 0.5 points: sgd 0.00; lose more than 1.0 points: lamb 3.00; "
        "diverge: adam in 3 of 3, muon in 1 of 3."
    )
    assert compared.startswith("sgd is better than lamb; lamb 96.10 (n = 3) against sgd 99.10")


def test_a_study_of_one_side_says_that_nothing_is_compared(tmp_path):
    said = sentences(study_of(tmp_path, studies.runs("lamb", 16, GOOD)))
    assert said == [("No comparison", "no baseline is in the accuracy runs.")]
