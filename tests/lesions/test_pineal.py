"""Where the pineal gland is, by the thalami."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from shivacmb.imaging.zones import Zone
from shivacmb.lesions.pineal import REACH_MM, find_pineal, pineal_region

SHAPE = (60, 50, 40)
LEFT, RIGHT = 10 + Zone.THALAMUS, 20 + Zone.THALAMUS


def head() -> tuple[np.ndarray, np.ndarray]:
    """Two boxes beside x = 0 mm, from -30 to -10 and from 0 to 10 mm, on voxels of 1 mm in RAS."""
    affine = np.eye(4)
    affine[:3, 3] = -30, -45, -15
    zones = np.full(SHAPE, Zone.WHITE_MATTER, np.uint8)
    zones[15:26, 15:36, 15:26] = LEFT
    zones[35:46, 15:36, 15:26] = RIGHT
    return zones, affine


def test_between_the_hind_ends_of_the_thalami() -> None:
    zones, affine = head()
    found = find_pineal(zones, affine)
    assert found is not None
    # the outermost layers are 1 of 21 and 1 of 11: all ends are those of the boxes
    np.testing.assert_allclose(found, [0.0, -28.0, 1.0])


def test_the_region_is_a_ball() -> None:
    zones, affine = head()
    region = pineal_region(zones, affine)
    away = np.moveaxis(np.indices(SHAPE), 0, -1) + affine[:3, 3] - [0.0, -28.0, 1.0]
    np.testing.assert_array_equal(region, np.linalg.norm(away, axis=-1) <= REACH_MM)


@pytest.mark.parametrize(
    'axes',
    [
        ''.join(letters)
        for order in itertools.permutations(('LR', 'PA', 'IS'))
        for letters in itertools.product(*order)
    ],
)
def test_any_order_of_the_voxels(axes: str) -> None:
    zones, affine = head()
    image = nib.Nifti1Image(zones, affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
    )
    turned = image.as_reoriented(turn)
    region = pineal_region(np.asarray(turned.dataobj), turned.affine)
    back = nib.Nifti1Image(region.astype(np.uint8), turned.affine)
    whole = nib.as_closest_canonical(back)
    np.testing.assert_array_equal(np.asarray(whole.dataobj) > 0, pineal_region(zones, affine))


@pytest.mark.parametrize('degrees', [(20, 0, 0), (0, 20, 0), (0, 0, -20), (-15, 10, 15)])
def test_a_tilted_head(degrees: tuple[float, float, float]) -> None:
    zones, affine = head()
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    found = find_pineal(zones, tilt @ affine)
    assert found is not None
    np.testing.assert_allclose(found, tilt[:3, :3] @ [0.0, -28.0, 1.0], atol=1e-6)


def test_larger_voxels_and_a_place_at_the_rim_of_the_image() -> None:
    zones, affine = head()
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = affine[:3, 3]
    found = find_pineal(zones[::2, ::2, ::2], coarse)
    assert found is not None
    np.testing.assert_allclose(found, [0.0, -28.0, 1.0], atol=1.5)
    cut = zones[:, 12:]
    affine[1, 3] += 12
    assert pineal_region(cut, affine)[:, 0].any()
    assert pineal_region(cut, affine).sum() < pineal_region(*head()).sum()


@pytest.mark.parametrize('cut', [np.s_[:, 15:], np.s_[:, :30], np.s_[..., 20:], np.s_[:46]])
def test_no_place_where_the_scan_cuts_a_thalamus(cut: tuple[slice, ...]) -> None:
    zones, affine = head()
    assert find_pineal(zones[cut], affine) is None


@pytest.mark.parametrize('value', [LEFT, RIGHT])
def test_no_place_without_both_thalami(value: int) -> None:
    zones, affine = head()
    zones[zones == value] = Zone.WHITE_MATTER
    zones[0, 0, :5] = value
    assert find_pineal(zones, affine) is None
    assert not pineal_region(zones, affine).any()
