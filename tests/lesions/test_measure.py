from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.lesions import lesion_table

SHAPE = (20, 22, 24)


def _scene():
    labels = np.zeros(SHAPE, np.int32)
    labels[5:8, 6, 7] = 1
    labels[12, 13, 14:16] = 2
    prob = np.where(labels > 0, 0.6, 0.1).astype(np.float32)
    prob[6, 6, 7] = 0.9
    mask = np.zeros(SHAPE, bool)
    mask[2:18, 3:19, 4:20] = True
    return labels, prob, mask


def test_empty_map_gives_no_row():
    zero = np.zeros(SHAPE, np.float32)
    assert lesion_table(zero.astype(int), zero, zero[None], np.eye(4), zero, 0.4) == []


def test_each_number_of_a_row_by_hand():
    labels, prob, mask = _scene()
    affine = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -5], [0, 0, 1, 1], [0, 0, 0, 1]])
    first, second = lesion_table(labels, prob, prob[None], affine, mask, 0.4)
    assert (first.index, first.name, first.voxels, first.volume_mm3) == (1, 'CMB1', 3, 18.0)
    assert (first.x, first.y, first.z) == (10 - 2 * 6, -5 + 3 * 6, 1 + 7)
    assert first.fold_agreement == 1
    assert first.p_max == pytest.approx(0.9)
    assert first.p_mean == pytest.approx((0.6 + 0.9 + 0.6) / 3)
    # along i: voxel 5 to voxel 1, 2 mm each; along j: 6 to 2, 3 mm; along k: 7 to 3, 1 mm
    assert first.edge_distance_mm == 4.0
    assert (second.index, second.name, second.voxels) == (2, 'CMB2', 2)
    assert second.z == 1 + 14.5


def test_position_follows_a_rotation():
    labels, prob, mask = _scene()
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    row = lesion_table(labels, prob, prob[None], affine, mask, 0.4)[0]
    np.testing.assert_allclose([row.x, row.y, row.z], (affine @ [6, 6, 7, 1])[:3])
    assert row.volume_mm3 == pytest.approx(3)


def test_agreement_counts_folds_that_reach_the_threshold_inside_the_cluster():
    labels, prob, mask = _scene()
    folds = np.zeros((3, *SHAPE), np.float32)
    folds[0, 7, 6, 7] = 0.4
    folds[1, 7, 6, 7] = np.nextafter(np.float32(0.4), np.float32(0))
    folds[2, 8, 6, 7] = 1.0
    folds[:, 12, 13, 15] = 0.5
    rows = lesion_table(labels, prob, folds, np.eye(4), mask, 0.4)
    assert [row.fold_agreement for row in rows] == [1 / 3, 1.0]
    listed = lesion_table(labels, prob, list(folds), np.eye(4), mask, 0.4)
    assert listed == rows


def test_edge_distance_equals_a_distance_transform_of_the_whole_volume():
    rng = np.random.default_rng(7)
    ball = ndimage.gaussian_filter(rng.standard_normal((40, 42, 44)), 4)
    mask = ndimage.binary_fill_holes(ball > np.percentile(ball, 60))
    zooms = (1.0, 0.8, 2.5)
    whole = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=zooms)[1:-1, 1:-1, 1:-1]
    labels = np.zeros(mask.shape, np.int32)
    chosen = rng.permutation(mask.size)[:300]
    labels.ravel()[chosen] = np.arange(1, 301)
    prob = np.ones(mask.shape, np.float32)
    rows = lesion_table(labels, prob, prob[None], np.diag([*zooms, 1]), mask, 0.4)
    np.testing.assert_allclose(
        [row.edge_distance_mm for row in rows], whole.ravel()[chosen], atol=1e-9
    )


def test_a_hole_in_the_mask_is_not_its_edge():
    labels, prob, mask = _scene()
    without = lesion_table(labels, prob, prob[None], np.eye(4), mask, 0.4)
    mask[5:8, 6, 7] = False
    assert lesion_table(labels, prob, prob[None], np.eye(4), mask, 0.4) == without


def test_a_lesion_outside_the_mask_is_at_its_edge():
    labels, prob, mask = _scene()
    labels[0, 0, 0] = 3
    row = lesion_table(labels, prob, prob[None], np.eye(4), mask, 0.4)[2]
    assert row.edge_distance_mm == 0.0
    empty = lesion_table(labels, prob, prob[None], np.eye(4), np.zeros(SHAPE), 0.4)
    assert [row.edge_distance_mm for row in empty] == [0.0, 0.0, 0.0]


def test_without_a_mask_the_distance_is_unknown():
    labels, prob, _ = _scene()
    row = lesion_table(labels, prob, prob[None], np.eye(4), None, 0.4)[0]
    assert math.isnan(row.edge_distance_mm)


def test_a_second_class_keeps_its_own_numbers_and_name():
    labels, prob, mask = _scene()
    second = np.where(labels > 0, labels + 10, 0)
    rows = lesion_table(second, prob, prob[None], np.eye(4), mask, 0.4, class_name='EPVS')
    assert [(row.index, row.name) for row in rows] == [(11, 'EPVS11'), (12, 'EPVS12')]


@pytest.mark.parametrize('wrong', ['prob_mean', r'fold_probs\[0\]', 'brain_mask'])
def test_shapes_that_differ_are_named(wrong):
    labels, prob, mask = _scene()
    small = np.zeros((2, 2, 2), np.float32)
    arguments = [labels, prob, prob[None], np.eye(4), mask, 0.4]
    if wrong == 'prob_mean':
        arguments[1] = small
    elif wrong == 'brain_mask':
        arguments[4] = small
    else:
        arguments[2] = small[None]
    with pytest.raises(ValueError, match=wrong + r' has shape \(2, 2, 2\)'):
        lesion_table(*arguments)


def test_no_fold_is_refused():
    labels, prob, mask = _scene()
    with pytest.raises(ValueError, match='no fold'):
        lesion_table(labels, prob, [], np.eye(4), mask, 0.4)
