"""Grid rules beyond the golden files, from the arithmetic itself."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, UsageError
from shivacmb.imaging import (
    isotropic_to_std_map,
    reorient_to_std,
    resample_isotropic,
    std_to_input_map,
)
from shivacmb.imaging.reorient import c_cast
from shivacmb.imaging.resample import rim_background


def volume(shape=(5, 6, 7), dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def image(values, affine, sform=1, qform=1, kind=nib.Nifti1Image, header=None):
    img = kind(values, affine, header)
    img.header.set_sform(affine, sform)
    img.header.set_qform(affine, qform)
    return img


def test_reorient_moves_no_voxel_in_the_world(orientation, make_scan):
    img = make_scan((5, 6, 7), (0.7, 0.9, 3.0), orientation)
    out = reorient_to_std(img)
    right_handed = np.linalg.det(img.affine) > 0
    assert nib.aff2axcodes(out.affine) == (('R' if right_handed else 'L'), 'A', 'S')
    to_input = std_to_input_map(img)
    np.testing.assert_allclose(img.affine @ to_input, out.affine, atol=1e-5)
    old, new = np.asarray(img.dataobj), np.asarray(out.dataobj)
    for index in np.ndindex(*new.shape):
        at = (to_input @ [*index, 1])[:3].astype(int)
        assert new[index] == old[tuple(at)]


def test_an_image_in_order_is_returned_itself(make_scan):
    img = make_scan()
    assert reorient_to_std(img) is img


@pytest.mark.parametrize(
    ('n', 'd', 'size'),
    [(30, 0.9, 26), (256, 0.85937494, 219), (256, 0.859375, 220), (22, 1.4, 30), (3, 0.3, 1)],
)
def test_grid_size_is_truncated_in_float32(n, d, size):
    img = image(np.zeros((n, 2, 2), np.float32), np.diag([-d, d, d, 1]))
    assert isotropic_to_std_map(img)[0][0] == size


@pytest.mark.parametrize('sign', [-1, 1])
def test_the_first_radiological_voxel_stays(sign):
    img = image(volume((9, 4, 4)), np.diag([sign * 0.7, 1, 1, 1]))
    shape, to_std = isotropic_to_std_map(img)
    index = 0 if sign < 0 else shape[0] - 1
    place = (to_std @ [index, 0, 0, 1])[0]
    assert place == pytest.approx(0 if sign < 0 else 8)


def test_memory_order_and_file_format_do_not_matter():
    affine = np.diag([-0.8, 0.9, 1.3, 1])
    want = np.asarray(resample_isotropic(image(volume(), affine)).dataobj)
    fortran = image(np.asfortranarray(volume()), affine)
    np.testing.assert_array_equal(np.asarray(resample_isotropic(fortran).dataobj), want)
    big = nib.Nifti1Image.from_bytes(
        image(volume(), affine, header=nib.Nifti1Header(endianness='>')).to_bytes()
    )
    assert big.header.endianness == '>'
    np.testing.assert_array_equal(np.asarray(resample_isotropic(big).dataobj), want)
    two = resample_isotropic(reorient_to_std(image(volume(), affine, kind=nib.Nifti2Image)))
    np.testing.assert_array_equal(np.asarray(two.dataobj), want)
    np.testing.assert_allclose(two.affine, resample_isotropic(fortran).affine)


@pytest.mark.parametrize('how', ['trilinear', 'nearest', 'spline', 'sinc'])
def test_equal_voxels_change_nothing(how):
    values = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
    for sign in (-1, 1):
        img = image(values, np.diag([sign, 1, 1, 1]))
        got = np.asarray(resample_isotropic(img, 1.0, how).dataobj)
        if how == 'spline':  # clamped coefficients do not interpolate in the outermost layer
            got, inner = got[1:-1, 1:-1, 1:-1], values[1:-1, 1:-1, 1:-1]
            np.testing.assert_allclose(got, inner, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, values)


def test_every_size_of_target_is_linear_on_a_ramp():
    i, j, k = np.indices((12, 13, 14)).astype(np.float32)
    img = image(2 * i + 3 * j + k, np.diag([-0.8, 1.1, 1.7, 1]))
    for size in (0.5, 1.0, 2.0):
        out = resample_isotropic(img, size)
        assert out.header.get_zooms() == (size,) * 3
        got = np.asarray(out.dataobj)
        to_std = isotropic_to_std_map(img, size)[1]
        at = np.indices(got.shape) * np.diag(to_std)[:3, None, None, None]
        inside = np.all([a <= n - 1.001 for a, n in zip(at, img.shape, strict=True)], axis=0)
        want = 2 * at[0] + 3 * at[1] + at[2]
        np.testing.assert_allclose(got[inside], want[inside], atol=1e-4)


def test_integers_truncate_and_wrap_as_in_c():
    values = np.array([258.4, -1.3, 3.9, -0.9], np.float32)
    assert c_cast(values, np.dtype(np.uint8)).tolist() == [2, 255, 3, 0]
    assert c_cast(values, np.dtype(np.int16)).tolist() == [258, -1, 3, 0]
    assert c_cast(values, np.dtype(np.uint16)).dtype == np.int32
    assert c_cast(values, np.dtype(np.int64)).dtype == np.float32
    mask = np.array([0, 0.25, 1], np.float32)
    assert c_cast(mask, np.dtype(np.uint8)).tolist() == [0, 0.25, 1]


def test_background_is_the_tenth_percentile_of_the_rim():
    values = np.full((8, 9, 10), -100.0, np.float32)
    values[:2] = values[-2:] = 1
    values[:, :2] = values[:, -2:] = 1
    values[:, :, :2] = values[:, :, -2:] = 1
    rim = np.flatnonzero(values.ravel() == 1)
    values.ravel()[rim] = np.random.default_rng(1).permutation(rim.size)
    assert rim_background(values) == rim.size // 10


def test_refusals(make_scan):
    img = make_scan((5, 6, 7))
    with pytest.raises(UsageError, match='must be above 0 mm, not 0'):
        resample_isotropic(img, 0)
    with pytest.raises(UsageError, match="Unknown interpolation 'cubic'"):
        resample_isotropic(img, 1.0, 'cubic')
    with pytest.raises(DataError, match='one 3-D volume is needed'):
        resample_isotropic(image(volume((4, 4, 4, 2)), np.eye(4)))
    flat = image(volume(), np.eye(4))
    flat.header['srow_z'] = 0
    with pytest.raises(DataError, match='singular affine'):
        reorient_to_std(flat)
