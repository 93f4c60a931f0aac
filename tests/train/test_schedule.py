"""The learning rate against values worked out by hand."""

from __future__ import annotations

import pytest

from shivacmb.train.schedule import Cycle


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        # half = 4: up in 4 steps, down in 4; x = |i/4 - 2c + 1|
        (0, 1e-6),  # c = 1, x = 1
        (1, 1e-6 + 0.25 * (1e-3 - 1e-6) * 0.5),  # x = 0.75
        (4, 1e-6 + (1e-3 - 1e-6) * 0.5**4),  # x = 0
        (6, 1e-6 + 0.5 * (1e-3 - 1e-6) * 0.5**6),  # x = 0.5
        (8, 1e-6),  # c = 2, x = 1
        (12, 1e-6 + (1e-3 - 1e-6) * 0.5**12),  # x = |3 - 4 + 1| = 0
    ],
)
def test_the_rate_follows_the_formula(step: int, expected: float) -> None:
    assert Cycle(1e-6, 1e-3, half=4, decay=0.5)(step) == pytest.approx(expected, rel=1e-12)


def test_without_decay_every_cycle_reaches_the_top() -> None:
    cycle = Cycle(half=10, decay=1.0)
    rates = [cycle(step) for step in range(60)]
    assert [step for step, rate in enumerate(rates) if rate == pytest.approx(1e-3)] == [10, 30, 50]
    assert min(rates) == pytest.approx(1e-6)
