from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from shivacmb.simulate import lesions
from shivacmb.simulate.lesions import (
    Lesion,
    Protocol,
    blooming,
    dipole_shift,
    draw_lesion,
    draw_radius,
    lesion_factor,
    lesion_signal,
    lobe_shares,
    phase_reach,
    visible_label,
)
from shivacmb.simulate.physics import field_shift

Z = np.array([0.0, 0.0, 1.0])


def sphere(radius: float, chi: float, depth: float = 1.0, centre=(10.0, 10.0, 10.0)) -> Lesion:
    return Lesion(centre, radius, radius, chi, depth, ((0.0, 0.0, 0.0, radius),))


@pytest.mark.parametrize(
    ('field', 'echo', 'ratio'), [(3.0, 0.020, 1.75), (1.5, 0.020, 1.39), (3.0, 0.040, 2.20)]
)
def test_blooming_of_half_a_ppm_is_as_published(field: float, echo: float, ratio: float) -> None:
    assert blooming(0.5, Protocol(field, echo)) == pytest.approx(ratio, abs=0.01)


def test_blooming_never_shrinks_a_lesion() -> None:
    assert blooming(1e-4, Protocol(1.5, 0.001)) == 1.0


def test_field_of_a_sphere_is_the_analytic_dipole() -> None:
    points = np.array([[0, 0, 2.0], [2.0, 0, 0], [0, 0, 1.0], [0, 0, 0.5]])
    # poles 2/3 chi (a/r)^3, equator -1/3, inside 0 (Lorentz)
    expected = [2 / 3 * 0.9 / 8, -1 / 3 * 0.9 / 8, 2 / 3 * 0.9, 0.0]
    np.testing.assert_allclose(dipole_shift(points, 1.0, 0.9, Z), expected, atol=1e-12)


def test_field_averages_to_nothing_over_a_shell() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200_000, 3))
    points *= 1.7 / np.linalg.norm(points, axis=1, keepdims=True)
    assert abs(dipole_shift(points, 1.0, 1.0, Z).mean()) < 2e-3


def test_field_turns_with_the_main_field() -> None:
    points = np.random.default_rng(1).normal(size=(50, 3)) * 3
    along_x = dipole_shift(points[:, [2, 1, 0]], 1.0, 1.0, np.array([1.0, 0, 0]))
    np.testing.assert_allclose(along_x, dipole_shift(points, 1.0, 1.0, Z))


def test_no_susceptibility_takes_no_signal() -> None:
    _, factor = lesion_factor(sphere(1.5, 0.0), (1.0, 1.0, 1.0), (21, 21, 21), Protocol())
    np.testing.assert_allclose(factor, 1.0, atol=1e-6)


def test_lesion_is_darkest_at_its_centre_and_stays_between_0_and_1() -> None:
    box, factor = lesion_factor(sphere(2.0, 1.5), (1.0, 1.0, 1.0), (21, 21, 21), Protocol())
    darkest = np.array(np.unravel_index(factor.argmin(), factor.shape))
    assert np.abs(darkest + [part.start for part in box] - 10).max() <= 2
    assert factor.min() >= 0
    assert factor.min() < 0.3
    assert factor.max() <= 1 + 1e-6


def test_depth_scales_the_loss() -> None:
    size, shape = (1.0, 1.0, 2.0), (21, 21, 11)
    _, whole = lesion_factor(sphere(1.5, 1.0), size, shape, Protocol())
    _, half = lesion_factor(sphere(1.5, 1.0, depth=0.5), size, shape, Protocol())
    np.testing.assert_allclose(1 - half, 0.5 * (1 - whole), atol=1e-6)


def test_a_longer_echo_takes_more_signal() -> None:
    lost = [
        (1 - lesion_factor(sphere(1.2, 0.4), (1.0,) * 3, (21,) * 3, Protocol(3.0, te))[1]).sum()
        for te in (0.01, 0.02, 0.04)
    ]
    assert lost[0] < lost[1] < lost[2]


