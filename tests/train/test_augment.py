"""Movements have inverses, curves rise, flips flip."""

from __future__ import annotations

import numpy as np
import pytest

from shivacmb.train.augment import (
    Augmentation,
    Move,
    apply_curve,
    bezier_curve,
    draw_inner,
    draw_move,
    sample,
)

SHAPE = (12, 15, 10)


def volume() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1


def test_nothing_moves_without_a_move() -> None:
    moved = sample(volume(), Move().matrix(SHAPE), SHAPE, order=1)
    np.testing.assert_array_equal(moved, volume())


def test_a_flip_mirrors_left_and_right_and_is_its_own_inverse() -> None:
    matrix = Move(flip=True).matrix(SHAPE)
    flipped = sample(volume(), matrix, SHAPE, order=1)
    np.testing.assert_array_equal(flipped, volume()[::-1])
    np.testing.assert_array_equal(sample(flipped, matrix, SHAPE, order=1), volume())


@pytest.mark.parametrize('shift', [(3.0, -2.0, 0.0), (-11.0, 14.0, 9.0), (0.0, 0.0, -30.0)])
def test_a_shift_moves_by_whole_voxels(shift: tuple[float, float, float]) -> None:
    moved = sample(volume(), Move(shift=shift).matrix(SHAPE), SHAPE, order=1)
    expected = np.zeros(SHAPE, np.float32)
    for index in np.ndindex(*SHAPE):
        source = np.array(index) - np.array(shift, int)
        if ((source >= 0) & (source < SHAPE)).all():
            expected[index] = volume()[tuple(source)]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize('axis', range(3))
def test_a_quarter_turn_is_the_quarter_turn_of_numpy(axis: int) -> None:
    cube = np.arange(125, dtype=np.float32).reshape(5, 5, 5)
    angles = [0.0, 0.0, 0.0]
    angles[axis] = 90.0
    moved = sample(cube, Move(angles=tuple(angles)).matrix(cube.shape), cube.shape, order=0)
    plane = ((axis + 1) % 3, (axis + 2) % 3)
    np.testing.assert_array_equal(moved, np.rot90(cube, axes=plane))


def test_a_move_and_its_inverse_return_every_point() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        move = draw_move(rng, Augmentation())
        matrix = move.matrix(SHAPE)
        points = np.concatenate([rng.uniform(0, 9, (3, 8)), np.ones((1, 8))])
        there = np.linalg.inv(matrix) @ points
        np.testing.assert_allclose(matrix @ there, points, atol=1e-9)
        # rigid: distances stay
        np.testing.assert_allclose(np.abs(np.linalg.det(matrix)), 1, atol=1e-12)
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)


def test_turning_there_and_back_returns_a_smooth_image() -> None:
    grid = np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing='ij')
    smooth = np.exp(-4 * sum(axis**2 for axis in grid)).astype(np.float32)
    matrix = Move(angles=(7.0, 0.0, 0.0)).matrix(smooth.shape)
    there = sample(smooth, matrix, smooth.shape, order=1)
    back = sample(there, np.linalg.inv(matrix), smooth.shape, order=1)
    inner = (slice(8, 32),) * 3
    assert np.abs(back - smooth)[inner].max() < 0.01
    assert np.abs(there - smooth)[inner].max() > 0.01 or np.allclose(there, smooth, atol=0.02)


def test_draws_stay_within_their_limits_and_use_them() -> None:
    rng = np.random.default_rng(1)
    moves = [
        draw_move(rng, Augmentation(shift_voxels=10, rotation_degrees=10)) for _ in range(400)
    ]
    shifts = np.array([move.shift for move in moves])
    angles = np.array([move.angles for move in moves])
    assert shifts.min() == -10
    assert shifts.max() == 10
    assert 9 < np.abs(angles).max() <= 10
    assert 150 < sum(move.flip for move in moves) < 250
    still = [draw_move(rng, Augmentation(flip=False, shift_voxels=0, rotation_degrees=0))
             for _ in range(20)]  # fmt: skip
    assert set(still) == {Move()}


def test_a_curve_is_the_bezier_of_its_points() -> None:
    # inner points on the diagonal: the identity
    np.testing.assert_allclose(
        bezier_curve(np.array([[1 / 3, 1 / 3], [2 / 3, 2 / 3]]), np.linspace(0, 1, 11)),
        np.linspace(0, 1, 11), atol=1e-6,
    )  # fmt: skip
    # at t = 1/2: x = 3/8 (x1 + x2) + 1/8, y likewise
    inner = np.array([[0.2, 0.0], [0.6, 0.4]])
    assert bezier_curve(inner, np.array([0.425]))[0] == pytest.approx(0.275, abs=1e-6)


@pytest.mark.parametrize('curves', ['sorted', 'free'])
@pytest.mark.parametrize('seed', range(30))
def test_curves_rise_and_keep_both_ends(seed: int, curves: str) -> None:
    inner = draw_inner(np.random.default_rng(seed), curves)
    values = bezier_curve(inner, np.linspace(0, 1, 500))
    assert (np.diff(values) >= -1e-9).all()
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[-1] == pytest.approx(1)


def test_the_steepest_reversed_points_still_do_not_fall() -> None:
    values = bezier_curve(np.array([[1.0, 1.0], [0.0, 0.0]]), np.linspace(0, 1, 500))
    assert (np.diff(values) >= -1e-9).all()


def test_sorted_points_are_sorted_and_free_ones_are_not_always() -> None:
    rng = np.random.default_rng(0)
    assert all((np.diff(draw_inner(rng, 'sorted'), axis=0) >= 0).all() for _ in range(50))
    assert not all((np.diff(draw_inner(rng, 'free'), axis=0) >= 0).all() for _ in range(50))


def test_a_curve_spans_the_whole_range_of_the_intensities() -> None:
    inner = draw_inner(np.random.default_rng(3), 'sorted')
    image = np.linspace(0, 2, 50, dtype=np.float32).reshape(5, 10)
    bent = apply_curve(image, inner, top=2.0)
    assert bent.dtype == np.float32
    assert bent.min() == 0
    assert bent.max() == pytest.approx(2)
    np.testing.assert_allclose(bent, 2 * bezier_curve(inner, image / 2), atol=1e-4)
