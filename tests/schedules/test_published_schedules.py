"""LEGW and phases give the rates that the papers print."""

import math

import pytest

from schedule_cases import polynomial
from tf_largebatch.schedules import LEGW, Phases


# Table 6.5 at every batch size: peak, updates and warmup from its first row.
@pytest.mark.parametrize("x", range(7))
def test_legw_gives_the_bert_table(x):
    schedule = LEGW(5 / 8e3, 1 / 320, 512, 512 * 2**x, num_examples=512_000_000, epochs=1)
    assert schedule.peak_learning_rate == pytest.approx(5 / (2 ** (3 - x / 2) * 1e3), rel=1e-14)
    assert schedule.total_updates == [1000_000, 500_000, 250_000, 125_000, 62500, 31250, 15625][x]
    assert schedule.warmup_updates == 3125
    after_warmup = schedule.peak_learning_rate * (1 - 2**x / 320)  # the printed ratio, 1/5 at 32K
    assert float(schedule(3125)) == pytest.approx(after_warmup, rel=1e-6)


@pytest.mark.parametrize("batch_size", [300, 512, 1000, 32768])
def test_legw_keeps_the_number_of_warmup_updates(batch_size):
    schedule = LEGW(
        *(0.005, 0.3125, 512, batch_size), num_examples=1281167, epochs=90, rule="linear", power=2
    )
    assert schedule.warmup_updates == 782
    assert schedule.peak_learning_rate == pytest.approx(0.005 * batch_size / 512)
    total = schedule.total_updates
    assert total == math.floor(90 * 1281167 / batch_size + 0.5)
    expected = polynomial(1000, schedule.peak_learning_rate, total, 2)
    assert float(schedule(1000)) == pytest.approx(expected, rel=1e-6)


def test_the_rate_is_warmed_up_from_zero_again_at_the_phase_switch():
    # Mixed-batch BERT: 9/10 of the sequences at 64K, 1/10 at 32K.
    row = (5 / 8e3, 1 / 320, 512)
    first = LEGW(*row, 65536, num_examples=512_000_000, epochs=0.9)
    second = LEGW(*row, 32768, num_examples=512_000_000, epochs=0.25)
    switch = first.total_updates
    assert switch == 7031
    schedule = Phases([(switch, first), (second.total_updates, second)])
    peak = 5e-3
    assert float(schedule(switch - 1)) == pytest.approx(peak * math.sqrt(2) / 7031, rel=1e-5)
    assert float(schedule(switch)) == 0
    assert float(schedule(switch + 100)) == pytest.approx(peak * 100 / 3125, rel=1e-6)
    assert float(schedule(switch + 3125)) < float(schedule(switch + 3124))
    assert schedule.total_updates == switch + second.total_updates
