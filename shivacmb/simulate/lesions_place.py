"""How many microbleeds a simulated scan gets, and where.

Numbers: hand fit to the VALDO cohort and to zones of 957 published lesion positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.exceptions import DataError, UsageError

Array = NDArray[Any]

#: Share of lesions per zone.
ZONES: dict[str, float] = {
    'white_matter': 0.40,
    'cortex': 0.33,
    'cerebellum': 0.09,
    'basal_ganglia': 0.08,
    'thalamus': 0.055,
    'brainstem': 0.045,
}


def draw_count(rng: np.random.Generator, *, free: float = 0.3, cap: int = 120) -> int:
    """Draw the number of lesions of one scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    free : float
        Share of lesion-free scans.
    cap : int
        Largest number.

    Returns
    -------
    int
        0 with probability ``free``, else ``1 + floor(LogNormal(-0.5, 2))`` up to ``cap``.
    """
    if rng.random() < free:
        return 0
    return int(min(cap, 1 + np.floor(rng.lognormal(-0.5, 2.0))))


def check_wishes(
    lesions: tuple[int, int] | None,
    lesion_free: float,
    radius_mm: tuple[float, float] | None,
    chi_ppm: tuple[float, float],
) -> None:
    """Refuse lesions that cannot be: numbers, radii in mm, susceptibilities in ppm.

    Raises
    ------
    UsageError
        When a range falls or leaves its limits.
    """
    _check_range('lesions', lesions, 0, 120)
    _check_range('radius in mm', radius_mm, 0.2, 10.0)
    _check_range('susceptibility in ppm', chi_ppm, 0.01, 10.0)
    if not 0 <= lesion_free <= 1:
        raise UsageError(f'the share of lesion-free subjects, {lesion_free}, is not 0 to 1')


def _check_range(name: str, ends: tuple[float, float] | None, low: float, high: float) -> None:
    if ends is not None and not low <= ends[0] <= ends[1] <= high:
        raise UsageError(
            f'{name} {ends[0]:g}-{ends[1]:g}: give a range that rises, between {low:g} and '
            f'{high:g}'
        )


def place(
    rng: np.random.Generator,
    zones: dict[str, Array],
    brain: Array,
    count: int,
    *,
    voxel_mm: float = 1.0,
    edge_mm: float = 3.0,
    apart_mm: float = 6.0,
    avoid: Array | None = None,
) -> list[tuple[int, int, int, str]]:
    """Choose voxels for lesions.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    zones : dict of ndarray, bool [X, Y, Z]
        Masks by the names of :data:`ZONES`; empty ones are skipped.
    brain : ndarray, bool [X, Y, Z]
        Brain mask on the same grid.
    count : int
        Wanted number; fewer come back when the room runs out.
    voxel_mm : float
        Isotropic voxel size.
    edge_mm, apart_mm : float
        Least distance to the edge of ``brain`` and between lesions.
    avoid : ndarray, bool [X, Y, Z], optional
        Voxels that may not become a centre.

    Returns
    -------
    list of (i, j, k, zone)
        Voxel indices and zone names.

    Raises
    ------
    DataError
        When no zone has any room.
    """
    steps = int(np.ceil(edge_mm / voxel_mm))
    deep = ndimage.binary_erosion(brain, iterations=steps) if steps else brain
    if avoid is not None:
        deep = deep & ~avoid
    room = {name: np.flatnonzero(mask & deep) for name, mask in zones.items() if name in ZONES}
    names = [name for name, where in room.items() if where.size]
    if count and not names:
        raise DataError(
            'No voxel of any zone lies deep enough in the brain mask to hold a lesion; '
            'give a larger mask or a smaller edge distance.'
        )
    shares = np.array([ZONES[name] for name in names])
    chosen: list[tuple[int, int, int, str]] = []
    taken = np.empty((0, 3))
    for _ in range(count * 20):
        if len(chosen) == count:
            break
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        index = np.array(np.unravel_index(int(rng.choice(room[name])), brain.shape))
        far = np.linalg.norm((taken - index) * voxel_mm, axis=1) >= apart_mm
        if far.all():
            taken = np.vstack([taken, index])
            chosen.append((int(index[0]), int(index[1]), int(index[2]), name))
    return chosen