def test_thick_slices_hide_part_of_a_lesion() -> None:
    _, thin = lesion_factor(sphere(1.2, 1.0), (1.0, 1.0, 1.0), (21, 21, 21), Protocol())
    _, thick = lesion_factor(sphere(1.2, 1.0), (1.0, 1.0, 5.0), (21, 21, 5), Protocol())
    assert thick.min() > thin.min() + 0.1


def test_lesion_at_the_rim_is_cut_and_one_outside_is_empty() -> None:
    box, factor = lesion_factor(
        sphere(1.5, 1.0, centre=(0.0, 0.0, 0.0)), (1.0,) * 3, (9, 9, 9), Protocol()
    )
    assert all(part.start == 0 for part in box)
    assert factor.shape == tuple(part.stop for part in box)
    _, outside = lesion_factor(
        sphere(1.5, 1.0, centre=(50.0, 0.0, 0.0)), (1.0,) * 3, (9, 9, 9), Protocol()
    )
    assert outside.size == 0


def lobed(lobes: int) -> Lesion:
    rng = np.random.default_rng(0)
    while True:
        lesion = draw_lesion(rng, (14.4, 14.4, 14.4), Protocol(), apparent_radius=2.0)
        if len(lesion.lobes) == lobes:
            return lesion


@pytest.mark.parametrize('lobes', [1, 2, 3, 4])
@pytest.mark.parametrize('size', [(0.8, 0.8, 0.8), (0.3, 5.0, 1.2), (2.0, 2.0, 4.0)])
def test_lobes_hold_the_volume_of_their_spheres(
    lobes: int, size: tuple[float, float, float]
) -> None:
    lesion = lobed(lobes)
    shape = tuple(int(30 / side) for side in size)
    for (_, _, _, radius), (box, share) in zip(
        lesion.lobes, lobe_shares(lesion, size, shape), strict=True
    ):
        assert share.shape == tuple(part.stop - part.start for part in box)
        assert share.sum() * np.prod(size) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.012)
        assert share.min() >= 0
        assert share.max() <= 1 + 1e-9


@pytest.mark.parametrize('lobes', [1, 2, 3, 4])
def test_the_field_of_the_susceptibility_is_that_of_the_spheres(lobes: int) -> None:
    lesion, size, side = lobed(lobes), (0.3,) * 3, 96
    chi = np.zeros((side,) * 3, np.float32)
    for box, share in lobe_shares(lesion, size, chi.shape):
        chi[box] += lesion.chi * share
    # 5 mm up, 5 mm aside, and between: several radii away
    at = np.array([[48, 48, 65], [65, 48, 48], [48, 59, 61]])
    away = at * 0.3 - lesion.centre
    closed = sum(dipole_shift(away - lobe[:3], lobe[3], lesion.chi, Z) for lobe in lesion.lobes)
    np.testing.assert_allclose(
        field_shift(chi, size, margin=0.5)[tuple(at.T)], closed, rtol=0.03, atol=1e-5
    )


def test_lobes_at_the_rim_are_cut_and_those_outside_are_empty() -> None:
    # half of the first lies on either side of the scan's end
    lesion = Lesion((-0.5, 5.0, 5.0), 2.0, 2.0, 1.0, 1.0,
                    ((0.0, 0.0, 0.0, 2.0), (-9.0, 0.0, 0.0, 2.0)))  # fmt: skip
    (box, half), (_, outside) = lobe_shares(lesion, (1.0,) * 3, (11, 11, 11))
    assert box[0].start == 0
    assert half.sum() == pytest.approx(2 / 3 * np.pi * 8, rel=0.012)
    assert outside.size == 0


