"""Everything around the brain: fluid, skull, scalp, face, eyes, cavities, neck.

Shapes are ellipsoids in template millimetres with jitter, filled with random smooth tissue
patterns: what a brain mask has to tell from brain, not an atlas of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shivacmb.simulate.anatomy_atlas import Array
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.anatomy_warp import smooth_noise


@dataclass(frozen=True)
class Organ:
    """An ellipsoid of one tissue; ``speckle`` is the share broken up by ``other``."""

    tissue: Tissue
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    paired: bool = False
    other: Tissue | None = None
    speckle: float = 0.0
    chance: float = 1.0


_T = Tissue
# later entries lie on top; sizes after textbook anatomy, places relative to the MNI template
_ORGANS = (
    Organ(_T.MUSCLE, (84, -22, -32), (6, 16, 28), True, _T.FAT, 0.4, 0.9),
    Organ(_T.MUSCLE, (0, 100, -48), (13, 15, 20), False, _T.FAT, 0.4),
    Organ(_T.BONE, (0, -35, -110), (24, 20, 45), False, _T.MARROW, 0.5),
    Organ(_T.BONE, (48, 35, -90), (8, 32, 22), True, _T.MARROW, 0.5),
    Organ(_T.BONE, (0, 62, -78), (34, 22, 8), False, _T.MARROW, 0.5),
    Organ(_T.BONE, (0, -5, -45), (30, 22, 14), False, _T.MARROW, 0.5),
    Organ(_T.FAT, (31, 55, -32), (18, 26, 17), True),
    Organ(_T.MUSCLE, (31, 45, -32), (8, 18, 8), True, _T.FAT, 0.5),
    Organ(_T.EYE, (32, 68, -33), (12.5, 12.5, 12.5), True),
    Organ(_T.MUCOSA, (0, 72, -52), (13, 28, 22), False, _T.CAVITY, 0.55),
    Organ(_T.CAVITY, (29, 58, -62), (14, 16, 16), True, _T.MUCOSA, 0.1, 0.95),
    Organ(_T.CAVITY, (0, 52, -34), (11, 20, 11), False, _T.MUCOSA, 0.35),
    Organ(_T.CAVITY, (6, 24, -38), (8, 13, 10), True, _T.MUCOSA, 0.1, 0.85),
    Organ(_T.CAVITY, (11, 78, -6), (11, 6, 12), True, _T.BONE, 0.15, 0.8),
    Organ(_T.CAVITY, (54, -36, -46), (10, 15, 17), True, _T.BONE, 0.5, 0.9),
    Organ(_T.CAVITY, (58, -18, -36), (14, 4, 4), True),
    Organ(_T.MUSCLE, (0, 45, -92), (24, 28, 14), False, _T.FAT, 0.2),
    Organ(_T.CAVITY, (0, 48, -78), (20, 25, 4), False, None, 0.0, 0.6),
    Organ(_T.CAVITY, (0, 20, -100), (9, 8, 45)),
)
_FACE = ((0.0, 38.0, -62.0), (66.0, 57.0, 78.0))
_NECK = ((0.0, -22.0, -140.0), (60.0, 62.0, 110.0))


def _block(
    lattice: Array, shape: tuple[int, ...], centre: Array, radii: Array
) -> tuple[slice, ...] | None:
    """Voxels whose template coordinates may lie in an ellipsoid, from the coarse lattice."""
    near = np.ones(lattice.shape[1:], bool)
    for axis in range(3):
        near &= np.abs(lattice[axis] - centre[axis]) <= radii[axis] + 6.0
    if not near.any():
        return None
    slices = []
    for axis, size in enumerate(shape):
        hit = np.flatnonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))
        step = (size - 1) / (near.shape[axis] - 1)
        slices.append(
            slice(max(0, int((hit[0] - 1) * step)), min(size, int((hit[-1] + 1) * step) + 2))
        )
    return tuple(slices)


def _within(where: Array, block: tuple[slice, ...], centre: Array, radii: Array) -> Array:
    """Squared ellipsoid radius (1 on the surface) of the voxels of a block."""
    total = np.zeros([piece.stop - piece.start for piece in block], np.float32)
    for axis in range(3):
        total += ((where[axis][block] - centre[axis]) / radii[axis]) ** 2
    return total


def _around(
    rng: np.random.Generator, depth: Array, voxel_mm: Array, atrophy: float
) -> tuple[Array, Array, Array]:
    """Depth (mm) at which fluid, skull and scalp end, as smooth random maps."""

    def layer(mean: float, spread: float, scale: float, least: float) -> Array:
        noise = smooth_noise(rng, depth.shape, voxel_mm, scale)
        return np.maximum(mean + spread * noise, least)

    fluid = layer(rng.uniform(0.5, 2.5) + atrophy, 0.7, 30.0, 0.3)
    skull = fluid + layer(rng.uniform(3.5, 8.0), 1.2, 35.0, 1.5)
    scalp = skull + layer(rng.uniform(3.5, 8.0), 1.2, 45.0, 2.0)
    return fluid, skull, scalp


def _muscles(rng: np.random.Generator, where: Array) -> Array:
    """Thickness (mm) of the temporal muscles and of those at the nape, on the skull."""
    x, y, z = where
    side = np.clip((np.abs(x) - 35.0) / 20.0, 0.0, 1.0)
    front, height = rng.normal(8.0, 4.0), rng.normal(-8.0, 4.0)
    temporal = np.exp(-(((y - front) / 34.0) ** 2) - ((z - height) / 36.0) ** 2) * side
    nape = np.exp(-(((y + 75.0) / 32.0) ** 2) - ((z + 62.0) / rng.uniform(22.0, 32.0)) ** 2)
    return np.asarray(
        np.float32(rng.uniform(3.0, 18.0)) * temporal + np.float32(rng.uniform(4.0, 25.0)) * nape,
        np.float32,
    )


def paint_outside(
    rng: np.random.Generator,
    labels: Array,
    where: Array,
    lattice: Array,
    depth: Array,
    voxel_mm: Array,
    atrophy: float,
) -> None:
    """Fill the voxels outside the brain (``depth`` >= 0), in place.

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : ndarray, uint8 [X, Y, Z]
        Brain already painted, AIR elsewhere.
    where : ndarray, float32 [3, X, Y, Z]
        Template mm of every voxel.
    lattice : ndarray, float32 [3, A, B, C]
        The same on the coarse lattice.
    depth : ndarray, float32 [X, Y, Z]
        Distance to the brain mask in template mm, negative inside.
    voxel_mm : ndarray [3]
    atrophy : float
        Extra width of the fluid around the brain, mm.
    """
    outside = depth >= 0
    fluid, skull, scalp = _around(rng, depth, voxel_mm, atrophy)
    pattern = smooth_noise(rng, labels.shape, voxel_mm, rng.uniform(6.0, 14.0))
    fat = np.where(pattern > rng.uniform(-0.6, 0.6), Tissue.FAT, Tissue.MUSCLE).astype(np.uint8)

    flesh = _muscles(rng, where)
    scalp = scalp + flesh
    shell = outside & (depth < scalp)
    labels[shell] = fat[shell]
    streaks = pattern < rng.uniform(0.8, 2.0)
    labels[shell & (flesh > 1.5) & (depth < skull + flesh) & streaks] = Tissue.MUSCLE
    skin = rng.uniform(1.5, 3.0)
    labels[shell & (depth > scalp - skin)] = Tissue.SKIN
    for centre, radii in (_FACE, _NECK):
        middle = np.array(centre) + rng.normal(0.0, 3.0, 3)
        size = np.array(radii) * np.exp(rng.normal(0.0, 0.05, 3))
        block = _block(lattice, labels.shape, middle, size)
        if block is None:
            continue
        radius = _within(where, block, middle, size)
        part = labels[block]
        fill = (radius < 1.0) & (depth[block] > skull[block])
        deeper = fill & (radius < 1.0 - 2.0 * skin / size.mean())
        part[fill & ~deeper & (part == Tissue.AIR)] = Tissue.SKIN
        part[deeper] = fat[block][deeper]
    bone = outside & (depth < skull)
    labels[bone] = Tissue.BONE
    thickness = np.maximum(skull - fluid, 1e-3)
    level = (depth - fluid) / thickness
    diploe = bone & (thickness > 3.0) & (level > 0.3) & (level < 0.7) & (pattern > -0.7)
    labels[diploe] = Tissue.MARROW

    for organ in _ORGANS:
        if rng.random() <= organ.chance:
            _paint_organ(rng, organ, labels, where, lattice, depth - fluid, pattern)
    labels[outside & (depth < fluid)] = Tissue.SULCAL_CSF
    sinus = outside & (np.abs(where[0]) < rng.uniform(2.5, 5.0)) & (where[2] > -12.0)
    sinus &= depth < fluid + rng.uniform(2.0, 5.0)
    sinus &= (where[1] < 50.0) & ((where[2] > 30.0) | (where[1] < -70.0))
    labels[sinus] = Tissue.VENOUS_SINUS
    _paint_cord(rng, labels, where, lattice, depth)


def _paint_organ(
    rng: np.random.Generator,
    organ: Organ,
    labels: Array,
    where: Array,
    lattice: Array,
    room: Array,
    pattern: Array,
) -> None:
    shift, size = rng.normal(0.0, 2.5, 3), np.exp(rng.normal(0.0, 0.12, 3))
    cut = np.quantile(pattern[::4, ::4, ::4], 1.0 - organ.speckle) if organ.speckle else np.inf
    for side in (1.0, -1.0) if organ.paired else (1.0,):
        centre = (np.array(organ.centre) + shift + rng.normal(0.0, 1.0, 3)) * [side, 1.0, 1.0]
        radii = np.array(organ.radii) * size * np.exp(rng.normal(0.0, 0.05, 3))
        block = _block(lattice, labels.shape, centre, radii)
        if block is None:
            continue
        part = labels[block]
        inside = (_within(where, block, centre, radii) < 1.0) & (room[block] > 1.0)
        part[inside] = organ.tissue
        if organ.other is not None:
            part[inside & (pattern[block] > cut)] = organ.other


def _paint_cord(
    rng: np.random.Generator, labels: Array, where: Array, lattice: Array, depth: Array
) -> None:
    """Spinal cord in its fluid below the brainstem, where no brain is."""
    centre, radii = np.array([0.0, -44.0, -115.0]), np.array([11.0, 10.0, 60.0])
    block = _block(lattice, labels.shape, centre, radii)
    if block is None:
        return
    part, free = labels[block], depth[block] >= 0
    part[free & (_within(where, block, centre, radii) < 1.0)] = Tissue.SULCAL_CSF
    radii[:2] *= rng.uniform(0.45, 0.65)
    part[free & (_within(where, block, centre, radii) < 1.0)] = Tissue.CORD
