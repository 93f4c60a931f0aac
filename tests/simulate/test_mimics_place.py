from __future__ import annotations

import numpy as np

from shivacmb.simulate.mimics import blob_factor
from shivacmb.simulate.mimics_place import _half_axes


def test_no_blob_has_the_form_and_size_of_a_microbleed() -> None:
    rng = np.random.default_rng(0)
    axes = np.array([_half_axes(rng) for _ in range(500)])
    elongation = axes.max(axis=1) / np.median(axes, axis=1)
    round_ones = elongation < 2
    # a microbleed is round and 2 to 10 mm across
    assert axes[round_ones].min() >= 6
    assert elongation[~round_ones].min() > 3
    assert 0.5 < round_ones.mean() < 0.7


def test_the_smallest_round_blob_still_looks_wider_than_10_mm() -> None:
    line = np.arange(-12.0, 13)
    grid = np.stack(np.meshgrid(line, line, line, indexing='ij'), axis=-1)
    for seed in range(8):
        lost = 1 - blob_factor(np.random.default_rng(seed), grid, np.full(3, 6.0), 0.8)
        volume = float((lost > 0.5 * lost.max()).sum())
        assert (6 * volume / np.pi) ** (1 / 3) > 10
