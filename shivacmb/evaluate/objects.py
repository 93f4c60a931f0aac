"""Lesions of one scan as lists of voxels: from a label map, a mask, a probability map or points.

Only voxels that belong to a lesion are kept. All rules work on these lists, so that a scan of six
million voxels costs one pass over them and everything after that is as small as its lesions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.lesions import find_clusters

Array = npt.NDArray[Any]
Shape3 = tuple[int, int, int]
#: Between parts of one lesion; see decision 0132 for what other limits do.
_GAP_MM = 3.0


@dataclass(frozen=True)
class Objects:
    """The lesions of one scan and one class.

    Attributes
    ----------
    shape : tuple of three int
        Of the voxel grid.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    names : (N,) array of int
        Value in the label map, or number of the row in a list of points.
    sizes : (N,) array of int
        Voxels; 0 for a point without extent.
    volumes_mm3 : (N,) array of float
        On the grid that the lesions came on; NaN for a point without extent.
    centres : (N, 3) array of float
        Centre of mass in voxels, each voxel weighing the same.
    voxels : (M,) array of int
        Flat indices (Fortran order) of all voxels.
    owners : (M,) array of int
        Which lesion, 0 to N - 1, each voxel belongs to.
    scores : (N,) array of float
        Largest probability inside the lesion, NaN when not known.
    amounts_mm3 : (N,) array of float
        Volumes, those of a probability map weighed by their probability; NaN without extent.
    points : bool
        Whether the lesions were given as points; size filters then do not apply.
    cut : bool
        Whether they are connected components, whose numbers no table knows.
    """

    shape: Shape3
    affine: Array
    names: Array
    sizes: Array
    volumes_mm3: Array
    centres: Array
    voxels: Array
    owners: Array
    scores: Array
    amounts_mm3: Array
    points: bool = False
    cut: bool = False

    def __len__(self) -> int:
        """Return the number of lesions."""
        return len(self.names)

    @property
    def amount_mm3(self) -> float:
        """Sum of the amounts; NaN with a lesion that has no extent."""
        return float(self.amounts_mm3.sum())

    @property
    def without_extent(self) -> bool:
        """Whether only the place of some lesion is known."""
        return bool(np.isnan(self.volumes_mm3).any())

    @property
    def centres_mm(self) -> Array:
        """Centres in scanner RAS mm, (N, 3)."""
        return np.asarray(self.centres @ self.affine[:3, :3].T + self.affine[:3, 3])

    @property
    def diameters_mm(self) -> Array:
        """Diameter of the ball of the same volume, (N,), mm."""
        return np.cbrt(6.0 * self.volumes_mm3 / np.pi)

    def select(self, keep: Array) -> Objects:
        """Keep some lesions.

        Parameters
        ----------
        keep : (N,) array of bool
            Which.
        """
        number = np.cumsum(keep) - 1
        inside = keep[self.owners] if len(self) else np.zeros(0, bool)
        return Objects(
            self.shape, self.affine, self.names[keep], self.sizes[keep], self.volumes_mm3[keep],
            self.centres[keep], self.voxels[inside], number[self.owners[inside]],
            self.scores[keep], self.amounts_mm3[keep], self.points, self.cut,
        )  # fmt: skip

    def at_least(self, voxels: int) -> Objects:
        """Leave out lesions of fewer voxels; points have no size and all stay."""
        if voxels <= 1 or self.points:
            return self
        return self.select(self.sizes >= voxels)


def voxel_mm3(affine: Array) -> float:
    """Volume of a voxel."""
    return abs(float(np.linalg.det(np.asarray(affine, float)[:3, :3])))


def _build(
    shape: Shape3, affine: Array, voxels: Array, values: Array, probability: Array | None
) -> Objects:
    """Group voxels by value; ``voxels`` are Fortran-order indices."""
    affine = np.asarray(affine, np.float64)
    order = np.argsort(values, kind='stable')
    voxels, values = voxels[order].astype(np.int64), values[order]
    names, owners = np.unique(values, return_inverse=True)
    owners = owners.reshape(-1)
    count = len(names)
    sizes = np.bincount(owners, minlength=count)
    axes = np.unravel_index(voxels, shape, order='F')
    sums = [np.bincount(owners, axis, minlength=count) for axis in axes]
    centres = np.stack(sums, axis=1) / np.maximum(sizes, 1)[:, None]
    scores = np.full(count, np.nan)
    amounts: Array = sizes.astype(np.float64)
    if probability is not None and count:
        inside = probability[axes].astype(np.float64)
        scores = np.maximum.reduceat(inside, np.flatnonzero(np.diff(owners, prepend=-1)))
        amounts = np.bincount(owners, inside, minlength=count)
    volume = voxel_mm3(affine)
    return Objects(
        shape, affine, names.astype(np.int64), sizes, sizes * volume, centres.reshape(-1, 3),
        voxels, owners, scores, amounts * volume,
    )  # fmt: skip


def _foreground(array: Array) -> Array:
    """Fortran-order indices of non-zero voxels; without a copy when stored that way."""
    return np.flatnonzero(np.ravel(array, order='F'))


def from_labels(labels: Array, affine: Array, probability: Array | None = None) -> Objects:
    """One lesion per value of a label map, however its voxels lie.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    probability : (X, Y, Z) array of float, optional
        For the scores.

    Raises
    ------
    ValueError
        If the map is not 3-D, or its values are negative or not whole.
    """
    labels = np.asarray(labels)
    shape = _shape(labels)
    where = _foreground(labels)
    values = np.ravel(labels, order='F')[where]
    if values.dtype.kind == 'f' and not np.array_equal(values, np.rint(values)):
        raise ValueError('A label map holds whole numbers')
    values = values.astype(np.int64)
    if values.size and values.min() < 0:
        raise ValueError('A label map holds no negative numbers')
    return _build(shape, affine, where, values, probability)


def from_mask(mask: Array, affine: Array, connectivity: int = 26) -> Objects:
    """Connected components of what is not zero.

    Parameters
    ----------
    mask : (X, Y, Z) array
        Non-zero inside a lesion.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    connectivity : {6, 18, 26}
        Neighbours: shared face, also edge, also corner.
    """
    mask = np.asarray(mask)
    return _components(np.asarray(mask != 0, np.float32), affine, 0.5, 1, connectivity, None)


def from_probability(
    probability: Array,
    affine: Array,
    *,
    threshold: float,
    min_voxels: int = 1,
    connectivity: int = 26,
) -> Objects:
    """Clusters of ``probability >= threshold``, compared in single precision.

    Parameters
    ----------
    probability : (X, Y, Z) array of float
        0 to 1.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    threshold, min_voxels, connectivity
        See :func:`shivacmb.lesions.find_clusters`.
    """
    probability = np.asarray(probability)
    return _components(probability, affine, threshold, min_voxels, connectivity, probability)


def _components(
    values: Array, affine: Array, threshold: float, least: int, connectivity: int,
    probability: Array | None,
) -> Objects:  # fmt: skip
    """Search only the box that holds anything: lesions are few and small."""
    shape = _shape(values)
    values = np.asarray(values, np.float32)  # of 0.4 in double precision, too: as find_clusters
    above = np.flatnonzero(np.ravel(values, order='F') >= np.float32(threshold))
    if above.size == 0:
        return _build(shape, affine, above, np.zeros(0, np.int64), probability)
    axes = np.unravel_index(above, shape, order='F')
    box = tuple(slice(int(np.min(axis)), int(np.max(axis)) + 1) for axis in axes)
    # with a margin: cc3d (4.1) fails on boxes of one voxel that are odd the other way, as 1x1x3
    found = find_clusters(
        np.pad(values[box], 1), threshold=threshold, min_voxels=least, connectivity=connectivity
    )
    inner = tuple(axis - part.start + 1 for axis, part in zip(axes, box, strict=True))
    numbers = found[inner]
    kept = numbers > 0
    return _build(shape, affine, above[kept], numbers[kept], probability)


def close_together(parts: Objects) -> bool:
    """Whether parts can be one lesion that a coarser grid has torn apart.

    Each has to lie near another: at most 3 mm between their nearest voxels are empty. What is
    measured is what lies between voxels, not between their centres: how thick slices are makes
    parts of one slice no nearer, and parts of adjacent slices no farther.

    Parameters
    ----------
    parts : Objects
        Connected components; at least one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    sizes = np.linalg.norm(parts.affine[:3, :3], axis=0)
    places = np.stack(np.unravel_index(parts.voxels, parts.shape, order='F'), axis=1)
    reach = _GAP_MM + float(np.linalg.norm(sizes))  # between centres, where so much is empty
    near = KDTree(places * sizes).query_pairs(reach * (1 + 1e-6), output_type='ndarray')
    between = np.maximum(np.abs(places[near[:, 0]] - places[near[:, 1]]) - 1, 0) * sizes
    joined = parts.owners[near[np.linalg.norm(between, axis=1) <= _GAP_MM + 1e-6]].T
    links = coo_array((np.ones(joined.shape[1]), tuple(joined)), shape=(len(parts), len(parts)))
    return int(connected_components(links, directed=False, return_labels=False)) == 1


