"""Thresholds and sizes: what each point finds is known from the map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from shivacmb.evaluate import from_probability, rule_sets, score_scan
from shivacmb.evaluate.scores import Counts
from shivacmb.evaluate.sweeps import (
    MIN_VOXELS,
    THRESHOLDS,
    Point,
    choose,
    froc,
    points,
    sweep_scan,
)

RULE = rule_sets(['shiva'])[0]


def test_the_papers_grid() -> None:
    assert THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert tuple(range(1, 11)) == MIN_VOXELS


@pytest.fixture
def swept(make_lesions: Any) -> Any:
    prob = np.zeros((40, 40, 40), np.float32)
    prob[5:8, 5, 5] = 0.8  # on a lesion, 3 voxels
    prob[20:25, 5, 5] = 0.4  # on a lesion, 5 voxels
    prob[5, 30, 5:7] = 0.6  # wrong, 2 voxels
    prob[30, 30, 30] = 1.0  # wrong, 1 voxel
    truth = make_lesions(((5, 5, 5), (3, 1, 1)), ((20, 5, 5), (3, 1, 1)), ((1, 1, 1), (1, 1, 1)))
    return sweep_scan(prob, np.eye(4), truth, RULE)


def at(table: Any, threshold: float, least: int) -> list[int]:
    cell: list[int] = table[THRESHOLDS.index(threshold), MIN_VOXELS.index(least)].tolist()
    return cell


def test_each_point_counts_what_is_there(swept: Any) -> None:
    # n_pred, n_truth, tp_pred, tp_truth; the lesion of one voxel never takes part
    assert at(swept, 0.4, 1) == [4, 2, 2, 2]  # 0.4 itself passes at 0.4
    assert at(swept, 0.5, 1) == [3, 2, 1, 1]
    assert at(swept, 0.4, 2) == [3, 2, 2, 2]
    assert at(swept, 0.4, 3) == [2, 2, 2, 2]
    assert at(swept, 0.4, 4) == [1, 2, 1, 1]
    assert at(swept, 1.0, 1) == [1, 2, 0, 0]
    assert at(swept, 0.1, 10) == [0, 2, 0, 0]


def test_every_rule_counts_as_it_does_for_the_scores(make_lesions: Any) -> None:
    prob = np.zeros((40, 40, 40), np.float32)
    prob[9, 10, 10] = prob[11, 10, 10] = 0.8  # as far from the lesion: VALDO counts both
    truth = make_lesions(((10, 10, 10), (1, 1, 1)), ((30, 30, 30), (3, 3, 3)))
    pred = from_probability(prob, np.eye(4), threshold=0.5)
    for rule in rule_sets(shiva_min_voxels=1, shiva_over_mm3=0.0):
        counts = score_scan(rule, pred, truth).counts
        table = sweep_scan(prob, np.eye(4), truth, rule, thresholds=(0.5,), min_voxels=(1,))
        assert Counts(*table[0, 0].tolist()) == counts, rule.name


def test_scans_are_pooled_point_by_point(swept: Any) -> None:
    empty = np.zeros_like(swept)
    found = points(np.stack([swept, empty]), THRESHOLDS, MIN_VOXELS)
    assert len(found) == 100
    best = choose(found, 'f1')
    assert best is not None
    assert (best.threshold, best.min_voxels, best.f1) == (0.4, 3, 1.0)
    assert best.scans == 2
    assert best.f1_per_scan == 1.0
    first = found[0]
    assert first.fp_per_scan == 1.0
    # scan F1 2*2/(2*2 + 0 + 2), and 1 for the scan with nothing
    assert first.f1_per_scan == pytest.approx((2 / 3 + 1) / 2)


def point(threshold: float, pred: int, hits: int, least: int = 3) -> Point:
    return Point(threshold, least, Counts(pred, 10, hits, hits), 0.5, 4)


def test_criteria_choose_different_points() -> None:
    found = [point(0.1, 30, 9), point(0.5, 13, 7), point(0.9, 4, 4)]
    chosen = {
        name: choose(found, name).threshold  # type: ignore[union-attr]
        for name in ('f1', 'sensitivity-at-2-fp', 'sensitivity-at-1-fp')
    }
    # F1 18/40, 14/23, 8/14; FP per scan 21/4, 6/4, 0
    assert chosen == {'f1': 0.5, 'sensitivity-at-2-fp': 0.5, 'sensitivity-at-1-fp': 0.9}


def test_ties_go_to_the_higher_threshold_and_the_smaller_size() -> None:
    found = [point(0.3, 5, 5), point(0.5, 5, 5, 4), point(0.5, 5, 5, 2), point(0.4, 5, 5)]
    best = choose(found, 'f1')
    assert best is not None
    assert (best.threshold, best.min_voxels) == (0.5, 2)


def test_no_point_without_any_lesion_or_prediction() -> None:
    assert choose([Point(0.5, 3, Counts(0, 0, 0, 0), 1.0, 2)], 'f1') is None
    assert choose([point(0.1, 90, 9)], 'sensitivity-at-1-fp') is None
    with pytest.raises(ValueError, match='criterion is one of'):
        choose([], 'best')


def test_froc_takes_the_best_within_each_rate() -> None:
    found = [point(0.1, 30, 9), point(0.5, 13, 7), point(0.9, 4, 4)]
    assert dict(froc(found)) == {
        0.125: 0.4, 0.25: 0.4, 0.5: 0.4, 1.0: 0.4, 2.0: 0.7, 4.0: 0.7, 8.0: 0.9,
    }  # fmt: skip
    assert dict(froc([point(0.5, 90, 9)]))[1.0] == 0.0


def test_values_without_lesions_or_predictions() -> None:
    nothing = Point(0.5, 3, Counts(0, 0, 0, 0), 1.0, 2)
    assert math.isnan(nothing.sensitivity)
    assert math.isnan(nothing.precision)
    assert nothing.fp_per_scan == 0
