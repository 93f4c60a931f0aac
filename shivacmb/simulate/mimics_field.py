"""Mimics with their susceptibility: veins, arteries, perivascular spaces, iron.

Where they run and what they look like comes from :mod:`shivacmb.simulate.mimics_place`; here they
get the properties that tell them from microbleeds in phase, susceptibility and T2-weighted images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.anatomy_warp import smooth_noise
from shivacmb.simulate.lesions import Protocol
from shivacmb.simulate.mimics import Vessel, grow_vessel, paint_vessels
from shivacmb.simulate.mimics_place import Scene, draw_vessels
from shivacmb.simulate.physics import block_mean, complex_signal, field_shift, frequency

Array = NDArray[Any]

#: Side of the sub-voxels on which vessels are painted, about, in mm.
FINE_MM = 0.5
#: Susceptibility of venous blood in ppm: a saturation of 0.55 to 0.75.
_VEIN_PPM = (0.2, 0.45)
#: Share of the signal that blood in a vein has left at echo time 0, and its R2* in 1/s at 3 T.
_VEIN_SIGNAL, _VEIN_R2STAR = 0.95, 40.0


@dataclass(frozen=True)
class VesselMaps:
    """Vessels and perivascular spaces on sub-voxels of the part of a scan that holds the brain.

    Attributes
    ----------
    box : tuple of three slice
        That part, in voxels of the scan.
    parts : tuple of three int
        Sub-voxels per voxel and axis.
    fine_mm : tuple of three float
        Size of a sub-voxel.
    blood_ppm : float
        Susceptibility of venous blood.
    vein, void, space : ndarray, float32
        Share of each sub-voxel filled by veins; share of the signal lost to flow (negative where
        inflow adds); share filled by perivascular fluid.
    """

    box: tuple[slice, slice, slice]
    parts: tuple[int, int, int]
    fine_mm: tuple[float, float, float]
    blood_ppm: float
    vein: Array
    void: Array
    space: Array

    def field_hz(self, protocol: Protocol, workers: int | None = None) -> Array:
        """Frequency in Hz that the veins add, on the sub-voxels."""
        if not self.vein.any():
            return np.zeros_like(self.vein)
        shift = field_shift(self.vein, self.fine_mm, protocol.b0, margin=0.1, workers=workers)
        return frequency(shift * np.float32(self.blood_ppm), protocol.field_t)

    def signal(self, field_hz: Array, protocol: Protocol, fluid: float) -> Array:
        """Complex signal of each voxel of the box relative to tissue without vessels.

        Parameters
        ----------
        field_hz : ndarray, float32
            From :meth:`field_hz`.
        protocol : Protocol
            Field and echo time.
        fluid : float
            Signal of fluid over that of white matter at this echo.
        """
        decay = np.exp(-protocol.echo_s * _VEIN_R2STAR * (protocol.field_t / 3.0) ** 1.5)
        lost = np.float32(1.0 - _VEIN_SIGNAL * decay)
        turns = np.float32(2 * np.pi * protocol.echo_s)
        rows = [
            block_mean(
                complex_signal(
                    (1.0 - lost * self.vein[part])
                    * (1.0 - self.void[part])
                    * (1.0 + np.float32(fluid - 1.0) * self.space[part]),
                    turns * field_hz[part],
                ),
                self.parts,
            )
            for part in _slabs(self.vein.shape[0], self.parts[0])
        ]
        return np.concatenate(rows)

    def spin_echo(self, fluid: float) -> Array:
        """Signal of each voxel of the box in a spin echo: flow voids and bright spaces."""
        rows = [
            block_mean(
                (1.0 - 0.7 * self.vein[part])
                * (1.0 - np.abs(self.void[part]))
                * (1.0 + np.float32(fluid - 1.0) * self.space[part]),
                self.parts,
            )
            for part in _slabs(self.vein.shape[0], self.parts[0])
        ]
        return np.concatenate(rows)

    def mean_chi(self) -> Array:
        """Susceptibility in ppm that veins add to each voxel of the box."""
        return np.asarray(block_mean(self.vein, self.parts) * np.float32(self.blood_ppm))


def _slabs(size: int, part: int) -> list[slice]:
    step = part * max(1, 32 // part)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def draw_vessel_maps(
    rng: np.random.Generator, scene: Scene, amount: float
) -> tuple[VesselMaps, list[tuple[str, Array]]]:
    """Draw veins, arteries and perivascular spaces of one scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    scene : Scene
        The scan's grid and the head's maps.
    amount : float
        Scales their number; 0 leaves them out.

    Returns
    -------
    maps : VesselMaps
    table : list of (kind, ndarray [3])
        Kind and one point of each, in scan mm.
    """
    vessels, strengths, table = draw_vessels(rng, scene, amount) if amount else ([], [], [])
    spaces, more = _perivascular(rng, scene, amount)
    flowing: dict[float, bool] = {}
    for strength in strengths:
        # a root and its branches share their strength; what is brighter than tissue is an artery
        if strength not in flowing:
            flowing[strength] = strength < 0 or rng.random() < 0.25
    pairs = list(zip(vessels, strengths, strict=True))
    veins = [vessel for vessel, strength in pairs if not flowing[strength]]
    arteries = [pair for pair in pairs if flowing[pair[1]]]
    blood = float(rng.uniform(*_VEIN_PPM))
    box = _brain_box(scene)
    a, b, c = (max(1, round(v / FINE_MM)) for v in scene.voxel_mm)
    parts = (a, b, c)
    x, y, z = (v / p for v, p in zip(scene.voxel_mm, parts, strict=True))
    fine = (x, y, z)
    i, j, k = ((b.stop - b.start) * p for b, p in zip(box, parts, strict=True))
    shape = (i, j, k)
    corner = np.array([(b.start - 0.5) * v + 0.5 * f for b, v, f in
                       zip(box, scene.voxel_mm, fine, strict=True)])  # fmt: skip

    def paint(items: list[Vessel], values: list[float]) -> Array:
        moved = [Vessel(item.points - corner, item.radii) for item in items]
        left = paint_vessels(rng, moved, values, fine, shape, per_mm3=200.0)
        return np.asarray(1.0 - left, np.float32)

    void = [min(strength, 0.95) for _, strength in arteries]
    maps = VesselMaps(
        box, parts, fine, blood,
        paint(veins, [1.0] * len(veins)),
        paint([vessel for vessel, _ in arteries], void),
        paint(spaces, [1.0] * len(spaces)),
    )  # fmt: skip
    return maps, table + more


def _brain_box(scene: Scene) -> tuple[slice, slice, slice]:
    """Voxels of the scan around the brain, with 4 mm to spare."""
    where = np.argwhere(scene.masks['brain'])
    if not len(where):
        return slice(0, scene.shape[0]), slice(0, scene.shape[1]), slice(0, scene.shape[2])
    ends = scene.scan_mm(np.stack([where.min(0), where.max(0)]).astype(float))
    size = np.asarray(scene.voxel_mm)
    low = np.clip(np.floor((ends.min(0) - 4.0) / size).astype(int), 0, np.array(scene.shape) - 1)
    high = np.clip(np.ceil((ends.max(0) + 4.0) / size).astype(int) + 1, low + 1, scene.shape)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _perivascular(
    rng: np.random.Generator, scene: Scene, amount: float
) -> tuple[list[Vessel], list[tuple[str, Array]]]:
    """Perivascular spaces: short, thin, almost straight, in white matter and basal ganglia."""
    spaces: list[Vessel] = []
    table: list[tuple[str, Array]] = []
    deep = scene.masks['putamen'] | scene.masks['pallidum']
    for home, most in ((scene.masks['white'], 40), (deep, 15)):
        count = int(rng.integers(0, max(2, int(most * amount)))) if amount else 0
        for start in scene.pick(rng, home, count):
            spaces += grow_vessel(
                rng, start, rng.normal(size=3), length=float(rng.uniform(3, 12)),
                radius=float(np.clip(rng.lognormal(-0.7, 0.35), 0.2, 1.3)), bend=0.05,
                wobble=0.05, branches=0.0,
            )  # fmt: skip
            table.append(('perivascular_space', start))
    return spaces, table


def iron_map(rng: np.random.Generator, masks: dict[str, Array]) -> Array:
    """Susceptibility in ppm that patchy iron adds to pallidum and putamen on both sides.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    masks : dict of ndarray, bool [X, Y, Z]
        'pallidum' and 'putamen' at 1 mm.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
    """
    added = np.zeros(masks['pallidum'].shape, np.float32)
    for name, chance, most in (('pallidum', 0.7, 0.25), ('putamen', 0.35, 0.12)):
        where = np.argwhere(masks[name])
        if rng.random() > chance or not len(where):
            continue
        box = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
        shape = tuple(part.stop - part.start for part in box)
        patchy = smooth_noise(rng, shape, (1.0, 1.0, 1.0), float(rng.uniform(3.0, 8.0)))
        strength = float(rng.uniform(0.02, most))
        added[box] += strength * np.clip(0.6 + patchy, 0, 2) * masks[name][box]
    return added
