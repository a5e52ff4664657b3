"""First come first served and levelling against the printed loops."""

import numpy as np
import pytest

from tf_largebatch.kernels.assignment import first_come_first_served, level, shares

# Figure 2.3: a row a centre, a column a sample.
FIGURE_2_3 = np.array(
    [
        [5, 7, 3, 8, 2, 0, 8, 0],
        [4, 1, 6, 3, 7, 3, 9, 4],
        [1, 2, 8, 4, 4, 7, 6, 1],
        [3, 0, 4, 1, 6, 1, 4, 9],
    ]
).T


def algorithm_3(distances, quotas):
    """Lines 5-15, as printed."""
    sizes, chosen = [0] * len(quotas), []
    for row in distances:
        smallest, nearest = np.inf, None
        for j, distance in enumerate(row):
            if distance < smallest and sizes[j] < quotas[j]:
                smallest, nearest = distance, j
        sizes[nearest] += 1
        chosen.append(nearest)
    return chosen


def algorithm_4(labels, quotas, distances):
    """Lines 9-26, as printed."""
    labels = list(labels)
    sizes = [labels.count(j) for j in range(len(quotas))]
    for j in range(len(quotas)):
        while sizes[j] > quotas[j]:
            members = [i for i, label in enumerate(labels) if label == j]
            farthest = max(members, key=lambda i: (distances[i][j], -i))
            underloaded = [k for k in range(len(quotas)) if sizes[k] < quotas[k]]
            nearest = min(underloaded, key=lambda k: distances[farthest][k])
            labels[farthest] = nearest
            sizes[j] -= 1
            sizes[nearest] += 1
    return labels


def test_the_worked_example_of_figure_2_3():
    assert first_come_first_served(FIGURE_2_3, [2, 2, 2, 2]).tolist() == [2, 3, 0, 3, 0, 1, 2, 1]


@pytest.mark.parametrize("integers", [True, False], ids=["many ties", "no ties"])
def test_first_come_first_served_is_the_plain_loop(integers):
    random = np.random.default_rng(3)
    for _ in range(100):
        m, parts = random.integers(0, 60), random.integers(1, 9)
        distances = random.integers(0, 5, (m, parts)) if integers else random.random((m, parts))
        quotas = random.multinomial(m + random.integers(0, 4), random.dirichlet(np.ones(parts)))
        expected = algorithm_3(distances, quotas)
        assert first_come_first_served(distances, quotas).tolist() == expected


def test_slices_leave_no_seam():
    distances = np.random.default_rng(0).random((10_000, 7))
    quotas = [3000, 100, 5000, 400, 500, 600, 400]
    expected = algorithm_3(distances, quotas)
    assert first_come_first_served(distances, quotas).tolist() == expected
    in_turns = first_come_first_served(lambda rows: distances[rows], quotas, np.arange(10_000))
    assert in_turns.tolist() == expected


def test_the_queue_has_its_own_order():
    rows = np.array([7, 5, 4, 0])
    served = first_come_first_served(FIGURE_2_3, [1, 1, 1, 1], rows)
    assert served.tolist() == algorithm_3(FIGURE_2_3[rows], [1, 1, 1, 1])


@pytest.mark.parametrize("quotas", [[1, 2], [4, -1]])
def test_too_few_places_are_refused(quotas):
    with pytest.raises(ValueError, match="must be 0 or more and hold all 4 rows. Received"):
        first_come_first_served(np.zeros((4, 2)), quotas)


def test_levelling_is_the_printed_loop():
    random = np.random.default_rng(5)
    for _ in range(100):
        m, parts = random.integers(1, 60), random.integers(1, 7)
        distances = random.integers(0, 9, (m, parts))
        labels = random.choice(parts, m, p=random.dirichlet(np.ones(parts)))
        quotas = random.multinomial(m, np.ones(parts) / parts)
        expected = algorithm_4(labels, quotas, distances)
        assert level(labels, quotas, distances).tolist() == expected
        assert level(labels, quotas, lambda rows, d=distances: d[rows]).tolist() == expected


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_even_shares_are_even_in_each_group_and_together(parts):
    random = np.random.default_rng(parts)
    for _ in range(50):
        groups = random.integers(0, 30, random.integers(1, 6))
        dealt = shares(groups, [1] * parts)
        assert (dealt.sum(axis=1) == groups).all()
        for cells in [*dealt, dealt.sum(axis=0)]:
            assert cells.max() - cells.min() <= 1


def test_weighted_shares_are_within_one_row_of_the_exact_ones():
    random = np.random.default_rng(1)
    for _ in range(50):
        weights = random.integers(0, 40, 6) + np.eye(6, dtype=int)[0]
        groups = random.integers(0, 50, 4)
        dealt = shares(groups, weights)
        exact = groups[:, None] * weights / weights.sum()
        assert (dealt.sum(axis=1) == groups).all()
        assert (np.floor(exact) <= dealt).all() and (dealt <= np.ceil(exact)).all()
