from __future__ import annotations

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging.swi import homodyne_phase, phase_mask, susceptibility_weighted


def vein(sign: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A slab of tissue with a smooth background phase and one column of raised phase."""
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in (64, 64, 4)], indexing='ij')
    phase = 1.5 * x + 0.8 * y**2
    phase[32, 32] += sign * 1.2
    return np.ones(phase.shape), np.angle(np.exp(1j * phase))


def test_smooth_phase_goes_and_local_phase_stays() -> None:
    magnitude, phase = vein()
    high = homodyne_phase(magnitude, phase)
    assert np.abs(high[20:28, 20:28]).max() < 0.25
    assert high[32, 32].mean() == pytest.approx(1.2, abs=0.15)


def test_homodyne_does_not_see_wraps_nor_a_constant() -> None:
    magnitude, phase = vein()
    high = homodyne_phase(magnitude, phase)
    np.testing.assert_allclose(homodyne_phase(magnitude, phase + 4 * np.pi), high, atol=1e-4)
    turned = homodyne_phase(magnitude, np.angle(np.exp(1j * (phase + 0.7))))
    np.testing.assert_allclose(turned, high, atol=1e-4)


def test_a_window_over_all_of_k_space_leaves_little_and_a_tiny_one_all_but_the_mean() -> None:
    magnitude, phase = vein()
    wide = homodyne_phase(magnitude, phase, window=1.0)
    narrow = homodyne_phase(magnitude, phase, window=0.01)
    mean = np.exp(1j * phase).mean(axis=(0, 1), keepdims=True)
    assert np.abs(wide).mean() < 0.3 * np.abs(narrow).mean()
    np.testing.assert_allclose(np.exp(1j * narrow), np.exp(1j * phase) / (mean / abs(mean)),
                               atol=1e-4)  # fmt: skip


def test_slices_do_not_mix() -> None:
    magnitude, phase = vein()
    other = phase.copy()
    other[:, :, 3] = np.random.default_rng(0).uniform(-3, 3, (64, 64))
    np.testing.assert_array_equal(
        homodyne_phase(magnitude, phase)[:, :, :3], homodyne_phase(magnitude, other)[:, :, :3]
    )


def test_any_axis_may_lie_across_the_slices() -> None:
    magnitude, phase = vein()
    turned = homodyne_phase(np.moveaxis(magnitude, 2, 0), np.moveaxis(phase, 2, 0), slice_axis=0)
    np.testing.assert_allclose(
        np.moveaxis(turned, 0, 2), homodyne_phase(magnitude, phase), atol=1e-5
    )


def test_the_mask_darkens_one_sign_only() -> None:
    phase = np.array([-np.pi, -1.0, 0.0, np.pi / 2, np.pi])
    np.testing.assert_allclose(phase_mask(phase, sign=1), [1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(phase_mask(phase, sign=-1), phase_mask(-phase, sign=1))


@pytest.mark.parametrize('sign', [1, -1])
def test_paramagnetic_columns_are_dark_whatever_the_convention(sign: int) -> None:
    magnitude, phase = vein(sign)
    image = susceptibility_weighted(magnitude, phase, sign=sign)
    assert image[32, 32].max() < 0.4
    assert susceptibility_weighted(magnitude, phase, sign=-sign)[32, 32].min() > 0.95


def test_power_zero_is_the_magnitude() -> None:
    magnitude, phase = vein()
    np.testing.assert_array_equal(susceptibility_weighted(magnitude, phase, power=0), magnitude)


@pytest.mark.parametrize(
    ('magnitude', 'phase', 'window', 'message'),
    [
        (np.ones((4, 4, 4)), np.ones((4, 4, 5)), 0.1, 'of one shape'),
        (np.ones((4, 4)), np.ones((4, 4)), 0.1, '3-D'),
        (np.ones((4, 4, 4)), np.ones((4, 4, 4)), 0.0, 'share of k-space'),
        (np.ones((2, 2, 2)), np.array([0, 4095] * 4).reshape(2, 2, 2), 0.1, 'not in rad'),
    ],
)
def test_what_cannot_be_used_is_refused(
    magnitude: np.ndarray, phase: np.ndarray, window: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        homodyne_phase(magnitude, phase, window=window)
