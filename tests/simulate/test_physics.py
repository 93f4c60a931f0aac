from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import fft, ndimage

from shivacmb.simulate.lesions import GAMMA_HZ_PER_T, Lesion, Protocol, dipole_shift, lesion_signal
from shivacmb.simulate.physics import (
    block_mean,
    complex_signal,
    dephasing,
    dipole_kernel,
    field_shift,
    frequency,
    interpolate,
    shim,
)

Z = (0.0, 0.0, 1.0)
OBLIQUE = (0.6, 0.0, 0.8)


def grid(size: int, voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Positions in mm relative to the middle voxel."""
    axes = [(np.arange(size) - size // 2) * mm for mm in voxel]
    return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)


@lru_cache
def ball(size: int, radius: float, voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)):
    """Share of every voxel that a sphere around the middle voxel fills, from 3^3 points each."""
    x, y, z = (
        ((np.arange(size * 3) - 1) / 3 - size // 2) * mm for mm in voxel
    )  # voxel n has the points n - 1/3, n, n + 1/3
    inside = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= radius**2
    return block_mean(inside.astype(np.float32), (3, 3, 3))


@pytest.mark.parametrize('b0', [Z, OBLIQUE, (0.0, 1.0, 0.0)])
def test_field_of_a_sphere_is_the_analytic_one(b0: tuple[float, float, float]) -> None:
    chi = 0.8 * ball(49, 6.0)
    field = field_shift(chi, (1.0, 1.0, 1.0), b0)
    points = grid(49)
    distance = np.linalg.norm(points, axis=-1)
    expected = dipole_shift(points, 6.0, 0.8, np.array(b0))
    outside = (distance > 8.0) & (distance < 20.0)
    assert np.abs(field - expected)[outside].max() < 0.02
    assert np.abs(field[distance < 4.5]).max() < 0.03


def test_field_of_a_sphere_on_oblong_voxels() -> None:
    voxel = (1.0, 1.0, 2.0)
    chi = ball(41, 7.0, voxel)
    field = field_shift(chi, voxel)
    points = grid(41, voxel)
    distance = np.linalg.norm(points, axis=-1)
    expected = dipole_shift(points, 7.0, 1.0, np.array(Z))
    outside = (distance > 10.0) & (distance < 18.0)
    assert np.abs(field - expected)[outside].max() < 0.02


def test_the_margin_keeps_the_copies_away() -> None:
    chi = ball(33, 8.0)
    exact = dipole_shift(grid(33), 8.0, 1.0, np.array(Z))
    rim = np.linalg.norm(grid(33), axis=-1) > 13
    wrong = [np.abs(field_shift(chi, (1, 1, 1), margin=m) - exact)[rim].mean() for m in (0.0, 1.0)]
    assert wrong[1] < 0.3 * wrong[0]


def test_field_is_linear_and_free_of_mean() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 12, 10, 8)).astype(np.float32)
    both = field_shift(one + 2 * two, (1, 1, 1), margin=0.0)
    np.testing.assert_allclose(
        both, field_shift(one, (1, 1, 1), margin=0) + 2 * field_shift(two, (1, 1, 1), margin=0),
        atol=1e-5,
    )  # fmt: skip
    assert abs(both.mean()) < 1e-6


def test_kernel_lies_between_a_third_and_minus_two_thirds_and_has_no_mean_field() -> None:
    kernel = dipole_kernel((16, 14, 12), (1.0, 0.7, 2.0), OBLIQUE)
    assert kernel.shape == (16, 14, 7)
    assert kernel.max() <= 1 / 3 + 1e-6
    assert kernel.min() >= -2 / 3 - 1e-6
    assert kernel[0, 0, 0] == 0


def test_dividing_by_the_kernel_gives_the_susceptibility_back() -> None:
    rng = np.random.default_rng(1)
    chi = rng.normal(size=(16, 16, 16)).astype(np.float32)
    kernel = dipole_kernel(chi.shape, (1, 1, 1), Z)
    # the cone at the magic angle has no field: leave those waves out before the way there
    safe = np.abs(kernel) > 0.1
    chi = fft.irfftn(fft.rfftn(chi) * safe, chi.shape)
    field = field_shift(chi, (1, 1, 1), margin=0.0)
    back = fft.irfftn(np.where(safe, fft.rfftn(field) / np.where(safe, kernel, 1), 0), chi.shape)
    np.testing.assert_allclose(back, chi, atol=1e-4)


def test_field_agrees_with_qsm_forward() -> None:
    qsm_forward = pytest.importorskip(
        'qsm_forward', reason='GPL-3: a program to compare with, installed by the dev extra'
    )
    rng = np.random.default_rng(2)
    chi = np.zeros((20, 18, 16))
    chi[5:15, 5:13, 4:12] = rng.normal(0, 0.5, (10, 8, 8))
    # the two treat the shortest wave, whose direction has no sign, in different ways
    chi = ndimage.gaussian_filter(chi, 1.2)
    # qsm-forward 0.32 exchanges the first two voxel sizes, so these are equal
    voxel = [0.8, 0.8, 1.5]
    expected = qsm_forward.generate_field(chi, voxel_size=voxel, B0_dir=list(OBLIQUE))
    field = field_shift(chi, voxel, OBLIQUE, margin=1.0)
    assert np.abs(expected).max() > 0.02
    # the mean field is not defined: it keeps a third of the mean susceptibility
    expected = expected - np.mean(expected) + field.mean()
    np.testing.assert_allclose(field, expected, atol=1e-5)


def test_one_ppm_at_three_tesla_is_128_hertz() -> None:
    assert frequency(np.float32(1.0), 3.0) == pytest.approx(127.73, abs=0.01)


def test_shim_removes_a_parabola_and_leaves_what_is_local() -> None:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 18, 16)], indexing='ij')
    smooth = (3 + 2 * x - y + 4 * x * z + z**2).astype(np.float32)
    mask = x**2 + y**2 + z**2 < 0.8
    np.testing.assert_allclose(shim(smooth, mask), 0, atol=1e-3)
    bump = np.zeros_like(smooth)
    bump[10, 9, 8] = 5
    assert shim(smooth + bump, mask)[10, 9, 8] == pytest.approx(5, abs=0.2)
    few = np.zeros_like(mask)
    few[0, 0, 0] = True
    assert shim(smooth, few) is smooth


def test_slope_of_one_turn_per_voxel_leaves_nothing_and_half_a_turn_two_over_pi() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 4, 4)).copy()
    left = dephasing(ramp * 50.0, (1, 1, 1), (1, 1, 1), 0.020)
    np.testing.assert_allclose(left, 0, atol=1e-5)
    half = dephasing(ramp * 25.0, (1, 1, 1), (1, 1, 1), 0.020)
    np.testing.assert_allclose(half, 2 / np.pi, rtol=1e-5)


def test_dephasing_is_the_mean_of_the_complex_signal() -> None:
    # one voxel of 2 mm over a slope of 30 Hz/mm, averaged on 400 sub-voxels
    x = (np.arange(400) + 0.5) / 400 * 2.0
    mean = abs(complex_signal(np.ones(400), 2 * np.pi * 0.015 * 30 * x).mean())
    ramp = np.broadcast_to(30 * np.arange(6, dtype=np.float32)[:, None, None], (6, 3, 3)).copy()
    assert dephasing(ramp, (1, 1, 1), (2, 1, 1), 0.015)[3, 1, 1] == pytest.approx(mean, abs=1e-4)


def test_complex_signal_has_the_amplitude_and_the_phase() -> None:
    rng = np.random.default_rng(3)
    amplitude, phase = rng.random((3, 4, 5)), rng.uniform(-3, 3, (3, 4, 5))
    signal = complex_signal(amplitude, phase)
    np.testing.assert_allclose(np.abs(signal), amplitude, atol=1e-6)
    np.testing.assert_allclose(np.angle(signal), phase, atol=1e-5)


def test_averaging_never_adds_energy_and_keeps_the_mean() -> None:
    rng = np.random.default_rng(4)
    signal = complex_signal(np.ones((8, 6, 9)), rng.uniform(-3, 3, (8, 6, 9)))
    voxels = block_mean(signal, (2, 3, 3))
    assert voxels.shape == (4, 2, 3)
    assert np.abs(voxels).max() <= 1 + 1e-6
    assert (np.abs(voxels) ** 2).sum() * 18 <= (np.abs(signal) ** 2).sum()
    np.testing.assert_allclose(voxels.mean(), signal.mean(), atol=1e-6)
    np.testing.assert_allclose(voxels[1, 1, 2], signal[2:4, 3:6, 6:9].mean(), atol=1e-6)


def test_interpolation_is_exact_for_what_is_linear() -> None:
    i, j, k = np.meshgrid(*map(np.arange, (6, 5, 7)), indexing='ij')
    volume = (2 * i - 3 * j + 0.5 * k).astype(np.float32)
    points = [np.array([0.0, 1.25, 4.5]), np.array([0.5, 3.0]), np.array([6.0, 2.75, 0.1, 1])]
    x, y, z = np.meshgrid(*points, indexing='ij')
    np.testing.assert_allclose(interpolate(volume, points), 2 * x - 3 * y + 0.5 * z, atol=1e-5)
    whole = [np.arange(n) for n in volume.shape]
    np.testing.assert_array_equal(interpolate(volume, whole), volume)


def sphere(chi: float, radius: float = 1.6) -> Lesion:
    return Lesion((12.0, 12.0, 12.0), 3.0, radius, chi, 1.0, ((0.0, 0.0, 0.0, radius),))


def test_the_closed_form_of_a_lesion_agrees_with_the_kernel_in_k_space() -> None:
    protocol = Protocol(3.0, 0.015)
    box, signal, share = lesion_signal(sphere(0.6, 2.5), (1, 1, 1), (25,) * 3, protocol,
                                       reach_mm=9.0, subvoxel_mm=0.2)  # fmt: skip
    parts = 5
    points = grid(25 * parts, (1 / parts,) * 3)
    fine = 0.6 * (np.square(points).sum(-1) <= 2.5**2)
    field = field_shift(fine, (1 / parts,) * 3, margin=0.5)
    phase = 2 * np.pi * 0.015 * frequency(field, 3.0)
    decay = np.exp(-127.0 * 0.6 * 0.015 * (fine > 0))
    voxels = block_mean(complex_signal(decay, phase), (parts,) * 3)
    np.testing.assert_allclose(np.abs(signal), np.abs(voxels[box]), atol=0.08)
    strong = np.abs(voxels[box]) > 0.3
    turned = np.angle(signal * np.conj(voxels[box]))
    assert np.abs(turned[strong]).max() < 0.2
    assert share.sum() == pytest.approx(4 / 3 * np.pi * 2.5**3, rel=0.02)


def test_calcium_has_the_magnitude_of_blood_and_the_opposite_phase() -> None:
    protocol = Protocol(3.0, 0.020)
    _, blood, _ = lesion_signal(sphere(0.7), (1, 1, 1), (25,) * 3, protocol)
    _, calcium, _ = lesion_signal(sphere(-0.7), (1, 1, 1), (25,) * 3, protocol)
    np.testing.assert_allclose(calcium, np.conj(blood), atol=1e-12)
    # above the pole the field is raised by what is paramagnetic
    pole = (blood.shape[0] // 2, blood.shape[1] // 2, blood.shape[2] // 2 + 3)
    assert np.angle(blood[pole]) > 0.05
    expected = 2 * np.pi * GAMMA_HZ_PER_T * 3.0 * 0.7e-6 * 2 / 3 * (1.6 / 3.0) ** 3 * 0.020
    assert np.angle(blood[pole]) == pytest.approx(expected, rel=0.25)
