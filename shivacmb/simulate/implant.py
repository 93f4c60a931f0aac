"""Lesions put into scans of people: what a site's protocol shows of them, and what it hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.exceptions import DataError
from shivacmb.imaging.zones import SIDE_STEP, Zone
from shivacmb.lesions.surroundings import parenchyma
from shivacmb.simulate.dataset_scan import least_drop
from shivacmb.simulate.exact import one_thread
from shivacmb.simulate.implant_swi import slice_axis, weighting
from shivacmb.simulate.lesions import (
    Lesion,
    Protocol,
    draw_lesion,
    lesion_signal,
    phase_reach,
    visible_label,
)
from shivacmb.simulate.lesions_place import place

Array = NDArray[Any]
Box = tuple[slice, slice, slice]

#: Zone of lesions in scans whose zones are not known.
ZONE = 'brain'
#: Zones in which simulated lesions lie, as they are found in a scan.
FOUND_AS: dict[str, Zone] = {
    'white_matter': Zone.WHITE_MATTER,
    'cortex': Zone.CORTEX,
    'cerebellum': Zone.CEREBELLUM,
    'basal_ganglia': Zone.DEEP_GREY,
    'thalamus': Zone.THALAMUS,
    'brainstem': Zone.BRAINSTEM,
}


@dataclass(frozen=True)
class Host:
    """A scan that receives lesions.

    Attributes
    ----------
    magnitude : ndarray, float32 [X, Y, Z]
        As stored, any unit.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.
    protocol : Protocol
        Field, echo time, and the main field's direction along the voxel axes.
    phase : ndarray, float32 [X, Y, Z], optional
        In rad.
    phase_sign : int
        1 where a raised field gives a positive phase, -1 where a negative one.
    swi : bool
        Whether ``magnitude`` is an SWI: multiplied by a mask that was made of the phase.
    zones : ndarray, uint8 [X, Y, Z], optional
        Values of :data:`shivacmb.imaging.zones.REGIONS`; None where they are not known.
    """

    magnitude: Array
    affine: Array
    brain: Array
    protocol: Protocol
    phase: Array | None = None
    phase_sign: int = 1
    swi: bool = False
    zones: Array | None = None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def to_scanner(self) -> Array:
        """From mm along the voxel axes to scanner RAS mm [4, 4]."""
        return np.asarray(self.affine @ np.diag([*(1 / np.array(self.voxel_mm)), 1.0]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels."""
        x, y, z = self.magnitude.shape
        return x, y, z


@dataclass(frozen=True)
class Implanted:
    """A scan with lesions in it.

    Attributes
    ----------
    magnitude : ndarray, float32 [X, Y, Z]
    phase : ndarray, float32 [X, Y, Z] or None
        As in the host, changed only within ``boxes``.
    labels : ndarray, uint16 [X, Y, Z]
        Numbers of the visible lesions, from 1.
    lesions : list of (Lesion, visible, peak drop)
        Drops relative to the median of the brain where it was scanned.
    boxes : list of tuple of three slice
        All that differs from the host.
    """

    magnitude: Array
    phase: Array | None
    labels: Array
    lesions: list[tuple[Lesion, bool, float]]
    boxes: list[Box]


def field_direction(affine: Array) -> tuple[float, float, float]:
    """Main field (scanner z) along the voxel axes of an image, as a unit vector."""
    axes = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    along = axes.T @ np.array([0.0, 0.0, 1.0])
    x, y, z = along / np.linalg.norm(along)
    return float(x), float(y), float(z)


def noise_level(magnitude: Array, brain: Array) -> float:
    """Standard deviation of the noise within the brain, from second differences.

    Parameters
    ----------
    magnitude : ndarray, float [X, Y, Z]
    brain : ndarray, bool [X, Y, Z]

    Returns
    -------
    float
        Median-based, so that edges between tissues hardly count; too low where a scan was
        interpolated.
    """
    levels = []
    for axis in range(2):
        inner = np.moveaxis(magnitude, axis, 0)
        mask = np.moveaxis(brain, axis, 0)[1:-1]
        second = (inner[:-2] - 2 * inner[1:-1] + inner[2:])[mask]
        if second.size:
            levels.append(1.4826 * float(np.median(np.abs(second))) / np.sqrt(6.0))
    return min(levels, default=0.0)


def room(host: Host, *, edge_mm: float = 3.0) -> Array:
    """Where a lesion may be put: deep enough in the brain and in tissue, not in fluid or vessels.

    Zones are rough, so what is much brighter or darker than the tissue around is left out as well.

    Parameters
    ----------
    host : Host
    edge_mm : float
        Least distance to the edge of the brain.

    Returns
    -------
    ndarray, bool [X, Y, Z]
        On the host's grid.

    Raises
    ------
    DataError
        When there is none.
    """
    size = np.array(host.voxel_mm)
    inside = np.pad(host.brain, 1)
    deep = ndimage.distance_transform_edt(inside, sampling=size)[1:-1, 1:-1, 1:-1] >= edge_mm
    tissue = host.brain
    if host.zones is not None:
        tissue = tissue & parenchyma(host.zones, host.affine)
    weight = ndimage.gaussian_filter(tissue.astype(np.float32), 6.0 / size)
    around = ndimage.gaussian_filter(host.magnitude * tissue, 6.0 / size)
    around /= np.maximum(weight, 1e-6)
    here = ndimage.gaussian_filter(host.magnitude, 0.7 / size)
    usual = np.abs(here - around) < 0.25 * around
    found = np.asarray(deep & usual & tissue)
    if not found.any():
        raise DataError(
            'no tissue lies deep enough in the brain mask to hold a lesion; see whether the mask '
            'fits the scan'
        )
    return found


