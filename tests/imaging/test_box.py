from __future__ import annotations

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging import Box, box_affine, centred_box, crop, uncrop, voxels_outside

BOXES = [
    Box((4, 5, 6), (1, 2, 0)),
    Box((4, 5, 6), (-2, -1, -3)),
    Box((12, 14, 13), (-3, -2, -1)),
    Box((9, 3, 8), (5, 8, 6)),
    Box((3, 3, 3), (20, 0, 0)),
    Box((3, 3, 3), (0, -9, 0)),
]


def ramp(shape=(8, 9, 10)):
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize('box', BOXES)
def test_crop_reads_what_the_box_says(box):
    image = ramp()
    small = crop(image, box)
    assert small.shape == box.shape
    for index in np.ndindex(*box.shape):
        at = tuple(np.add(index, box.start))
        inside = all(0 <= a < n for a, n in zip(at, image.shape, strict=True))
        assert small[index] == (image[at] if inside else 0)


@pytest.mark.parametrize('box', BOXES)
def test_uncrop_inverts_crop(box):
    image = ramp()
    back = uncrop(crop(image, box), box, image.shape)
    covered = uncrop(np.ones(box.shape, bool), box, image.shape)
    np.testing.assert_array_equal(back, np.where(covered, image, 0))
    assert voxels_outside(image, box) == np.count_nonzero(~covered)


def test_trailing_axes_are_kept():
    image = np.stack([ramp(), -ramp()], axis=-1)
    back = uncrop(crop(image, BOXES[2]), BOXES[2], (8, 9, 10))
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize(
    ('voxels', 'centre'),
    [([4], 4), ([4, 5], 5), ([4, 5, 5], 5), ([4, 4, 5], 4), ([0, 7], 4), ([2, 3, 4, 5], 4)],
)
def test_centre_of_mass_is_rounded_half_up(voxels, centre):
    mask = np.zeros((8, 9, 10))
    for y, x in enumerate(voxels):
        mask[x, y, 0] = 1
    for size in (4, 5):
        assert centred_box(mask, (size, 2, 2)).start[0] == centre - size // 2


def test_a_centred_mask_lies_in_the_middle_of_the_box():
    mask = np.zeros((60, 60, 60), bool)
    mask[10:31, 20:41, 5:26] = True
    small = crop(mask, centred_box(mask, (31, 41, 51)))
    np.testing.assert_array_equal(small, small[::-1, ::-1, ::-1])
    assert small.sum() == mask.sum()


def test_an_empty_mask_is_refused():
    with pytest.raises(DataError, match='The brain mask is empty, so there is nothing to centre'):
        centred_box(np.zeros((5, 5, 5)), (3, 3, 3))


def test_uncrop_refuses_another_shape():
    with pytest.raises(ValueError, match='does not fit a box of shape'):
        uncrop(np.zeros((3, 3, 4)), BOXES[4], (8, 9, 10))


def test_box_affine_keeps_world_positions():
    affine = np.array([[0, -2.0, 0.1, 5], [1.5, 0, 0, -7], [0, 0.1, 3, 2], [0, 0, 0, 1]])
    box = BOXES[1]
    moved = box_affine(affine, box) @ [1, 2, 3, 1]
    np.testing.assert_allclose(moved, affine @ [1 - 2, 2 - 1, 3 - 3, 1], atol=1e-12)
