"""Random heads with a label in every voxel: the truth that all simulated contrasts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from shivacmb.simulate.anatomy_atlas import COARSE_MM, COARSE_ORIGIN, Array, Atlas, load_atlas
from shivacmb.simulate.anatomy_labels import LABEL_NAMES, Tissue
from shivacmb.simulate.anatomy_outside import paint_outside
from shivacmb.simulate.anatomy_warp import WarpRange, expand, smooth_noise, template_lattice

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Field of view of a head by default, mm: vertex to the upper neck.
DEFAULT_FOV_MM = (190.0, 232.0, 220.0)


@dataclass(frozen=True)
class Head:
    """One simulated head.

    Attributes
    ----------
    labels : ndarray, uint8 [X, Y, Z]
        :class:`shivacmb.simulate.anatomy_labels.Tissue` values.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    brain : ndarray, bool [X, Y, Z]
        The brain mask: brain with its sulci and ventricles, without the fluid around it.
    left : ndarray, bool [X, Y, Z]
        Left of the midline, wherever it has been warped to.
    names : dict of int to str
        Name of every label value.
    """

    labels: Array
    affine: Array
    brain: Array
    left: Array
    names: dict[int, str] = field(default_factory=lambda: dict(LABEL_NAMES))

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return float(x), float(y), float(z)


def random_head(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] | None = None,
    voxel_mm: float | Sequence[float] = 1.0,
    centre_mm: Sequence[float] | None = None,
    spread: WarpRange | None = None,
) -> Head:
    """Draw a head: MNI152 tissue maps under a random affine and warp, and all that is around.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: the same generator state gives the same head.
    shape : sequence of three int, optional
        Voxels; 190 x 232 x 220 mm by default.
    voxel_mm : float or sequence of three float
        Voxel size.
    centre_mm : sequence of three float, optional
        Middle of the field of view relative to the middle of the brain, scanner mm. By default
        20 mm below it, so that the upper neck is seen.
    spread : WarpRange, optional
        How far heads differ.

    Returns
    -------
    Head
        On an axis-aligned RAS grid.
    """
    size = np.broadcast_to(np.asarray(voxel_mm, np.float64), (3,))
    grid = tuple(int(n) for n in (shape if shape is not None else np.round(DEFAULT_FOV_MM / size)))
    middle = np.array([0.0, 0.0, -20.0] if centre_mm is None else centre_mm)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = middle - size * (np.array(grid) - 1) / 2
    atlas = load_atlas()
    lattice = template_lattice(rng, atlas, grid, affine, spread or WarpRange())
    where = np.stack([expand(axis, grid) for axis in lattice])
    depth = _sample(atlas.depth, where, COARSE_ORIGIN, COARSE_MM)
    labels = np.zeros(grid, np.uint8)
    atrophy = float(rng.uniform(0.0, 1.0)) ** 2
    _paint_brain(rng, atlas, labels, where, depth, size, atrophy)
    paint_outside(rng, labels, where, lattice, depth, size, 3.0 * atrophy)
    return Head(labels, affine, depth < 0, where[0] < 0)


def _sample(volume: Array, where: Array, origin: Array, mm: float) -> Array:
    """Linear interpolation of an axis-aligned volume at template mm [3, ...]."""
    index = (where - origin.reshape(3, *[1] * (where.ndim - 1)).astype(np.float32)) / mm
    values = ndimage.map_coordinates(volume, index, np.float32, order=1, mode='nearest')
    return np.asarray(values)


def _paint_brain(
    rng: np.random.Generator,
    atlas: Atlas,
    labels: Array,
    where: Array,
    depth: Array,
    voxel_mm: Array,
    atrophy: float,
) -> None:
    """Label the voxels inside the brain mask, in place.

    ``atrophy`` (0 to 1) weights fluid against tissue where both share a voxel, which widens the
    sulci; a smooth random part makes it uneven.
    """
    inside = depth < 0
    points = where[:, inside]
    origin = atlas.affine[:3, 3]
    grey = _sample(atlas.grey, points, origin, 1.0)
    white = _sample(atlas.white, points, origin, 1.0)
    nearest = np.rint(points - origin[:, None].astype(np.float32)).astype(np.intp)
    for axis, size in enumerate(atlas.region.shape):
        np.clip(nearest[axis], 0, size - 1, out=nearest[axis])
    region = atlas.region[tuple(nearest)]
    uneven = smooth_noise(rng, labels.shape, voxel_mm, 25.0)[inside]
    fluid = np.clip(1.0 - grey - white, 0.0, 1.0)
    fluid *= np.exp(1.2 * atrophy + 0.3 * uneven)
    white = white * np.float32(rng.uniform(0.9, 1.1))

    wet = (fluid > grey) & (fluid > white)
    out = np.where(white > grey, Tissue.CEREBRAL_WM, Tissue.CORTEX).astype(np.uint8)
    little = region == Tissue.CEREBELLAR_GM
    out[little] = np.where(white > grey, Tissue.CEREBELLAR_WM, Tissue.CEREBELLAR_GM)[little]
    for tissue in (
        Tissue.CAUDATE,
        Tissue.PUTAMEN,
        Tissue.PALLIDUM,
        Tissue.THALAMUS,
        Tissue.BRAINSTEM,
    ):
        out[region == tissue] = tissue
    out[wet] = Tissue.SULCAL_CSF
    out[(region == Tissue.VENTRICLE) & (fluid > 0.4)] = Tissue.VENTRICLE
    labels[inside] = out