def from_points(
    points_mm: Array, shape: Shape3, affine: Array, radii_mm: Array | None = None
) -> Objects:
    """Lesions of which only the place is known.

    Parameters
    ----------
    points_mm : (N, 3) array of float
        Scanner RAS mm.
    shape, affine
        Grid on which they are to be compared.
    radii_mm : (N,) array of float, optional
        Voxels with their centre in a ball of this radius, at least the voxel of the centre,
        belong to the point. Without it a point has one voxel and no size.

    Returns
    -------
    Objects
        A point outside the grid has no voxel and can only be found by distance. Where balls
        overlap, a voxel belongs to the first of them.
    """
    affine = np.asarray(affine, np.float64)
    points = np.asarray(points_mm, np.float64).reshape(-1, 3)
    count = len(points)
    inverse = np.linalg.inv(affine)
    centres = points @ inverse[:3, :3].T + inverse[:3, 3]
    radii = np.zeros(count) if radii_mm is None else np.asarray(radii_mm, np.float64)
    reach = np.sqrt((inverse[:3, :3] ** 2).sum(axis=1))
    voxels, owners = [], []
    for number in range(count):
        indices = _ball(centres[number], radii[number], reach, affine)
        inside = ((indices >= 0) & (indices < np.array(shape))).all(axis=1)
        flat = np.ravel_multi_index(tuple(indices[inside].T), shape, order='F')
        voxels.append(flat)
        owners.append(np.full(len(flat), number))
    flat = np.concatenate(voxels) if voxels else np.zeros(0, np.int64)
    owner = np.concatenate(owners) if owners else np.zeros(0, np.int64)
    flat, first = np.unique(flat, return_index=True)
    owner = owner[first]
    sized = radii > 0
    volumes = np.where(sized, 4 / 3 * np.pi * radii**3, np.nan)
    return Objects(
        shape, affine, np.arange(1, count + 1),
        np.where(sized, np.bincount(owner, minlength=count), 0),
        volumes, centres, flat, owner, np.full(count, np.nan),
        volumes, points=True,
    )  # fmt: skip


def _ball(centre: Array, radius: float, reach: Array, affine: Array) -> Array:
    """Voxels (K, 3) whose centre lies in a ball, and always the nearest voxel."""
    nearest = np.floor(centre + 0.5).astype(np.int64)
    if not radius > 0:
        return nearest[None]
    low = np.ceil(centre - radius * reach).astype(int)
    high = np.floor(centre + radius * reach).astype(int)
    ranges = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*ranges, indexing='ij'), axis=-1).reshape(-1, 3)
    away = np.linalg.norm((grid - centre) @ affine[:3, :3].T, axis=1)
    return np.unique(np.vstack([grid[away <= radius], nearest]), axis=0)


def _shape(array: Array) -> Shape3:
    if array.ndim != 3:
        raise ValueError(f'A map of lesions has 3 axes, this one has {array.ndim}')
    return array.shape[0], array.shape[1], array.shape[2]
