"""The way back: exact where it can be, and no lesion lost where it cannot."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from shivacmb.imaging import (
    Box,
    SpatialChain,
    centred_box,
    crop,
    labels_to_input,
    mask_to_input,
    probability_to_input,
    reorient_to_std,
    resample_isotropic,
)


def rng():
    return np.random.default_rng(3)


def shifted(offset):
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def some_labels(shape, count, size, generator, gap=1):
    """``count`` separate lesions of ``size`` voxels in a row along random axes."""
    labels = np.zeros(shape, np.int32)
    number = 0
    for _ in range(100 * count):
        along = np.eye(3, dtype=int)[generator.integers(3)]
        start = generator.integers(0, np.array(shape) - size + 1)
        stop = start + 1 + along * (size - 1)
        stop = np.minimum(stop, shape)
        around = tuple(slice(max(a - gap, 0), b + gap) for a, b in zip(start, stop, strict=True))
        if labels[around].any():
            continue
        number += 1
        labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = number
        if number == count:
            return labels
    pytest.fail('no room for the lesions')


def chain_of(img, box_shape=None):
    std = reorient_to_std(img)
    chain = SpatialChain.from_images(img, std)
    if box_shape is None:
        return chain
    return chain.with_box(centred_box(np.ones(chain.iso_shape), box_shape))


def test_every_orientation_returns_exactly(orientation, make_scan):
    """1 mm in any axis order: reorient, resample, crop, and back is the identity in the box."""
    img = make_scan((12, 15, 13), (1.0, 1.0, 1.0), orientation)
    iso = resample_isotropic(reorient_to_std(img))
    chain = chain_of(img)
    chain = chain.with_box(Box((16, 19, 17), (-2, -2, -2)))
    values = np.asarray(iso.dataobj)
    np.testing.assert_array_equal(
        probability_to_input(crop(values, chain.box), chain.box_to_input, img.shape),
        np.asarray(img.dataobj),
    )
    labels = np.arange(values.size, dtype=np.int32).reshape(values.shape) % 11
    there = labels_to_input(crop(labels, chain.box), None, chain.box_to_input, img.shape)
    again = resample_isotropic(
        reorient_to_std(nib.Nifti1Image(there, img.affine, img.header)), 1.0, 'nearest'
    )
    np.testing.assert_array_equal(np.asarray(again.dataobj), labels)
    mask = labels > 4
    np.testing.assert_array_equal(
        mask_to_input(crop(mask, chain.box), chain.box_to_input, img.shape), there > 4
    )


@pytest.mark.parametrize('offset', [(0, 0, 0), (2, -1, 3), (-4, 5, 0)])
def test_an_integer_shift_moves_voxels_and_nothing_else(offset):
    prob = rng().random((9, 8, 7), dtype=np.float32)
    shape = (11, 10, 9)
    want = np.zeros(shape, np.float32)
    for index in np.ndindex(*prob.shape):
        at = tuple(np.add(index, offset))
        if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
            want[at] = prob[index]
    np.testing.assert_array_equal(probability_to_input(prob, shifted(offset), shape), want)
    np.testing.assert_array_equal(mask_to_input(prob > 0.5, shifted(offset), shape), want > 0.5)


def test_linear_fields_come_back_linear():
    """Linear interpolation is exact on a linear field, here at half voxels and reversed axes."""
    i, j, k = np.indices((10, 12, 14)).astype(np.float32)
    field = 3 * i + 2 * j - k
    to_input = np.array([[0, 2.0, 0, 0], [-2, 0, 0, 18], [0, 0, 0.5, 0], [0, 0, 0, 1]])
    back = probability_to_input(field, to_input, (23, 19, 7))
    x, y, z = np.indices(back.shape)
    np.testing.assert_allclose(back, 3 * (18 - y) / 2 + 2 * x / 2 - 2 * z, atol=1e-5)


def test_nothing_is_made_up_outside_the_grid():
    ones = np.ones((4, 4, 4), np.float32)
    to_input = np.diag([2.0, 2.0, 2.0, 1.0])
    to_input[:3, 3] = 4
    back = probability_to_input(ones, to_input, (20, 20, 20))
    # centres at 4, 6, 8, 10; each iso voxel owns one input voxel on either side
    want = np.zeros(20, np.float32)
    want[3:12] = 1
    np.testing.assert_array_equal(back, want[:, None, None] * want[:, None] * want)


def test_axes_must_not_mix():
    turned = np.eye(4)
    turned[0, 1] = 0.1
    with pytest.raises(ValueError, match='permute, reverse, scale and shift'):
        probability_to_input(np.ones((3, 3, 3)), turned, (3, 3, 3))


@pytest.mark.parametrize(('thick', 'size'), [(5.0, 3), (2.0, 1)])
def test_no_lesion_vanishes_in_thick_slices(orientation, make_scan, thick, size):
    img = make_scan((40, 44, 12), (0.9, 0.9, thick), orientation)
    chain = chain_of(img, (30, 36, 40))
    generator = rng()
    labels = some_labels((30, 36, 40), 20, size, generator)
    prob = generator.random(labels.shape, dtype=np.float32)
    back = labels_to_input(labels, prob, chain.box_to_input, img.shape)
    assert set(np.unique(back)) == set(range(21))
    assert_near(labels, back, chain.box_to_input)


def assert_near(labels, back, to_input, limit=1.0):
    """Each label's nearest voxel lies within ``limit`` input voxels of its centre's voxel."""
    for number in range(1, labels.max() + 1):
        voxels = np.argwhere(labels == number)
        centre = (to_input @ [*voxels.mean(axis=0), 1.0])[:3]
        centre = np.clip(centre, 0, np.array(back.shape) - 1)
        away = np.abs(np.argwhere(back == number) - centre).max(axis=1).min()
        assert away <= limit + 1e-6, number


def test_the_centre_voxel_is_labelled():
    labels = np.zeros((9, 9, 20), np.int32)
    labels[4, 4, 6:9] = 1  # between the slices at 5 and 10
    back = labels_to_input(labels, None, np.diag([1, 1, 0.2, 1]), (9, 9, 4))
    assert np.argwhere(back).tolist() == [[4, 4, 1]]


def test_lesions_that_share_a_thick_voxel_all_survive():
    """Eight single-voxel lesions inside two 5 mm voxels, and a large one that fills the rest."""
    labels = np.zeros((15, 15, 15), np.int32)
    for number, at in enumerate(np.ndindex(2, 2, 2), start=1):
        labels[tuple(5 + 2 * np.array(at))] = number
    labels[0:15, 0:3, 0:15] = 9
    back = labels_to_input(labels, None, np.diag([0.2, 0.2, 0.2, 1]), (3, 3, 3))
    assert set(np.unique(back[back > 0])) == set(range(1, 10))
    assert_near(labels, back, np.diag([0.2, 0.2, 0.2, 1]), limit=1.5)


def test_a_full_grid_gives_one_voxel_to_each():
    labels = np.zeros((12, 12, 12), np.int32)
    labels[::6, ::6, ::6] = np.arange(1, 9).reshape(2, 2, 2)
    labels[1, 1, 1] = 0
    back = labels_to_input(labels, None, np.diag([1 / 6, 1 / 6, 1 / 6, 1]), (2, 2, 2))
    np.testing.assert_array_equal(np.sort(back.ravel()), np.arange(1, 9))
    labels[3, 3, 3] = 9
    with pytest.raises(ValueError, match='more lesions than voxels'):
        labels_to_input(labels, None, np.diag([1 / 6, 1 / 6, 1 / 6, 1]), (2, 2, 2))


def test_label_numbers_need_not_be_dense():
    labels = np.zeros((6, 6, 6), np.int32)
    labels[1, 1, 1], labels[4, 4, 4] = 7, 300
    back = labels_to_input(labels, None, np.eye(4), (6, 6, 6))
    np.testing.assert_array_equal(back, labels)
    assert not labels_to_input(labels * 0, None, np.eye(4), (6, 6, 6)).any()


def test_fine_voxels_take_the_label_of_the_voxel_they_lie_in():
    """0.5 mm input: between two 1 mm centres the upper one wins, so label v fills 2v-1 and 2v."""
    labels = some_labels((10, 10, 10), 5, 3, rng())
    back = labels_to_input(labels, None, np.diag([2.0, 2, 2, 1]), (20, 20, 20))
    at = np.minimum((np.arange(20) + 1) // 2, 9)
    np.testing.assert_array_equal(back, labels[np.ix_(at, at, at)])


def test_chain_survives_json(make_scan):
    chain = chain_of(make_scan((20, 22, 9), (0.7, 0.9, 3.0)), (16, 16, 16))
    again = SpatialChain.from_dict(json.loads(json.dumps(chain.to_dict())))
    assert again == chain
    np.testing.assert_array_equal(again.iso_to_input, chain.iso_to_input)
    assert again.with_box(Box((1, 1, 1), (0, 0, 0))) != chain
    bare = SpatialChain.from_dict(chain_of(make_scan((20, 22, 9), (1, 1, 3))).to_dict())
    assert bare.box is None
    np.testing.assert_array_equal(bare.box_to_input, bare.iso_to_input)


def test_chain_agrees_with_the_affines(orientation, make_scan):
    img = make_scan((20, 22, 9), (0.7, 0.9, 3.0), orientation)
    chain = chain_of(img, (16, 16, 16))
    iso = resample_isotropic(reorient_to_std(img))
    assert iso.shape == chain.iso_shape
    np.testing.assert_allclose(img.affine @ chain.iso_to_input, iso.affine, atol=2e-5)
