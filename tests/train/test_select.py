from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.simulate.dataset import LESION, UNSURE
from shivacmb.train.predict import centroids, clusters, false_positives
from shivacmb.train.select import Score, choose, pool_scores, score_scan

SHAPE = (30, 30, 30)


def point(scores: list[Score], threshold: float, least: int) -> Score:
    return next(s for s in scores if (s.threshold, s.min_voxels) == (threshold, least))


@pytest.fixture
def truth() -> tuple[np.ndarray, np.ndarray, list[dict]]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:7, 5:7, 5:7] = 1
    labels[20:22, 20:22, 20:22] = 2
    flags = np.where(labels > 0, LESION, 0).astype(np.uint8)
    flags[12, 25, 5] |= UNSURE
    rows = [
        {'number': 1, 'visible': True, 'radius': 1.0, 'voxel': [5, 5, 5]},
        {'number': 2, 'visible': True, 'radius': 2.5, 'voxel': [20, 20, 20]},
        {'number': 3, 'visible': False, 'radius': 1.0, 'voxel': [12, 25, 5]},
    ]
    return flags, labels, rows


def test_hits_misses_and_false_positives_are_counted(truth: tuple) -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[6:8, 6:8, 6:8] = 0.96  # touches lesion 1
    probability[20, 20, 23] = 0.96  # 3 mm from lesion 2, too small for 2 voxels
    probability[12, 25, 5:7] = 0.96  # a lesion that nobody could see: excused
    probability[15:17, 5, 5] = 0.96  # nothing there
    scores = score_scan(probability, *truth)
    small = point(scores, 0.95, 2)
    assert (small.hits, small.visible, small.false) == (1, 2, 1)
    assert (small.hits_large, small.visible_large) == (0, 1)
    assert point(scores, 0.97, 2).false == 0
    assert point(scores, 0.95, 3).false == 0


def test_a_near_centroid_is_a_hit(truth: tuple) -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[20, 20, 23:25] = 0.9
    score = point(score_scan(probability, *truth), 0.9, 2)
    assert (score.hits, score.false) == (1, 0)
    probability[:] = 0
    probability[20, 20, 25:27] = 0.9
    score = point(score_scan(probability, *truth), 0.9, 2)
    assert (score.hits, score.false) == (0, 1)


def test_clusters_in_fluid_do_not_count(truth: tuple) -> None:
    probability = truth[1].astype(np.float32)
    probability[15:17, 5, 5] = 0.96
    zones = np.full(SHAPE, 12, np.uint8)
    zones[10:] = 7
    for least, expected in ((0.0, (2, 1)), (0.5, (1, 0))):
        scores = score_scan(probability, *truth, zones=zones, min_parenchyma=least)
        score = point(scores, 0.95, 2)
        assert (score.hits, score.false) == expected
    assert point(score_scan(probability, *truth, min_parenchyma=0.5), 0.95, 2).hits == 2


def test_an_empty_prediction_scores_nothing(truth: tuple) -> None:
    scores = score_scan(np.zeros(SHAPE, np.float32), *truth)
    assert all((s.hits, s.false) == (0, 0) for s in scores)


def test_pooling_adds_up(truth: tuple) -> None:
    probability = truth[1].astype(np.float32)
    table = score_scan(probability, *truth)
    pooled = point(pool_scores([table, table, table]), 0.5, 2)
    assert (pooled.hits, pooled.visible, pooled.scans) == (6, 6, 3)
    assert pooled.sensitivity == 1
    assert pooled.f1 == 1


def test_the_best_f1_below_the_limit_is_chosen() -> None:
    base = Score(0.5, 3, 0, 10, 0, 0, 0, 5)
    loud = replace(base, threshold=0.3, hits=10, false=6)  # F1 0.77, but 1.2 per scan
    more = replace(base, threshold=0.5, hits=8, false=5)  # F1 0.70
    good = replace(base, threshold=0.6, hits=7, false=1)  # F1 0.78
    mute = replace(base, threshold=0.9, hits=2, false=0)
    assert choose([loud, more, good, mute], 1.0) == good
    assert choose([loud], 1.0) == loud


def test_of_much_the_same_f1_the_most_sensitive_is_chosen() -> None:
    base = Score(0.8, 2, 80, 100, 0, 0, 10, 30)  # F1 0.842
    near = replace(base, threshold=0.7, hits=84, false=17)  # 0.836
    far = replace(base, threshold=0.6, hits=86, false=30)  # 0.796
    loud = replace(base, threshold=0.5, hits=95, false=31)  # 0.841, more than one per scan
    assert choose([base, near, far, loud], 1.0) == near
    assert choose([base, near, far, loud], 1.0, slack=0.0) == base


def test_lesion_free_scans_with_more_than_one_false_positive_are_counted(truth: tuple) -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[5:7, 5, 5] = probability[20:22, 5, 5] = 0.96
    probability[5:7, 25, 5] = 0.85
    nothing = np.zeros(SHAPE, np.uint8)
    scores = score_scan(probability, nothing, nothing, [])
    counts = {t: point(scores, t, 2) for t in (0.8, 0.95, 0.97)}
    assert {t: s.false for t, s in counts.items()} == {0.8: 3, 0.95: 2, 0.97: 0}
    assert {t: s.crowded for t, s in counts.items()} == {0.8: 1, 0.95: 1, 0.97: 0}
    assert {s.lesion_free for s in counts.values()} == {1}
    # where there is a lesion to be seen, false positives are counted in `false` alone
    assert all((s.lesion_free, s.crowded) == (0, 0) for s in score_scan(probability, *truth))
    pooled = point(pool_scores([scores, scores, score_scan(probability, *truth)]), 0.8, 2)
    assert (pooled.lesion_free, pooled.crowded, pooled.scans) == (2, 2, 3)


def test_centroids_agree_with_scipy() -> None:
    noise = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    labels, count = clusters(noise, 0.97)
    _, expected = ndimage.label(noise >= 0.97, np.ones((3, 3, 3)))
    assert count == expected
    wanted = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
    np.testing.assert_allclose(centroids(labels, count), wanted)


def test_false_positives_are_sorted_and_leave_lesions_out(truth: tuple) -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[5, 5, 5] = 0.99
    probability[5, 5, 9] = 0.9  # two voxels off the dilated lesion
    probability[15, 15, 15] = 0.7
    probability[25, 5, 5] = 0.8
    found = false_positives(probability, truth[0], 0.3)
    assert found.tolist() == [[5, 5, 9], [25, 5, 5], [15, 15, 15]]
    assert len(false_positives(probability, truth[0], 0.3, most=1)) == 1
    assert len(false_positives(np.zeros(SHAPE, np.float32), truth[0], 0.3)) == 0