@pytest.mark.parametrize('most', [1, 5_000, 40_000])
@pytest.mark.parametrize(
    ('size', 'shape'),
    [((0.8, 0.8, 1.5), (40, 40, 20)), ((0.3, 2.0, 5.0), (90, 15, 6)),
     ((1.0, 1.0, 4.0), (30, 1, 1)), ((5.0, 0.9, 0.9), (1, 30, 30))],
)  # fmt: skip
def test_a_box_in_many_blocks_has_the_bytes_of_one(
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    size: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> None:
    # in the last block of an axis there may be fewer voxels than in the others
    tilted = Protocol(7.0, 0.015, (0.6, 0.0, 0.8))
    x, y, z = (side * count / 2 for side, count in zip(size, shape, strict=True))
    lesion = replace(lobed(3), centre=(x, y, z), apparent_radius=1.4)
    monkeypatch.setattr(lesions, '_MOST_POINTS', 10**9)
    box, signal, share = lesion_signal(lesion, size, shape, tilted, inside_signal=0.3)
    monkeypatch.setattr(lesions, '_MOST_POINTS', most)
    again = lesion_signal(lesion, size, shape, tilted, inside_signal=0.3)
    assert again[0] == box
    assert again[1].tobytes() == signal.tobytes()
    assert again[2].tobytes() == share.tobytes()
    assert np.abs(signal - 1).max() > 0.1


@pytest.mark.parametrize('size', [(0.25, 0.25, 1.2), (1.2, 0.25, 0.25)])
def test_memory_does_not_grow_with_the_points_of_a_box(size: tuple[float, float, float]) -> None:
    lesion = Lesion((20.0, 20.0, 20.0), 2.0, 1.0, 1.0, 1.0, ((0.0, 0.0, 0.0, 1.0),))
    shape = tuple(int(40 / side) for side in size)
    tracemalloc.start()
    box, signal, _ = lesion_signal(
        lesion, size, shape, Protocol(7.0), reach_mm=phase_reach(lesion)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 12 million points: more than 1 GB at once
    assert signal.size * 3 * 3 * 5 > 11e6
    assert signal.shape == tuple(part.stop - part.start for part in box)
    assert peak < 100e6


def test_label_is_where_more_than_half_of_the_peak_was_lost() -> None:
    drop = np.array([0.0, 0.39, 0.41, 0.8, 0.4])
    assert visible_label(drop).tolist() == [False, False, True, True, False]
    assert not visible_label(np.zeros(3)).any()


def test_drawn_radii_follow_the_published_distribution() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_lesion(rng, (0.0, 0.0, 0.0), Protocol()) for _ in range(3000)]
    radii = np.array([lesion.apparent_radius for lesion in drawn])
    assert np.median(radii) == pytest.approx(np.exp(0.297), rel=0.03)
    assert np.log(radii).std() == pytest.approx(0.36, rel=0.06)
    volume = [sum(lobe[3] ** 3 for lobe in lesion.lobes) ** (1 / 3) for lesion in drawn]
    np.testing.assert_allclose(volume, [lesion.radius for lesion in drawn], rtol=1e-9)


def test_the_same_seed_draws_the_same_lesion() -> None:
    one, two = (
        draw_lesion(np.random.default_rng(3), (1.0, 2.0, 3.0), Protocol()) for _ in range(2)
    )
    assert one == two


def test_training_may_ask_for_more_large_lesions() -> None:
    rng = np.random.default_rng(5)
    few = np.array([draw_radius(rng) for _ in range(4000)])
    many = np.array([draw_radius(rng, 0.5) for _ in range(4000)])
    assert few.max() <= 5.6
    assert np.quantile(few, 0.95) == pytest.approx(2.42, rel=0.05)
    # half of them: from a triangle between 1.5 and 5 mm, of which (2.6 / 3.5)**2 lies above 2.4
    share = 0.5 * (few > 2.4).mean() + 0.5 * (2.6 / 3.5) ** 2
    assert (many > 2.4).mean() == pytest.approx(share, abs=0.03)
    assert draw_radius(np.random.default_rng(6), 1.0) >= 1.5
