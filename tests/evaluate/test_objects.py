"""Lesions from label maps, masks, probabilities and points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shivacmb.evaluate import from_labels, from_mask, from_points, from_probability
from shivacmb.evaluate.objects import close_together

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 1.0, 0, -126], [0, 0, 0.5, -72], [0, 0, 0, 1]])


def test_label_map_keeps_one_lesion_per_value_even_in_two_parts(make_boxes: Any) -> None:
    labels = make_boxes({7: [((1, 1, 1), (2, 1, 1)), ((9, 1, 1), (2, 1, 1))],
                         3: [((20, 20, 20), (1, 1, 3))]})  # fmt: skip
    found = from_labels(labels, AFFINE)
    assert found.names.tolist() == [3, 7]
    assert found.sizes.tolist() == [3, 4]
    assert found.volumes_mm3.tolist() == [3.0, 4.0]
    np.testing.assert_allclose(found.centres, [[20, 20, 21], [5.5, 1, 1]])
    np.testing.assert_allclose(found.centres_mm, [[50, -106, -61.5], [79, -125, -71.5]])


def test_mask_is_cut_into_components_by_the_neighbours_that_count() -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1, 1, 1] = mask[2, 2, 2] = 1  # a corner in common
    mask[4, 4, 4] = mask[4, 5, 5] = 1  # an edge in common
    assert len(from_mask(mask, np.eye(4), 26)) == 2
    assert len(from_mask(mask, np.eye(4), 18)) == 3
    assert len(from_mask(mask, np.eye(4), 6)) == 4


@pytest.mark.parametrize('order', ['C', 'F'])
def test_stored_order_of_the_array_does_not_matter(order: Any) -> None:
    rng = np.random.default_rng(3)
    mask = np.asarray(rng.random((7, 8, 9)) > 0.9, order=order)
    found = from_mask(mask, np.eye(4))
    back = np.zeros(mask.shape, bool)
    back[np.unravel_index(found.voxels, mask.shape, order='F')] = True
    assert np.array_equal(back, mask)
    assert found.sizes.sum() == mask.sum()


def test_probability_keeps_the_peak_and_the_weighed_volume() -> None:
    prob = np.zeros((9, 9, 9), np.float32)
    prob[2, 2, 2:5] = 0.5, 0.75, 0.4
    prob[7, 7, 7] = 0.9
    found = from_probability(prob, np.diag([1, 1, 2, 1.0]), threshold=0.4, min_voxels=2)
    assert found.sizes.tolist() == [3]  # 0.4 itself belongs, the single voxel does not
    assert found.scores.tolist() == [0.75]
    assert found.amount_mm3 == pytest.approx(2 * (0.5 + 0.75 + 0.4), abs=1e-6)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('votes', [1, 2, 3, 4])
def test_voxel_at_the_threshold_counts_in_either_precision(votes: int, dtype: Any) -> None:
    # a share of five raters, which single precision rounds up or down
    share = np.zeros((5, 5, 5), dtype)
    share[2, 2, 2], share[4, 4, 4] = votes / 5, 1
    found = from_probability(share, np.eye(4), threshold=votes / 5)
    assert found.sizes.tolist() == [1, 1]


@pytest.mark.parametrize('shape', [(1, 1, 3), (3, 1, 1), (1, 5, 1), (3, 3, 1), (1, 3, 5)])
def test_lesions_in_one_line_or_plane_are_told_apart(shape: Any) -> None:
    corners = np.zeros((7, 7, 7), np.uint8)
    corners[tuple(slice(1, 1 + size, 2) for size in shape)] = 1
    number = int(np.prod([(size + 1) // 2 for size in shape]))
    assert len(from_mask(corners, np.eye(4))) == number
    found = from_probability(corners * np.float32(0.7), np.eye(4), threshold=0.5)
    assert found.sizes.tolist() == [1] * number


@pytest.mark.parametrize(
    ('places', 'together'),
    [
        ([(1, 1, 1), (1, 1, 8)], True),  # six voxels of 0.5 mm between them
        ([(1, 1, 1), (1, 1, 9)], False),
        ([(1, 1, 1), (3, 1, 1)], True),  # one of 2 mm
        ([(1, 1, 1), (4, 1, 1)], False),
        ([(1, 1, 1), (3, 3, 4)], True),  # 2, 1 and 1 mm: a diagonal of 2.4 mm
        ([(1, 1, 1), (3, 4, 5)], False),  # 2, 2 and 1.5 mm: of 3.2 mm
        ([(1, 1, 1), (3, 1, 1), (5, 1, 1)], True),  # the third between them
        ([(1, 1, 1), (3, 1, 1), (9, 1, 1)], False),
        ([(1, 1, 1)], True),
    ],
)
def test_parts_of_a_torn_lesion_lie_close_together(places: Any, together: bool) -> None:
    mask = np.zeros((12, 6, 10), np.uint8)
    for place in places:
        mask[place] = 1
    assert close_together(from_mask(mask, AFFINE)) is together


@pytest.mark.parametrize(
    ('second', 'together'),
    [
        ((19, 1, 1), False),  # 17 voxels of 0.5 mm between them, in the same slice
        ((8, 1, 1), True),
        ((9, 1, 1), False),
        ((8, 1, 2), True),  # slanting into the next slice
        ((9, 1, 2), False),
        ((1, 1, 3), False),  # a slice of 5 mm between them
    ],
)
def test_thick_slices_do_not_bring_lesions_together(second: Any, together: bool) -> None:
    mask = np.zeros((30, 4, 5), np.uint8)
    mask[1, 1, 1] = mask[second] = 1
    assert close_together(from_mask(mask, np.diag([0.5, 0.5, 5, 1]))) is together


def test_select_and_at_least_keep_voxels_with_their_lesion(make_lesions: Any) -> None:
    found = make_lesions(((1, 1, 1), (1, 1, 1)), ((5, 5, 5), (2, 2, 2)), ((9, 9, 9), (1, 1, 2)))
    kept = found.at_least(2)
    assert kept.names.tolist() == [2, 3]
    assert np.bincount(kept.owners).tolist() == [8, 2]
    assert found.at_least(9).names.tolist() == []
    assert len(found.at_least(9).voxels) == 0


def test_point_without_radius_is_one_voxel_without_size() -> None:
    found = from_points(np.array([[90 - 8.9, -126 + 3.2, -72 + 1.1]]), (10, 10, 10), AFFINE)
    assert np.unravel_index(found.voxels, found.shape, order='F') == (4, 3, 2)
    assert np.isnan(found.volumes_mm3).all()
    assert len(found.at_least(3)) == 1


def test_point_with_radius_is_a_ball_in_mm_on_anisotropic_voxels() -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    found = from_points(np.array([[5.0, 5.0, 9.0]]), (11, 11, 7), affine, np.array([2.0]))
    places = np.stack(np.unravel_index(found.voxels, found.shape, order='F'), axis=1)
    away = np.linalg.norm((places - [5, 5, 3]) * [1, 1, 3], axis=1)
    assert len(places) == 13  # the disc x^2 + y^2 <= 4 of one slice: the next is 3 mm away
    assert away.max() == 2.0
    assert found.volumes_mm3[0] == pytest.approx(4 / 3 * np.pi * 8)


def test_point_outside_the_grid_has_no_voxel_but_stays() -> None:
    found = from_points(np.array([[50.0, 0, 0], [1, 1, 1]]), (4, 4, 4), np.eye(4))
    assert len(found) == 2
    assert found.owners.tolist() == [1]


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.full((2, 2, 2), 0.5), 'whole numbers'),
        (np.full((2, 2, 2), -1), 'no negative'),
        (np.zeros((2, 2)), '3 axes'),
    ],
)
def test_what_is_no_label_map_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_labels(labels, np.eye(4))
