from __future__ import annotations

import numpy as np
import pytest

from shivacmb.simulate.mimics import (
    Vessel,
    blob_factor,
    draw_field,
    gaussian_field,
    grow_vessel,
    paint_vessels,
)


def tube(radius: float, axis: int = 2) -> Vessel:
    points = np.full((41, 3), 15.0)
    points[:, axis] = np.linspace(5, 25, 41)
    return Vessel(points, np.full(41, radius))


@pytest.mark.parametrize('voxel', [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0)])
def test_a_painted_tube_takes_its_own_volume(voxel: tuple[float, float, float]) -> None:
    shape = tuple(int(31 / v) for v in voxel)
    factor = paint_vessels(
        np.random.default_rng(0), [tube(0.3)], [0.5], voxel, shape, per_mm3=2000
    )
    lost = (1 - factor).sum() * np.prod(voxel) / 0.5
    assert lost == pytest.approx(np.pi * 0.3**2 * 20.5, rel=0.02)


def test_a_tube_across_thick_slices_is_a_dot_in_each_of_them() -> None:
    factor = paint_vessels(
        np.random.default_rng(1), [tube(0.8)], [1.0], (1.0, 1.0, 4.0), (31, 31, 8)
    )
    slices = [int((factor[:, :, k] < 0.85).sum()) for k in range(8)]
    assert [bool(n) for n in slices] == [False] + [True] * 6 + [False]
    assert max(slices) <= 9


def test_negative_strength_makes_bright() -> None:
    factor = paint_vessels(np.random.default_rng(2), [tube(1.0)], [-0.3], (1.0,) * 3, (31, 31, 31))
    assert factor.max() > 1.2
    assert factor.min() == 1.0


def test_vessels_bend_branch_and_vary() -> None:
    grown = grow_vessel(
        np.random.default_rng(3), np.zeros(3), np.array([1.0, 0, 0]), length=30, radius=1.0,
        branches=0.3,
    )  # fmt: skip
    trunk = grown[0]
    assert len(grown) > 1
    assert np.linalg.norm(trunk.points[-1]) < 29.5
    assert trunk.radii.max() / trunk.radii.min() > 1.3
    np.testing.assert_allclose(np.linalg.norm(np.diff(trunk.points, axis=0), axis=1), 0.5)


def test_a_guided_vessel_stays_where_the_guide_leads() -> None:
    def slab(points: np.ndarray) -> np.ndarray:
        return np.maximum(0, 3 - np.abs(points[:, 2]))

    trunk = grow_vessel(
        np.random.default_rng(4), np.zeros(3), np.array([1.0, 0, 0]), length=40, radius=1.0,
        branches=0, guide=slab,
    )[0]  # fmt: skip
    assert np.abs(trunk.points[:, 2]).max() < 3
    assert len(grow_vessel(
        np.random.default_rng(5), np.zeros(3), np.ones(3), length=9, radius=1.0,
        guide=lambda points: np.zeros(len(points)),
    )[0].points) == 1  # fmt: skip


@pytest.mark.parametrize('scale', [1.0, 5.0])
def test_gaussian_field_is_centred_and_scaled(scale: float) -> None:
    noise = gaussian_field(np.random.default_rng(6), (48, 40, 44), scale)
    assert noise.shape == (48, 40, 44)
    assert abs(noise.mean()) < 0.5
    assert noise.std() == pytest.approx(1, abs=0.35)
    step = np.diff(noise, axis=0).std() / noise.std()
    assert step == pytest.approx(1 / (scale * np.sqrt(2)), rel=0.35)


def test_a_field_is_drawn_at_once_and_smoothed_when_asked_for() -> None:
    rng, other = np.random.default_rng(6), np.random.default_rng(6)
    later = draw_field(rng, (20, 18, 16), 4.0)
    wanted = gaussian_field(other, (20, 18, 16), 4.0)
    assert rng.random() == other.random()
    np.testing.assert_array_equal(later(), wanted)
    np.testing.assert_array_equal(later(), wanted)
    assert rng.random() == other.random()


def test_a_blob_is_dark_inside_and_leaves_the_outside() -> None:
    axes = np.stack(np.meshgrid(*[np.arange(-15.0, 16)] * 3, indexing='ij'), axis=-1)
    factor = blob_factor(np.random.default_rng(7), axes, np.full(3, 6.0), 0.8, rough=0.2)
    assert factor[15, 15, 15] < 0.3
    assert factor[0, 0, 0] > 0.95
