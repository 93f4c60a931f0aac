"""Shapes of what looks like a microbleed and is none: vessels, iron, calcium, dark fluid.

Vessels are grown as branching paths of varying bore and painted as clouds of points, so that a
voxel of any shape takes the share of its volume that the vessel fills: thick slices cut them into
beads and dots as they do in a scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


@dataclass(frozen=True)
class Vessel:
    """A path with its bore.

    Attributes
    ----------
    points : ndarray, float [N, 3]
        In mm.
    radii : ndarray, float [N]
        In mm.
    """

    points: Array
    radii: Array


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def grow_vessel(
    rng: np.random.Generator,
    start: Array,
    direction: Array,
    *,
    length: float,
    radius: float,
    step: float = 0.5,
    bend: float = 0.25,
    wobble: float = 0.12,
    branches: float = 0.03,
    guide: Callable[[Array], Array] | None = None,
    depth: int = 2,
) -> list[Vessel]:
    """Grow a curved, branching vessel.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    start, direction : ndarray, float [3]
        First point in mm and first direction.
    length, radius : float
        In mm.
    step : float
        Distance between points in mm.
    bend : float
        Standard deviation of the turn per step, in radians.
    wobble : float
        Standard deviation of the change of the logarithm of the bore per step.
    branches : float
        Expected branches per mm.
    guide : callable, optional
        Maps points [N, 3] in mm to scores [N]; at each step the best of four turns is taken, and
        the path ends where the score is 0.
    depth : int
        Generations of branches still allowed.

    Returns
    -------
    list of Vessel
        The trunk first.
    """
    steps = max(2, round(length / step))
    point, heading = np.asarray(start, float), _unit(np.asarray(direction, float))
    drift, curve = 0.0, rng.normal(scale=bend / 2, size=3)
    points, radii, children = [point], [radius], []
    turns = rng.normal(scale=bend, size=(steps, 4, 3))
    pulses = rng.normal(scale=wobble, size=steps)
    forks = rng.random(steps) < branches * step
    for i in range(steps):
        curve = 0.9 * curve + 0.1 * turns[i, 0]
        if guide is None:
            heading = _unit(heading + curve + 0.3 * turns[i, 0])
        else:
            options = heading + turns[i]
            options /= np.linalg.norm(options, axis=1, keepdims=True)
            scores = guide(point + 3 * step * options)
            if scores.max() <= 0:
                break
            heading = options[int(np.argmax(scores))]
        point = point + step * heading
        drift = 0.85 * drift + pulses[i]
        width = radius * float(np.exp(drift)) * (1.0 - 0.4 * i / steps)
        points.append(point)
        radii.append(width)
        if forks[i] and depth > 0:
            side = _unit(heading + rng.normal(scale=0.7, size=3))
            children += grow_vessel(
                rng, point, side, length=length * float(rng.uniform(0.2, 0.6)),
                radius=width * float(rng.uniform(0.5, 0.9)), step=step, bend=bend, wobble=wobble,
                branches=branches, guide=guide, depth=depth - 1,
            )  # fmt: skip
    return [Vessel(np.array(points), np.array(radii)), *children]


def paint_vessels(
    rng: np.random.Generator,
    vessels: list[Vessel],
    strengths: list[float],
    voxel_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    *,
    per_mm3: float = 40.0,
) -> Array:
    """Signal that remains where vessels run.

    Parameters
    ----------
    rng : numpy.random.Generator
        Places the points of the clouds.
    vessels : list of Vessel
        In mm from the centre of voxel (0, 0, 0), along the scan's axes.
    strengths : list of float
        Per vessel: signal lost by a voxel it fills, 0 to 1; negative makes it brighter.
    voxel_mm : tuple of three float
        Voxel size.
    shape : tuple of three int
        The scan's shape.
    per_mm3 : float
        Points per cubic millimetre.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        Factors, 1 where no vessel is.
    """
    loss = np.zeros(int(np.prod(shape)), np.float32)
    size = np.asarray(voxel_mm, float)
    for vessel, strength in zip(vessels, strengths, strict=True):
        gaps = np.linalg.norm(np.diff(vessel.points, axis=0), axis=1)
        gaps = np.append(gaps, gaps[-1:] if gaps.size else [1.0])
        volumes = np.pi * vessel.radii**2 * gaps
        counts = np.maximum(2, np.ceil(volumes * per_mm3)).astype(int)
        owner = np.repeat(np.arange(len(counts)), counts)
        ball = rng.normal(size=(owner.size, 3))
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        reach = (vessel.radii[owner] * rng.random(owner.size) ** (1 / 3))[:, None]
        index = np.rint((vessel.points[owner] + ball * reach) / size).astype(int)
        keep = ((index >= 0) & (index < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[keep].T), shape)
        where, inverse = np.unique(flat, return_inverse=True)
        share = np.bincount(inverse, (volumes / counts)[owner][keep]) / size.prod()
        loss[where] += strength * np.minimum(1.0, share)
    return np.asarray(np.clip(1.0 - loss.reshape(shape), 0.02, 1.5))


def gaussian_field(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """Gaussian random field with a given blob size.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    shape : tuple of int
        Shape of the result.
    scale : float
        Standard deviation of the smoothing, in voxels; a coarse grid is interpolated above 2.

    Returns
    -------
    ndarray, float32
        Mean 0, standard deviation about 1.
    """
    return draw_field(rng, shape, scale)()


def draw_field(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float
) -> Callable[[], Array]:
    """Draw a :func:`gaussian_field`, and leave the work that needs no draw for later.

    Parameters
    ----------
    rng, shape, scale
        As there.

    Returns
    -------
    callable
        Gives the field; any thread may call it.
    """
    coarse = max(1.0, scale / 1.5)
    small = tuple(int(np.ceil(n / coarse)) + 4 for n in shape)
    noise = rng.standard_normal(small, dtype=np.float32)

    def smooth() -> Array:
        field = ndimage.gaussian_filter(noise, scale / coarse, mode='wrap')
        field /= field.std()
        if coarse > 1.0:
            field = ndimage.affine_transform(
                field, np.full(len(shape), 1 / coarse), offset=1.0, output_shape=shape, order=1
            )
        return np.asarray(field[tuple(slice(n) for n in shape)], np.float32)

    return smooth


def blob_factor(
    rng: np.random.Generator, grid: Array, radii: Array, depth: float, rough: float = 0.35
) -> Array:
    """Remaining signal around a lumpy ellipsoid, wide or long unlike a microbleed.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the surface.
    grid : ndarray, float [X, Y, Z, 3]
        Positions relative to the centre in mm.
    radii : ndarray, float [3]
        Half axes in mm.
    depth : float
        Signal lost inside.
    rough : float
        Standard deviation of the surface as a share of the radius.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        Factors.
    """
    norm = np.sqrt(((grid / radii) ** 2).sum(axis=-1))
    norm = norm + rough * gaussian_field(rng, norm.shape, 3.0) * 0.5
    edge = 1.0 / (1.0 + np.exp(np.clip((norm - 1.0) * 8.0, -30, 30)))
    return np.asarray(1.0 - depth * edge, np.float32)
