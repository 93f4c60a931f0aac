"""Each rule against cases worked out by hand: the numbers in comments are the reasoning."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shivacmb.evaluate import (
    from_mask,
    match_nearest,
    match_optimal,
    match_touch,
    match_within,
)
from shivacmb.evaluate.matching import distances, overlaps

ONE = (1, 1, 1)


def hits(match: Any) -> tuple[int, int, int, int]:
    return match.tp_pred, match.tp_truth, match.fp, match.fn


@pytest.mark.parametrize('angles', [(0, 0), (7, 3), (-11, 20), (1, -2)])
@pytest.mark.parametrize('tolerance', [3, 5])
def test_distance_at_the_tolerance_is_no_hit_however_the_grid_lies(
    tolerance: int, angles: tuple[float, float]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler('zx', angles, degrees=True).as_matrix()
    affine[:3, 3] = -87.3, 101.9, -44.1
    affine = affine.astype(np.float32).astype(float)  # as a header stores it
    number = 30
    places = np.random.default_rng(1).integers(0, 150, (number, 3)).astype(float)
    for apart, found in ((tolerance, 0), (tolerance - 0.01, number)):
        moved = places + np.array([apart, 0, 0])
        first, second = (at @ affine[:3, :3].T + affine[:3, 3] for at in (places, moved))
        away = np.linalg.norm(first - second, axis=1)
        pairs = np.where(np.eye(number, dtype=bool), away, 99.0)
        for match in (match_within, match_nearest, match_optimal):
            assert match(pairs, tolerance).tp_truth == found


def test_one_prediction_over_two_lesions(make_lesions: Any) -> None:
    truth = make_lesions(((5, 5, 5), (2, 2, 2)), ((9, 5, 5), (2, 2, 2)))
    pred = make_lesions(((5, 5, 5), (6, 2, 2)))  # centre 7.5, lesions at 5.5 and 9.5
    away = distances(pred, truth, 'mm')
    np.testing.assert_allclose(away, [[2, 2]])
    assert hits(match_touch(overlaps(pred, truth))) == (1, 2, 0, 0)
    assert hits(match_within(away, 3)) == (1, 2, 0, 0)
    assert hits(match_nearest(away, 3)) == (1, 1, 0, 1)
    assert hits(match_optimal(away, 3)) == (1, 1, 0, 1)


def test_two_fragments_on_one_lesion(make_lesions: Any) -> None:
    truth = make_lesions(((5, 5, 5), (6, 2, 2)))  # centre 7.5
    pred = make_lesions(((5, 5, 5), (2, 2, 2)), ((10, 5, 5), (1, 2, 2)))  # centres 5.5 and 10
    away = distances(pred, truth, 'mm')
    np.testing.assert_allclose(away, [[2], [2.5]])
    assert hits(match_touch(overlaps(pred, truth))) == (2, 1, 0, 0)
    assert hits(match_within(away, 3)) == (2, 1, 0, 0)
    nearest = match_nearest(away, 3)
    assert hits(nearest) == (1, 1, 1, 0)
    assert nearest.pred_hit.tolist() == [True, False]
    assert nearest.partner.tolist() == [0, 0]  # the loser still counts in VALDO's Dice
    assert hits(match_optimal(away, 3)) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ('predictions', 'truths', 'expected'),
    [(0, 0, (0, 0, 0, 0)), (2, 0, (0, 0, 2, 0)), (0, 3, (0, 0, 0, 3))],
)
def test_empty_sides(
    make_lesions: Any, predictions: int, truths: int, expected: tuple[int, int, int, int]
) -> None:
    pred = make_lesions(*[((3 * n, 1, 1), ONE) for n in range(predictions)])
    truth = make_lesions(*[((3 * n, 1, 1), ONE) for n in range(truths)])
    assert hits(match_touch(overlaps(pred, truth))) == expected
    away = distances(pred, truth, 'mm')
    assert away.shape == (predictions, truths)
    for rule in (match_within, match_nearest, match_optimal):
        assert hits(rule(away, 3.0)) == expected


def test_touching_at_a_corner_is_one_cluster_but_no_shared_voxel() -> None:
    pred, truth = np.zeros((8, 8, 8)), np.zeros((8, 8, 8))
    pred[2:4, 2:4, 2:4] = 1
    truth[4:6, 4:6, 4:6] = 1
    assert len(from_mask(pred + truth, np.eye(4))) == 1
    found, lesion = from_mask(pred, np.eye(4)), from_mask(truth, np.eye(4))
    assert hits(match_touch(overlaps(found, lesion))) == (0, 0, 1, 1)
    truth[3, 3, 3] = 1  # now one voxel is shared
    assert hits(match_touch(overlaps(found, from_mask(truth, np.eye(4))))) == (1, 1, 0, 0)


def test_anisotropic_voxels_make_mm_and_voxels_differ(make_lesions: Any) -> None:
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    truth = make_lesions(((5, 5, 5), ONE), affine=affine)
    pred = make_lesions(((5, 5, 7), ONE), affine=affine)
    assert distances(pred, truth, 'voxel')[0, 0] == 2
    assert distances(pred, truth, 'mm')[0, 0] == 3
    assert hits(match_within(distances(pred, truth, 'voxel'), 3)) == (1, 1, 0, 0)
    # exactly the tolerance away is not below it
    assert hits(match_within(distances(pred, truth, 'mm'), 3)) == (0, 0, 1, 1)


def test_distance_follows_an_oblique_affine(make_lesions: Any) -> None:
    turn = np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, -4], [0, 0, 2, 9], [0, 0, 0, 1]])
    truth, pred = (
        make_lesions(((5, 5, 5), ONE), affine=turn),
        make_lesions(((8, 9, 5), ONE), affine=turn),
    )
    assert distances(pred, truth, 'mm')[0, 0] == pytest.approx(5)


def test_equal_distances() -> None:
    # both predictions are exactly as near to the only lesion: VALDO's code counts both
    both = match_nearest(np.array([[1.0], [1.0]]), 3)
    assert (both.tp_pred, both.tp_truth) == (2, 1)
    assert hits(match_optimal(np.array([[1.0], [1.0]]), 3)) == (1, 1, 1, 0)
    # one prediction exactly between two lesions goes to the first
    between = match_nearest(np.array([[1.0, 1.0]]), 3)
    assert between.truth_hit.tolist() == [True, False]


def test_loser_of_the_nearest_rule_is_not_given_the_free_lesion() -> None:
    # prediction 0 is 1 from lesion 0, prediction 1 is 1.5 from lesion 0 and 2 from lesion 1
    away = np.array([[1.0, 9.0], [1.5, 2.0]])
    assert hits(match_nearest(away, 3)) == (1, 1, 1, 1)
    assert hits(match_optimal(away, 3)) == (2, 2, 0, 0)


def test_optimal_prefers_more_pairs_to_a_smaller_distance() -> None:
    # the pair of 0.1 would leave the other prediction alone (lesion 1 is out of its reach)
    away = np.array([[0.1, 2.9], [2.9, 9.0]])
    match = match_optimal(away, 3)
    assert match.partner.tolist() == [1, 0]


@pytest.mark.parametrize('seed', range(20))
def test_optimal_against_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    away = rng.uniform(0, 6, (rng.integers(1, 5), rng.integers(1, 5)))
    wide = away if away.shape[0] <= away.shape[1] else away.T
    best = min(
        (
            -sum(wide[row, column] < 3 for row, column in enumerate(columns)),
            sum(wide[r, k] for r, k in enumerate(columns) if wide[r, k] < 3),
        )
        for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    match = match_optimal(away, 3)
    total = sum(away[row, column] for row, column in enumerate(match.partner) if column >= 0)
    assert (-match.tp_pred, pytest.approx(total)) == best


def test_different_grids_are_refused(make_lesions: Any) -> None:
    with pytest.raises(ValueError, match='grids differ'):
        overlaps(make_lesions(((1, 1, 1), ONE)), make_lesions(((1, 1, 1), ONE), shape=(9, 9, 9)))
