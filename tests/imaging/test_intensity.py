from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging import background_mask, is_skull_stripped, scale_intensity


@pytest.fixture
def image():
    values = np.zeros((10, 10, 11), np.float32)
    values[:, :, :10] = np.arange(1000).reshape(10, 10, 10)
    values[..., 10] = -50
    return values


@pytest.fixture
def mask(image):
    inside = np.zeros(image.shape, np.uint8)
    inside[..., :10] = 1
    return inside


def test_paper_preset(image, mask):
    out = scale_intensity(image, mask)
    top = 0.99 * 999
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.clip(image / top, 0, 1), atol=1e-6)
    assert out.max() == 1
    assert out.min() == 0


def test_shivai_preset(image, mask):
    out = scale_intensity(image, mask, 99.0, 1.3, 1.3)
    np.testing.assert_allclose(out, np.clip(image / (0.99 * 999), 0, 1.3) / 1.3, atol=1e-6)
    assert scale_intensity(image * 0 + 7, mask, clip=1.3, divide=1.3)[0, 0, 0] == pytest.approx(
        1 / 1.3
    )


def test_only_the_mask_sets_the_scale(image, mask):
    image[..., 10] = 1e6
    np.testing.assert_array_equal(
        scale_intensity(image, mask)[..., :10], scale_intensity(image * mask, mask)[..., :10]
    )


def test_masked_clears_the_outside(image, mask):
    image[..., 10] = 300
    out = scale_intensity(image, mask, masked=True)
    assert not out[..., 10].any()
    np.testing.assert_array_equal(out[..., :10], scale_intensity(image, mask)[..., :10])


def test_a_power_of_two_changes_nothing(image, mask):
    np.testing.assert_array_equal(
        scale_intensity(image, mask), scale_intensity(image * np.float32(64), mask)
    )


def test_large_values_keep_their_precision(mask):
    image = np.full(mask.shape, 3e38, np.float32)
    image[0, 0, 0] = 1.5e38
    out = scale_intensity(image, mask)
    assert out[0, 0, 0] == pytest.approx(0.5)
    assert out[1, 1, 1] == pytest.approx(1.0)


def test_refusals(image, mask):
    with pytest.raises(DataError, match='The brain mask is empty, so intensities cannot'):
        scale_intensity(image, mask * 0)
    with pytest.raises(DataError, match='99th percentile inside the brain mask is 0, not above 0'):
        scale_intensity(image * 0, mask)
    image[3, 3, 3] = np.nan
    with pytest.raises(DataError, match='NaN or infinite values inside the brain mask'):
        scale_intensity(image, mask)


def ball(shape, radius):
    grids = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing='ij')
    return sum(g**2 for g in grids) < radius**2


def stripped(background=0.0):
    brain = ball((70, 70, 70), 28)
    brain[35, 35, 30:40] = False  # a vessel that reads as background
    noise = np.random.default_rng(1).uniform(100, 200, brain.shape)
    return np.where(brain, noise, background)


@pytest.mark.parametrize('background', [0.0, -1.0, 12.5])
def test_a_stripped_scan_is_recognised(background):
    values = stripped(background)
    zooms = (2.5, 2.5, 2.5)  # 92,000 voxels: 1437 ml
    assert is_skull_stripped(values, zooms)
    got = background_mask(nib.Nifti1Image(values, np.eye(4)))
    np.testing.assert_array_equal(got, ball((70, 70, 70), 28))


def test_what_is_not_a_stripped_scan():
    values = stripped()
    noise = np.random.default_rng(2).rayleigh(5.0, values.shape)
    assert not is_skull_stripped(values + noise, (2.5, 2.5, 2.5))
    assert not is_skull_stripped(values, (3.5, 3.5, 3.5))  # 3945 ml: a whole head
    assert not is_skull_stripped(values, (1.0, 1.0, 1.0))  # 92 ml
    shell = np.where(ball(values.shape, 32) & ~ball(values.shape, 30), 90.0, values)
    assert not is_skull_stripped(shell, (2.5, 2.5, 2.5))  # scalp around it
    assert not is_skull_stripped(np.zeros((9, 9, 9)))


def test_specks_do_not_enter_the_mask():
    values = stripped()
    values[2, 2, 2] = 50
    assert not background_mask(values)[2, 2, 2]
    with pytest.raises(DataError, match='one value only'):
        background_mask(np.ones((4, 4, 4)))
