"""The operating point: what counts as found, and which point is best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shivacmb.train.labels import IGNORED
from shivacmb.train.operating import choose_point, points_table, score_volume, soft_dice
from shivacmb.train.select import Score
from shivacmb.train.volumes import Volume

SHAPE = (24, 24, 24)


def volume(classes: np.ndarray) -> Volume:
    brain = np.ones(SHAPE, np.uint8)
    brain[:2] = 0
    return Volume(np.zeros((*SHAPE, 1), np.float32), classes, brain, {})


@pytest.fixture
def truth() -> np.ndarray:
    classes = np.zeros(SHAPE, np.uint8)
    classes[5:7, 5:7, 5:7] = 1
    classes[15:19, 15:19, 15:19] = 1
    classes[10, 10, 10] = 2
    return classes


def at(scores: list[Score], threshold: float, least: int) -> Score:
    return next(s for s in scores if (s.threshold, s.min_voxels) == (threshold, least))


def test_the_truth_itself_finds_everything(truth: np.ndarray) -> None:
    scores = score_volume((truth == 1).astype(np.float32), volume(truth), 1)
    point = at(scores, 0.5, 3)
    assert (point.hits, point.visible, point.false) == (2, 2, 0)
    assert (point.hits_large, point.visible_large) == (1, 1)
    # but for what its box leaves out
    scores = score_volume((truth == 1).astype(np.float32), volume(truth), 1, outside=3)
    assert (at(scores, 0.5, 3).hits, at(scores, 0.5, 3).visible) == (2, 5)


def test_half_a_brain_finds_nothing(truth: np.ndarray) -> None:
    point = at(score_volume(np.full(SHAPE, 0.9, np.float32), volume(truth), 1), 0.5, 3)
    assert (point.hits, point.false) == (0, 1)


def test_one_cluster_finds_one_lesion(truth: np.ndarray) -> None:
    bridge = (truth == 1).astype(np.float32)
    for step in range(6, 16):
        bridge[step, step, step] = 1
    point = at(score_volume(bridge, volume(truth), 1), 0.5, 3)
    assert (point.hits, point.false) == (1, 0)


def test_a_second_cluster_on_a_lesion_is_neither_hit_nor_false(truth: np.ndarray) -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[15, 15:19, 15:19] = 0.8
    probability[18, 15:19, 15:19] = 0.8
    probability[10:12, 20, 20] = 0.8
    probability[0, 5:9, 5:9] = 0.8  # outside the brain
    point = at(score_volume(probability, volume(truth), 1), 0.5, 2)
    assert (point.hits, point.false) == (1, 1)
    assert at(score_volume(probability, volume(truth), 1), 0.5, 3).false == 0


def test_what_lies_on_ignored_voxels_is_excused(truth: np.ndarray) -> None:
    classes = truth.copy()
    classes[20:, 20:, 20:] = IGNORED
    probability = np.zeros(SHAPE, np.float32)
    probability[21, 21, 21:24] = 1
    assert at(score_volume(probability, volume(classes), 1), 0.5, 2).false == 0
    assert at(score_volume(probability, volume(truth), 1), 0.5, 2).false == 1


def test_dice_by_hand(truth: np.ndarray) -> None:
    probability = np.where(truth == 1, 0.5, 0).astype(np.float32)
    probability[10, 10, 12] = 1
    shared, both = soft_dice(probability, volume(truth), 1)
    assert shared == pytest.approx(2 * 0.5 * 72)
    assert both == pytest.approx(72 + 0.5 * 72 + 1)


def test_the_best_f1_is_chosen_and_ties_go_to_the_paper() -> None:
    base = Score(0.5, 3, hits=5, visible=10, hits_large=0, visible_large=0, false=2, scans=4)
    better = replace(base, threshold=0.3, hits=7, false=1)
    quiet = replace(base, hits=0, false=0)
    assert choose_point([base, better, quiet]) == better
    nothing = [replace(quiet, threshold=t, min_voxels=m) for t in (0.2, 0.4, 0.9) for m in (2, 3)]
    assert choose_point(nothing) == replace(quiet, threshold=0.4, min_voxels=3)


def test_the_table_holds_every_point(truth: np.ndarray, tmp_path: Path) -> None:
    scores = score_volume((truth == 1).astype(np.float32), volume(truth), 1)
    rows = points_table(scores).splitlines()
    assert len(rows) == len(scores) + 1
    assert rows[1].split('\t')[2:] == ['1.0000', '0.0000', '1.0000', '2', '2']