def draw_positions(
    rng: np.random.Generator,
    host: Host,
    where: Array,
    count: int,
    *,
    apart_mm: float = 6.0,
) -> tuple[Array, list[str]]:
    """Choose centres for lesions, by zone as in simulated heads where the zones are known.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    host : Host
    where : ndarray, bool [X, Y, Z]
        From :func:`room`.
    count : int
        Wanted number; fewer come back when the room runs out.
    apart_mm : float
        Least distance between two.

    Returns
    -------
    positions : ndarray, float [N, 3]
        In mm along the voxel axes from the centre of voxel (0, 0, 0).
    zones : list of str
        Of each, as in :data:`shivacmb.simulate.lesions_place.ZONES`; :data:`ZONE` where they are
        not known.
    """
    # place() thinks in cubic voxels
    lines = [
        np.clip(np.rint(np.arange(max(1, int((n - 1) * v) + 1)) / v).astype(int), 0, n - 1)
        for n, v in zip(host.shape, host.voxel_mm, strict=True)
    ]
    cubic = np.ix_(*lines)
    free = where[cubic]
    rooms = {'white_matter': free}
    if host.zones is not None:
        found = host.zones[cubic] % SIDE_STEP
        rooms = {name: free & (found == zone) for name, zone in FOUND_AS.items()}
    chosen = place(rng, rooms, free, count, edge_mm=0.0, apart_mm=apart_mm)
    positions = np.array([spot[:3] for spot in chosen], float).reshape(-1, 3)
    positions += rng.uniform(-0.4, 0.4, positions.shape)
    return positions, [ZONE if host.zones is None else spot[3] for spot in chosen]


def draw_lesions(
    rng: np.random.Generator,
    host: Host,
    positions: Array,
    zones: Sequence[str],
    *,
    radius_mm: tuple[float, float] | None = None,
    chi_ppm: tuple[float, float] = (0.15, 2.5),
) -> list[Lesion]:
    """Draw a lesion for every position; see :func:`shivacmb.simulate.lesions.draw_lesion`."""
    found = []
    for (x, y, z), zone in zip(positions, zones, strict=True):
        radius = float(rng.uniform(*radius_mm)) if radius_mm else None
        drawn = draw_lesion(
            rng, (float(x), float(y), float(z)), host.protocol, zone, radius, chi_ppm[0],
            chi_ppm[1],
        )  # fmt: skip
        found.append(replace(drawn, depth=1.0))
    return found


@one_thread
def implant(rng: np.random.Generator, host: Host, lesions: Sequence[Lesion]) -> Implanted:
    """Multiply lesions into a scan.

    The complex signal is multiplied, or the magnitude where there is no phase; an SWI also by the
    mask that its reconstruction makes of the lesion's phase. The scan's noise would shrink with
    the signal, so the missing part is added anew: a lesion without any signal keeps the noise of
    the scan, in an SWI as far as the mask leaves it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the noise.
    host : Host
        Left as it is.
    lesions : sequence of Lesion
        In mm along the voxel axes from the centre of voxel (0, 0, 0).

    Returns
    -------
    Implanted
    """
    magnitude = host.magnitude.copy()
    phase = None if host.phase is None else host.phase.copy()
    labels = np.zeros(host.shape, np.uint16)
    # the mask of a whole brain may lie on a scan of a part of it, with 0 in the rest
    scanned = host.brain & (host.magnitude > 0)
    noise = noise_level(host.magnitude, scanned)
    level = float(np.median(host.magnitude[scanned])) if scanned.any() else 1.0
    least = least_drop(level / max(noise, 1e-9))
    seen: list[tuple[Lesion, bool, float]] = []
    boxes: list[Box] = []
    for number, lesion in enumerate(lesions, start=1):
        # phase reaches farther than magnitude does
        reach = None if phase is None and not host.swi else phase_reach(lesion)
        box, factor, _ = lesion_signal(
            lesion, host.voxel_mm, host.shape, host.protocol, reach_mm=reach
        )
        size = np.abs(factor)
        mask = np.ones(size.shape)
        if host.swi:
            mask = weighting(factor, host.shape, slice_axis(host.voxel_mm, host.protocol.b0))
        drop = magnitude[box] / max(level, 1e-9) * (1.0 - size * mask)
        peak = float(drop.max(initial=0.0))
        visible = bool(peak > least)
        spread = noise * np.sqrt(np.clip(1.0 - size**2, 0.0, None))
        # what was cut away has neither signal nor noise; stored below 0, its size would shine
        there = magnitude[box] > 0
        spread = spread * there
        extra = spread * (rng.standard_normal(size.shape) + 1j * rng.standard_normal(size.shape))
        if phase is None:
            new = np.abs(magnitude[box] * size + extra) * mask
            magnitude[box] = np.where(there, new, magnitude[box])
        else:
            turned = factor if host.phase_sign > 0 else np.conj(factor)
            signal = magnitude[box] * np.exp(1j * phase[box]) * turned + extra
            magnitude[box] = np.where(there, np.abs(signal) * mask, magnitude[box])
            phase[box] = np.where(there & (np.abs(signal) > 0), np.angle(signal), phase[box])
        if visible:
            view = labels[box]
            view[visible_label(drop) & (view == 0)] = number
        seen.append((lesion, visible, peak))
        boxes.append(box)
    return Implanted(magnitude, phase, labels, seen, boxes)
