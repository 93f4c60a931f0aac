"""Where the mimics of a simulated scan go and how strong they are.

Every kind is labelled background. Tubes that are smooth, straight and alone teach a network
nothing (methods reported for VALDO entries); these bend, branch, bead, run in bundles inside the
sulci and stand upright on thick slices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.simulate.mimics import (
    Vessel,
    blob_factor,
    gaussian_field,
    grow_vessel,
    paint_vessels,
)

Array = NDArray[Any]


@dataclass
class Scene:
    """A scan's grid on top of a head's maps.

    Attributes
    ----------
    masks : dict of ndarray, bool [X, Y, Z]
        On the head's grid: 'brain', 'fluid' (outside the ventricles), 'ventricle', 'white',
        'pallidum', 'putamen', 'thalamus'.
    to_head : ndarray, float64 [4, 4]
        Scan mm to head voxel.
    voxel_mm : tuple of three float
        Of the scan.
    shape : tuple of three int
        Of the scan.
    slice_axis : int
        Axis of the thick side.
    fluid : ndarray, float32 [X, Y, Z]
        Smoothed fluid share on the head's grid, for vessels to follow.
    """

    masks: dict[str, Array]
    to_head: Array
    voxel_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    slice_axis: int = 2
    fluid: Array = field(init=False)
    _from_head: Array = field(init=False)

    def __post_init__(self) -> None:
        self.fluid = ndimage.gaussian_filter(self.masks['fluid'].astype(np.float32), 0.7)
        self._from_head = np.linalg.inv(self.to_head)

    def scan_mm(self, voxels: Array) -> Array:
        """Head voxels [N, 3] to scan mm [N, 3]."""
        return np.asarray(voxels @ self._from_head[:3, :3].T + self._from_head[:3, 3])

    def head_value(self, volume: Array, points: Array) -> Array:
        """Nearest value of a head map at scan mm [N, 3]; 0 outside."""
        index = np.rint(points @ self.to_head[:3, :3].T + self.to_head[:3, 3]).astype(int)
        inside = ((index >= 0) & (index < volume.shape)).all(axis=1)
        index = np.clip(index, 0, np.array(volume.shape) - 1)
        return np.asarray(np.where(inside, volume[tuple(index.T)], 0))

    def on_scan(self, volume: Array) -> Array:
        """Resample a head map to the scan's grid, linear, without slice averaging."""
        matrix = self.to_head[:3, :3] * np.asarray(self.voxel_mm)
        return np.asarray(
            ndimage.affine_transform(
                volume.astype(np.float32), matrix, self.to_head[:3, 3], self.shape, order=1
            )
        )

    def pick(self, rng: np.random.Generator, mask: Array, count: int) -> Array:
        """Choose ``count`` points of a head mask, in scan mm [N, 3]; none when it is empty."""
        flat = np.flatnonzero(mask)
        if not flat.size or not count:
            return np.empty((0, 3))
        index = np.stack(np.unravel_index(rng.choice(flat, count), mask.shape), axis=1)
        return self.scan_mm(index + rng.uniform(-0.5, 0.5, index.shape))


def _counts(rng: np.random.Generator, amount: float) -> dict[str, int]:
    high = {'sulcal': 80, 'medullary': 40, 'upright': 16, 'base': 14, 'surface': 30}
    return {kind: int(rng.integers(0, max(2, int(n * amount)))) for kind, n in high.items()}


def _looks_like_a_vessel(trunk: Vessel, scene: Scene) -> bool:
    """Tell whether a path is long enough; one that its guide ended early is a round dark spot."""
    length = float(np.linalg.norm(np.diff(trunk.points, axis=0), axis=1).sum())
    wide = 2.0 * float(trunk.radii.mean())
    return length >= max(8.0, 5.0 * wide, 2.5 * scene.voxel_mm[scene.slice_axis])


