from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.exceptions import DataError
from shivacmb.lesions import find_clusters, grow_clusters
from shivacmb.lesions.clusters import number_by_size


def _prob(shape=(8, 9, 10), **voxels):
    prob = np.zeros(shape, dtype=np.float32)
    for value in voxels.values():
        prob[value] = 0.9
    return prob


def test_empty_map_gives_no_label():
    labels = find_clusters(np.zeros((4, 5, 6), np.float32), threshold=0.4, min_voxels=3)
    assert labels.dtype == np.int32
    assert labels.shape == (4, 5, 6)
    assert not labels.any()


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.float16])
def test_threshold_itself_belongs_to_the_cluster(dtype):
    prob = np.zeros((4, 4, 4), dtype=dtype)
    prob[1, 1, 1] = 0.4 if dtype != np.float16 else 0.5
    threshold = 0.4 if dtype != np.float16 else 0.5
    assert find_clusters(prob, threshold=threshold).sum() == 1
    prob[1, 1, 1] = np.nextafter(np.float32(threshold), np.float32(0))
    if dtype != np.float16:
        assert find_clusters(prob, threshold=threshold).sum() == 0


def test_a_fold_mean_of_three_times_the_threshold_reaches_it():
    folds = np.full((3, 2, 2, 2), 0.4, dtype=np.float32)
    assert find_clusters(folds.mean(axis=0), threshold=0.4).all()


@pytest.mark.parametrize(
    ('step', 'joined_by'),
    [((0, 0, 1), (6, 18, 26)), ((0, 1, 1), (18, 26)), ((1, 1, 1), (26,)), ((0, 0, 2), ())],
)
@pytest.mark.parametrize('connectivity', [6, 18, 26])
def test_connectivity(step, joined_by, connectivity):
    prob = _prob(a=(3, 3, 3), b=tuple(3 + s for s in step))
    labels = find_clusters(prob, threshold=0.4, connectivity=connectivity)
    assert labels.max() == (1 if connectivity in joined_by else 2)


@pytest.mark.parametrize(('size', 'kept'), [(1, False), (2, False), (3, True), (4, True)])
def test_clusters_under_min_voxels_are_dropped(size, kept):
    prob = np.zeros((6, 6, 6), np.float32)
    prob[2, 2, 1 : 1 + size] = 1
    assert find_clusters(prob, threshold=0.4, min_voxels=3).any() == kept


def test_numbers_go_by_volume_then_by_first_voxel():
    prob = np.zeros((12, 6, 6), np.float32)
    prob[0, 0, :3] = 1
    prob[3, 0, :5] = 1
    prob[6, 0, :3] = 1
    prob[9, 0, :4] = 1
    labels = find_clusters(prob, threshold=0.5, min_voxels=3)
    assert [labels[i, 0, 0] for i in (0, 3, 6, 9)] == [3, 1, 4, 2]


def test_numbers_do_not_depend_on_memory_order():
    rng = np.random.default_rng(4)
    prob = rng.random((20, 21, 22)).astype(np.float32)
    a = find_clusters(prob, threshold=0.9, min_voxels=2)
    b = find_clusters(np.asfortranarray(prob), threshold=0.9, min_voxels=2)
    np.testing.assert_array_equal(a, b)
    sizes = np.bincount(a.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    for one, two in itertools.pairwise(range(1, len(sizes) + 1)):
        if sizes[one - 1] == sizes[two - 1]:
            assert np.flatnonzero(a == one)[0] < np.flatnonzero(a == two)[0]


@pytest.mark.parametrize(('connectivity', 'rank'), [(6, 1), (18, 2), (26, 3)])
def test_same_partition_as_scipy(connectivity, rank):
    prob = np.random.default_rng(1).random((25, 26, 27)).astype(np.float32)
    ours = find_clusters(prob, threshold=0.8, connectivity=connectivity)
    theirs, count = ndimage.label(prob >= 0.8, ndimage.generate_binary_structure(3, rank))
    assert ours.max() == count
    assert len(np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1).T) == count + 1


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_not_a_number_is_refused(value):
    prob = np.zeros((3, 3, 3), np.float32)
    prob[0, 0, 0] = value
    with pytest.raises(DataError, match='not numbers'):
        find_clusters(prob, threshold=0.4)


