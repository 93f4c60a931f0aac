"""The way to the brain network's grid and back, with networks whose answer is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import is_skull_stripped
from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_grid import from_network, scale_input, to_network
from shivacmb.models.brain_mask import MAPS, BrainMaps, brain_from, find_mask

SHAPE = (48, 64, 64)
NET_MM = 4.0


def ball(shape: tuple[int, ...], mm: tuple[float, ...], centre: tuple[float, ...]) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) * m for n, m in zip(shape, mm, strict=True)), indexing='ij')
    squares = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    return (squares < 60.0**2).astype(np.float32)


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * ((one > 0) & (two > 0)).sum() / ((one > 0).sum() + (two > 0).sum()))


def maps_of(brain: np.ndarray, zone: Zone = Zone.CORTEX) -> np.ndarray:
    """What a network returns that is sure of one zone and knows no side."""
    maps = np.zeros((*brain.shape, MAPS), np.float32)
    maps[..., 0], maps[..., zone] = 1 - brain, brain
    return maps


def bright(field: np.ndarray) -> np.ndarray:
    """A network that calls every bright voxel brain, the left of its grid left."""
    maps = maps_of(field)
    maps[: len(field) // 2, ..., -1] = 1
    return maps


@pytest.mark.parametrize('codes', ['RAS', 'LAS', 'LPS', 'ASR', 'IPL'])
@pytest.mark.parametrize('mm', [(2.0, 2.0, 2.0), (1.7, 2.1, 5.0)])
def test_mask_comes_back_on_the_image_s_own_grid(codes: str, mm: tuple[float, ...]) -> None:
    shape = tuple(round(200 / m) for m in mm)
    truth = ball(shape, mm, (80.0, 105.0, 110.0))
    image = nib.Nifti1Image(truth * 300, np.diag([*mm, 1]))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
        )
    )
    mask = brain_from(turned, bright, SHAPE, NET_MM).mask()
    assert mask.dtype == np.uint8
    assert mask.shape == turned.shape
    ball_there = np.asarray(turned.dataobj)
    assert dice(mask, ball_there) > 0.97
    # overlap forgives a shift of a voxel; the centre of mass does not
    shift = np.argwhere(mask).mean(axis=0) - np.argwhere(ball_there).mean(axis=0)
    assert np.abs(shift * nib.affines.voxel_sizes(turned.affine)).max() < 0.3


def test_network_sees_ras_order_whatever_the_image_s() -> None:
    seen = []

    def remember(field: np.ndarray) -> np.ndarray:
        seen.append(field)
        return maps_of(field)

    array = ball((90, 100, 100), (2, 2, 2), (90, 100, 100))
    array[:45] *= 2  # brighter at low x, left in RAS
    for sign in (1, -1):
        image = nib.Nifti1Image(array[::sign].copy(), np.diag([2.0 * sign, 2, 2, 1]))
        brain_from(image, remember, SHAPE, NET_MM, threshold=0.2)
    half = len(seen) // 2
    np.testing.assert_allclose(seen[0], seen[half], atol=1e-5)
    middle = seen[0].shape[0] // 2
    assert seen[0][:middle].sum() > 1.5 * seen[0][middle:].sum()


def test_second_pass_puts_the_brain_in_the_middle() -> None:
    centres = []

    def remember(field: np.ndarray) -> np.ndarray:
        centres.append([(i * field).sum() / field.sum() for i in np.indices(field.shape)])
        return maps_of(field)

    array = ball((90, 100, 140), (2, 2, 2), (90, 100, 190))
    array[20:70, 20:80, :20] = 0.3  # a neck: signal, but not brain
    brain_from(nib.Nifti1Image(array, np.diag([2, 2, 2, 1])), remember, SHAPE, NET_MM)
    assert abs(centres[0][2] - 31.5) > 5
    np.testing.assert_allclose(centres[1][2], 31.5, atol=2.5)


def test_a_brain_in_the_middle_takes_one_pass() -> None:
    calls = []

    def count(field: np.ndarray) -> np.ndarray:
        calls.append(1)
        return maps_of(field)

    array = ball((90, 100, 100), (2, 2, 2), (90, 100, 100))
    brain_from(nib.Nifti1Image(array, np.diag([2, 2, 2, 1])), count, SHAPE, NET_MM)
    assert len(calls) == 1


@pytest.mark.parametrize('codes', ['RAS', 'LPS', 'SAL'])
def test_zones_cover_any_mask_with_the_sides_of_the_patient(codes: str) -> None:
    def network(field: np.ndarray) -> np.ndarray:
        maps = bright(field)
        back = (np.indices(field.shape)[1] < field.shape[1] // 2) & (field > 0.5)
        maps[back, Zone.CORTEX], maps[back, Zone.BRAINSTEM] = 0, 1
        return maps

    affine = np.diag([2.0, 2, 2, 1])
    array = ball((90, 100, 100), (2, 2, 2), (89, 99, 99))
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    )
    turned = image.as_reoriented(turn)
    # a mask of another tool, wider than the brain that the network sees
    wide = nib.Nifti1Image(np.ones(array.shape, np.uint8), affine).as_reoriented(turn)
    mask = np.asarray(wide.dataobj).copy()
    mask[:5] = 0
    maps = brain_from(turned, network, SHAPE, NET_MM)
    zones = maps.zones(mask)
    back = nib.Nifti1Image(zones, turned.affine).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(codes), nib.io_orientation(affine)
        )
    )
    found = np.asarray(back.dataobj)
    assert zones[:5].max() == 0
    assert zones.dtype == np.uint8
    left, right, behind = found[30, 70, 50], found[60, 70, 50], found[45, 30, 50]
    assert (left, right, behind) == (11, 21, 5)
    assert set(np.unique(maps.zones(maps.mask()))) == {0, 5, 11, 21}


def test_zones_of_an_empty_mask_are_empty() -> None:
    array = ball((90, 100, 100), (2, 2, 2), (90, 100, 100))
    maps = brain_from(nib.Nifti1Image(array, np.diag([2, 2, 2, 1])), bright, SHAPE, NET_MM)
    assert maps.zones(np.zeros(array.shape)).max() == 0


def test_one_piece_without_holes_is_left() -> None:
    array = ball((100, 100, 100), (2, 2, 2), (100, 100, 100))
    whole = array.copy()
    array[45:55, 45:55, 45:55] = 0  # a hole
    array[2:10, 2:10, 2:10] = 1  # an island
    image = nib.Nifti1Image(array, np.diag([2, 2, 2, 1]))
    mask = brain_from(image, bright, SHAPE, NET_MM).mask()
    assert mask[50, 50, 50] == 1
    assert mask[5, 5, 5] == 0
    assert dice(mask, whole) > 0.98


def test_no_brain_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((50, 50, 50), np.float32), np.diag([4, 4, 4, 1]))
    image.to_filename(tmp_path / 'isotropic.nii')
    # a run names the scan; this file is one of its own
    with pytest.raises(DataError, match=r'sees 0 mL of brain: check that .*mask of your own$'):
        brain_from(image, lambda field: maps_of(field * 0), SHAPE, NET_MM)


def test_box_average_keeps_the_integral_and_cubic_keeps_smooth_fields() -> None:
    rng = np.random.default_rng(0)
    array = rng.random((30, 32, 34))
    mm = (1.0, 1.5, 2.0)
    middle = [m * (n - 1) / 2 for m, n in zip(mm, array.shape, strict=True)]
    field = to_network(array, mm, (16, 24, 32), 3.0, middle)
    assert field.sum() * 27 == pytest.approx(array.sum() * 3.0, rel=1e-5)
    ramp = np.add.outer(np.add.outer(np.arange(16.0), np.arange(24.0)), np.arange(32.0))
    back = from_network(ramp, array.shape, mm, 3.0, middle)
    # cubic convolution is exact for linear fields: slopes are mm / 3
    np.testing.assert_allclose(np.diff(back, axis=1)[5:-5, 5:-5, 5:-5], 0.5, atol=1e-4)
    assert back.mean() == pytest.approx(ramp.mean(), rel=1e-4)
    window = (slice(3, 9), slice(0, 32), slice(20, 21))
    part = from_network(ramp, array.shape, mm, 3.0, middle, window)
    np.testing.assert_allclose(part, back[window], atol=1e-4)


def test_scale_input_maps_the_percentile_to_one_and_survives_emptiness() -> None:
    array = np.concatenate([np.zeros(500), np.linspace(1, 1000, 1000), [-5.0, 1e6]])
    scaled = scale_input(array)
    reference = np.percentile(array[array > 0], 99.5)
    assert scaled[600] == pytest.approx(array[600] / reference, rel=1e-6)
    assert scaled.max() == 1
    assert scaled.min() == 0
    assert (scale_input(np.zeros(4)) == 0).all()


BRAIN_RADIUS, HEAD_SHAPE = 60.0, (84, 90, 94)


def head_in_zeroed_air(thickness: float, top: int | None = None) -> nib.Nifti1Image:
    """A ball of brain in a shell half as bright, 2 mm voxels; ``top`` cuts the head off there."""
    middle = (np.array(HEAD_SHAPE) - 1) / 2
    away = 2 * np.linalg.norm(np.moveaxis(np.indices(HEAD_SHAPE), 0, -1) - middle, axis=-1)
    shell = np.where(away < BRAIN_RADIUS + thickness, 150.0, 0.0)
    values = np.where(away < BRAIN_RADIUS, 300.0, shell)[:, :, :top].astype(np.float32)
    return nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1]))


def brightest(field: np.ndarray) -> np.ndarray:
    return maps_of((field > 0.75).astype(np.float32))


@pytest.mark.parametrize('top', [None, 47])
@pytest.mark.parametrize(('thickness', 'bare'), [(0, True), (3, True), (9, False), (16, False)])
def test_a_head_in_zeroed_air_is_no_brain(thickness: float, bare: bool, top: int | None) -> None:
    image = head_in_zeroed_air(thickness, top)
    values = np.asarray(image.dataobj)
    # the oracle: a ball, of which everything within the shell looks like a brain
    volume = 4 / 3 * np.pi * (BRAIN_RADIUS + thickness) ** 3 / 1000 * (1 if top is None else 0.5)
    assert np.count_nonzero(values) * 8 / 1000 == pytest.approx(volume, rel=0.02)
    assert is_skull_stripped(values, (2.0, 2.0, 2.0))
    maps = brain_from(image, brightest, SHAPE, NET_MM)
    mask, method, seen = find_mask(values, (2.0, 2.0, 2.0), lambda: maps)
    assert seen is maps
    assert method == ('background' if bare else 'builtin')
    assert dice(mask, values > (0 if bare else 200)) > 0.95


@pytest.mark.parametrize('codes', ['LPS', 'ASR'])
def test_a_bare_brain_is_one_in_any_orientation(codes: str) -> None:
    for thickness, bare in ((3.0, True), (16.0, False)):
        image = head_in_zeroed_air(thickness)
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(
                nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
            )
        )
        maps = brain_from(turned, brightest, SHAPE, NET_MM)
        assert maps.is_bare(np.asarray(turned.dataobj) > 0) is bare


def test_a_stripped_scan_in_which_no_brain_is_seen_keeps_its_background() -> None:
    values = np.asarray(head_in_zeroed_air(0).dataobj)

    def blind() -> BrainMaps:
        raise DataError('sees 0 mL')

    def damaged() -> BrainMaps:
        raise ModelError('altered')

    mask, method, seen = find_mask(values, (2.0, 2.0, 2.0), blind)
    assert (method, seen) == ('background', None)
    np.testing.assert_array_equal(mask, values > 0)
    with pytest.raises(ModelError, match='altered'):
        find_mask(values, (2.0, 2.0, 2.0), damaged)
    # air that is not zero: the network alone can tell
    with pytest.raises(DataError, match='sees 0 mL'):
        find_mask(values + np.arange(values.size).reshape(values.shape), (2.0, 2.0, 2.0), blind)