def draw_vessels(
    rng: np.random.Generator, scene: Scene, amount: float
) -> tuple[list[Vessel], list[float], list[tuple[str, Array]]]:
    """Draw the vessels of a scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    scene : Scene
        The scan's grid and the head's maps.
    amount : float
        Scales their number.

    Returns
    -------
    vessels : list of Vessel
        In scan mm, branches after their roots.
    strengths : list of float
        Per vessel: signal that a voxel of it loses; negative where it is brighter.
    table : list of (kind, ndarray [3])
        Kind and middle point of each root.
    """
    brain, fluid = scene.masks['brain'], scene.masks['fluid']
    rim = brain & ~ndimage.binary_erosion(brain, iterations=3)
    low = np.zeros_like(brain)
    third = np.flatnonzero(brain.any(axis=(0, 1)))
    cut = int(third[0] + 0.4 * (third[-1] - third[0])) if third.size else 0
    low[:, :, :cut] = True
    places = {
        'sulcal': fluid & brain,
        'medullary': scene.masks['white'],
        'upright': fluid & brain if rng.random() < 0.75 else brain,
        'base': fluid & low,
        'surface': rim,
    }
    upright = np.zeros(3)
    upright[scene.slice_axis] = 1.0
    dark = float(rng.uniform(0.25, 1.0))

    def follow(points: Array) -> Array:
        return scene.head_value(scene.fluid, points)

    vessels: list[Vessel] = []
    strengths: list[float] = []
    table: list[tuple[str, Array]] = []
    for kind, count in _counts(rng, amount).items():
        for start in scene.pick(rng, places[kind], count):
            direction = rng.normal(size=3)
            length = float(rng.uniform(8, 35))
            radius = float(np.clip(rng.lognormal(-0.45, 0.4), 0.25, 1.6))
            guide = follow if kind in ('sulcal', 'base') and rng.random() < 0.8 else None
            bend, wobble = float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.03, 0.12))
            if kind == 'upright':
                direction = upright * rng.choice([-1, 1]) + rng.normal(scale=0.15, size=3)
                # seen on four slices at least: on two nobody could tell it from a microbleed
                least = max(10.0, 4.0 * scene.voxel_mm[scene.slice_axis])
                length, bend, guide = float(rng.uniform(least, 2.0 * least)), 0.05, None
                radius = float(rng.uniform(0.3, 1.2))
            elif kind == 'base':
                radius = float(rng.uniform(0.8, 2.6))
            elif kind == 'medullary':
                radius = float(np.clip(rng.lognormal(-0.8, 0.35), 0.2, 1.0))
            grown = grow_vessel(
                rng, start, direction, length=length, radius=radius, bend=bend, wobble=wobble,
                branches=float(rng.uniform(0, 0.12)), guide=guide,
            )  # fmt: skip
            if not _looks_like_a_vessel(grown[0], scene):
                continue
            strength = dark * float(rng.uniform(0.4, 1.3))
            if rng.random() < 0.06:
                strength = -float(rng.uniform(0.1, 0.4))
            vessels += grown
            strengths += [strength] * len(grown)
            table.append((kind, np.asarray(grown[0].points[len(grown[0].points) // 2])))
    return vessels, strengths, table


def _iron(rng: np.random.Generator, scene: Scene) -> Array:
    """Share of the signal that bilateral iron leaves, on the head's grid."""
    factor = np.ones(scene.fluid.shape, np.float32)
    for name, chance in (('pallidum', 0.7), ('putamen', 0.35)):
        mask = scene.masks.get(name)
        if mask is None or rng.random() > chance or not mask.any():
            continue
        where = np.argwhere(mask)
        box = tuple(
            slice(max(0, a - 6), b + 7) for a, b in zip(where.min(0), where.max(0), strict=True)
        )
        soft = ndimage.gaussian_filter(mask[box].astype(np.float32), float(rng.uniform(0.6, 1.5)))
        patchy = gaussian_field(rng, soft.shape, float(rng.uniform(1.5, 4.0)))
        soft *= np.clip(1.0 + float(rng.uniform(0, 0.5)) * patchy, 0.0, 1.5)
        factor[box] *= 1.0 - float(rng.uniform(0.1, 0.8)) * np.clip(soft, 0, 1)
    return factor


def _dips(rng: np.random.Generator, scene: Scene) -> Array:
    """Share of the signal left in dark stretches of sulcal fluid, on the head's grid."""
    noise = gaussian_field(rng, scene.fluid.shape, float(rng.uniform(4.0, 8.0)))
    gate = (6.0 * (noise - np.float32(rng.uniform(0.3, 1.5)))).clip(-20, 20)
    depth = np.float32(rng.uniform(0.2, 1.0))
    fluid = np.clip(1.6 * scene.fluid * scene.masks['brain'], 0, 1)
    return np.asarray(1.0 - depth * fluid / (1.0 + np.exp(-gate)), np.float32)


def _half_axes(rng: np.random.Generator) -> Array:
    """Half axes in mm of a blob that no one would call a microbleed.

    A microbleed is round and 2 to 10 mm across (STRIVE). Round blobs are therefore larger, and
    smaller ones are at least three times as long as wide.
    """
    if rng.random() < 0.6:
        return np.asarray(rng.uniform(6.0, 10.0) * rng.uniform(1.0, 1.3, 3))
    width = float(rng.uniform(1.2, 3.2))
    radii = width * rng.uniform(1.0, 1.3, 3)
    radii[int(rng.integers(3))] = width * float(rng.uniform(4.0, 6.0))
    return np.asarray(radii)


def _blobs(rng: np.random.Generator, scene: Scene, factor: Array) -> list[tuple[str, Array]]:
    table = []
    size = np.asarray(scene.voxel_mm)
    for _ in range(int(rng.integers(0, 5))):
        home = scene.masks['ventricle'] if rng.random() < 0.4 else scene.masks['brain']
        for centre in scene.pick(rng, home, 1):
            radii = _half_axes(rng)
            low = np.clip(np.floor((centre - 1.8 * radii) / size).astype(int), 0, scene.shape)
            high = np.clip(np.ceil((centre + 1.8 * radii) / size).astype(int), 0, scene.shape)
            if (high <= low).any():
                continue
            axes = [np.arange(a, b) * s - c for a, b, s, c in
                    zip(low, high, size, centre, strict=True)]  # fmt: skip
            grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            factor[box] *= blob_factor(rng, grid, radii, float(rng.uniform(0.4, 1.0)))
            table.append(('lump', centre))
    return table


def add_mimics(
    rng: np.random.Generator, scene: Scene, *, amount: float = 1.0
) -> tuple[Array, list[tuple[str, Array]]]:
    """Draw all mimics of one scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    scene : Scene
        The scan's grid and the head's maps.
    amount : float
        Scales the number of vessels.

    Returns
    -------
    factor : ndarray, float32 [X, Y, Z]
        What they leave of the signal, on the scan's grid.
    table : list of (kind, ndarray [3])
        Kind and one point of each, in scan mm.
    """
    vessels, strengths, table = draw_vessels(rng, scene, amount)
    factor = paint_vessels(rng, vessels, strengths, scene.voxel_mm, scene.shape)
    # a vein's own field spreads beyond its wall
    blur = float(rng.uniform(0.0, 0.7))
    if blur > 0.15:
        factor = ndimage.gaussian_filter(factor, [blur / v for v in scene.voxel_mm])
    anatomical = _iron(rng, scene)
    if rng.random() < 0.7:
        anatomical *= _dips(rng, scene)
    factor *= 1.0 - scene.on_scan(1.0 - anatomical)
    table += _blobs(rng, scene, factor)
    return np.asarray(factor, np.float32), table