@pytest.mark.parametrize(
    ('changed', 'match'),
    [
        ({'threshold': 0.0}, 'threshold lies'),
        ({'threshold': 1.1}, 'threshold lies'),
        ({'min_voxels': 0}, 'min_voxels is at least 1'),
        ({'connectivity': 8}, 'connectivity is one of'),
    ],
)
def test_senseless_parameters_are_refused(changed, match):
    parameters = {'threshold': 0.4, 'min_voxels': 3, 'connectivity': 26} | changed
    with pytest.raises(ValueError, match=match):
        find_clusters(np.zeros((3, 3, 3), np.float32), **parameters)


def test_a_fourth_axis_is_refused():
    with pytest.raises(ValueError, match='3 axes'):
        find_clusters(np.zeros((3, 3, 3, 1), np.float32), threshold=0.4)


def test_numbers_go_by_volume_then_by_the_first_voxel() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, :2], labels[1, 1, :3], labels[2, 2, 2:], labels[3, 3, 3] = 9, 4, 2, 7
    numbered, former = number_by_size(np.asfortranarray(labels))
    assert former.tolist() == [4, 9, 2, 7]
    for number, name in enumerate(former, start=1):
        np.testing.assert_array_equal(numbered == number, labels == name)
    assert number_by_size(labels, min_voxels=2)[1].tolist() == [4, 9, 2]
    assert number_by_size(np.zeros((2, 2, 2), int))[1].size == 0


def line(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize('order', ['C', 'F'])
def test_clusters_grow_to_the_lower_threshold_and_stop_where_they_meet(order: Any) -> None:
    prob = line(0.3, 0.29, 0.5, 0.9, 0.6, 0.4, 0.5, 0.8, 0.31, 0.3, 0.1, 0.5, 0.5)
    labels = find_clusters(prob, threshold=0.6)
    assert labels.ravel().tolist() == [0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0]
    grown = grow_clusters(
        np.asarray(labels, order=order), np.asarray(prob, order=order), outline_threshold=0.3
    )
    # the valley is shared; 0.29 is too low, and the last two touch no cluster
    assert grown.ravel().tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0]
    assert grown.dtype == np.int32


def test_growth_in_a_cube_in_either_order_of_memory() -> None:
    prob = np.random.default_rng(3).random((12, 14, 16), np.float32)
    labels = find_clusters(prob, threshold=0.97, connectivity=6)
    plain = grow_clusters(labels, prob, outline_threshold=0.8, connectivity=6)
    turned = grow_clusters(
        np.asfortranarray(labels), np.asfortranarray(prob), outline_threshold=0.8, connectivity=6
    )
    np.testing.assert_array_equal(plain, turned)
    np.testing.assert_array_equal(plain[labels > 0], labels[labels > 0])
    # all that is connected to a cluster belongs to one, and nothing else
    parts, _ = ndimage.label(prob >= np.float32(0.8))
    touched = np.isin(parts, np.unique(parts[labels > 0])) & (parts > 0)
    np.testing.assert_array_equal(plain > 0, touched)
    assert (plain > 0).sum() > 2 * (labels > 0).sum()


@pytest.mark.parametrize(('connectivity', 'reached'), [(6, 0), (18, 0), (26, 1)])
def test_growth_over_corners(connectivity: int, reached: int) -> None:
    prob = np.zeros((2, 2, 2), np.float32)
    prob[0, 0, 0], prob[1, 1, 1] = 0.9, 0.5
    labels = find_clusters(prob, threshold=0.6)
    grown = grow_clusters(labels, prob, outline_threshold=0.3, connectivity=connectivity)
    assert grown[1, 1, 1] == reached


def test_nothing_grows_out_of_nothing() -> None:
    empty = np.zeros((3, 3, 3), np.int32)
    grown = grow_clusters(empty, np.full((3, 3, 3), 0.5, np.float32), outline_threshold=0.3)
    assert not grown.any()
