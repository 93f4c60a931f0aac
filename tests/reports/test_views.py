from __future__ import annotations

import itertools
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from shivacmb.reports.views import AXIAL, CORONAL, SAGITTAL, signed, turn_to_ras

ORIENTATIONS = [
    np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def _turned(head, orientation):
    """The same head with its voxels stored in another order."""
    shape = head.image.shape
    arrays = [
        nib.orientations.apply_orientation(array, orientation)
        for array in (head.image, head.labels, head.mask)
    ]
    to_ras = nib.orientations.inv_ornt_aff(orientation, shape)
    back = np.linalg.inv(to_ras)
    ends = np.stack([head.box.start, np.add(head.box.start, head.box.shape) - 1])
    moved = np.sort(ends @ back[:3, :3].T + back[:3, 3], axis=0).round().astype(int)
    box = SimpleNamespace(start=tuple(moved[0]), shape=tuple(moved[1] - moved[0] + 1))
    return (*arrays, head.affine @ to_ras, box)


@pytest.mark.parametrize('orientation', ORIENTATIONS, ids=lambda o: str(o.ravel().tolist()))
def test_every_storage_order_gives_the_same_volumes(head, orientation):
    volumes = turn_to_ras(*_turned(head, orientation))
    plain = turn_to_ras(head.image, head.labels, head.mask, head.affine, head.box)
    np.testing.assert_array_equal(volumes.labels, head.labels)
    np.testing.assert_array_equal(volumes.image, plain.image)
    np.testing.assert_allclose(volumes.affine, head.affine, atol=1e-9)
    np.testing.assert_allclose(volumes.box, [[3.5, -3.5, 1.5], [35.5, 50.5, 41.5]], atol=1e-9)


def test_an_oblique_grid_goes_to_the_nearest_axes(head):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    volumes = turn_to_ras(head.image, head.labels, head.mask, turn @ head.affine, None)
    np.testing.assert_array_equal(volumes.labels, head.labels)
    np.testing.assert_allclose(volumes.voxel_mm, 2)
    assert volumes.box is None


@pytest.mark.parametrize(
    ('plane', 'corner'),
    [
        # the voxel that must be drawn in the upper left corner of each view
        (AXIAL, (-1, -1, 0)),  # right, anterior
        (CORONAL, (-1, 0, -1)),  # right, superior
        (SAGITTAL, (0, -1, -1)),  # anterior, superior
    ],
)
def test_radiological_convention(head, plane, corner):
    mark = np.zeros(head.image.shape, np.float32)
    mark[corner] = 1
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    whole = np.array([[-0.5] * 3, np.array(mark.shape) - 0.5])
    drawn = volumes.draw(mark, volumes.frame(plane, 0, whole, 1.5), order=0)
    assert drawn.shape == tuple(3 * np.array(mark.shape)[[1 if plane == AXIAL else 2, 0 if plane != SAGITTAL else 1]])  # fmt: skip  # noqa: E501
    assert drawn[:3, :3].all()
    assert drawn.sum() == 9


@pytest.mark.parametrize('plane', [AXIAL, CORONAL, SAGITTAL])
@pytest.mark.parametrize('order', [0, 1, 3])
def test_a_lesion_is_drawn_where_its_mark_is_put(head, plane, order):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, head.box)
    place = volumes.voxel(head.lesions[0])
    np.testing.assert_allclose(place, [28, 31, 21])
    view = volumes.frame(plane, float(place[plane]), volumes.extent(), 2.3)
    drawn = volumes.draw(volumes.labels == 1, view, order=order)
    rows, columns = np.nonzero(drawn > 0.5)
    x, y = volumes.pixel(view, place)
    assert columns.mean() + 0.5 == pytest.approx(x, abs=0.6)
    assert rows.mean() + 0.5 == pytest.approx(y, abs=0.6)


@pytest.mark.parametrize('order', [1, 3])
def test_interpolation_keeps_a_ramp_and_ends_with_the_volume(head, order):
    ramp = np.broadcast_to(np.arange(40.0)[:, None, None], head.image.shape)
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    corners = np.array([[-3.5, 10, 0], [43.5, 12, 1]])
    drawn = volumes.draw(ramp, volumes.frame(AXIAL, 3, corners, 5.0), order=order)
    expected = 43.5 - (np.arange(470) + 0.5) / 10
    inside = (expected > 2) & (expected < 37)
    np.testing.assert_allclose(drawn[0, inside], expected[inside], atol=1e-4)
    outside = (expected < -0.5) | (expected > 39.5)
    assert not drawn[:, outside].any()


def test_a_slice_outside_the_volume_is_black(head):
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    view = volumes.frame(AXIAL, 44, volumes.extent(), 1)
    assert not volumes.draw(volumes.image, view).any()


def test_window_is_that_of_the_brain(head):
    head.image[0, 0, 0] = 1e6
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    assert volumes.image.min() == 0
    assert volumes.image.max() == 1
    assert 0.3 < np.median(volumes.image[head.mask]) < 0.95


@pytest.mark.parametrize('value', [0.0, 7.0])
def test_a_constant_image_is_drawn_black(head, value):
    head.image[:] = value
    volumes = turn_to_ras(head.image, head.labels, head.mask, head.affine, None)
    assert not volumes.image.any()


def test_an_empty_mask_shows_the_whole_image(head):
    volumes = turn_to_ras(head.image, head.labels, 0 * head.labels, head.affine, None)
    np.testing.assert_array_equal(volumes.extent(), [[-0.5] * 3, [39.5, 47.5, 43.5]])


def test_shapes_that_differ_are_named(head):
    with pytest.raises(ValueError, match=r'mask has shape \(3, 3, 3\)'):
        turn_to_ras(head.image, head.labels, np.zeros((3, 3, 3)), head.affine, None)


@pytest.mark.parametrize(
    ('value', 'text'), [(1.6, '+2'), (-1.6, '-2'), (-0.4, '0'), (0.4, '0'), (0.0, '0')]
)
def test_signed(value, text):
    assert signed(value) == text
