"""What is known about each lesion: place, size, certainty, closeness to the mask's edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Lesion:
    """One lesion, one row of the per-lesion table.

    Attributes
    ----------
    index : int
        Its value in the label map.
    name : str
        Class and index, such as ``CMB1``.
    x, y, z : float
        Centre of mass of its voxels, each weighing the same, in scanner RAS mm.
    volume_mm3 : float
        Voxels times the volume of a voxel of the grid it was found on.
    voxels : int
        Voxels on the grid it was found on.
    p_max, p_mean : float
        Largest and mean probability of the ensemble inside it.
    fold_agreement : float
        Fraction of the folds whose own map reaches the threshold in at least one of its voxels.
    edge_distance_mm : float
        From the lesion's closest voxel to the nearest voxel outside the brain mask; 0 if a part
        of the lesion lies outside; NaN without a mask.
    region : str
        Zone of the brain with its side, such as ``left thalamus``; '' where it is not known.
    parenchyma_fraction : float
        How much of what surrounds it is brain tissue, 0 to 1; NaN where it is not known. See
        :func:`shivacmb.lesions.parenchyma_fractions`.
    """

    index: int
    name: str
    x: float
    y: float
    z: float
    volume_mm3: float
    voxels: int
    p_max: float
    p_mean: float
    fold_agreement: float
    edge_distance_mm: float
    region: str = ''
    parenchyma_fraction: float = math.nan


def lesion_table(
    labels: npt.NDArray[np.integer],
    prob_mean: npt.NDArray[np.floating],
    fold_probs: npt.NDArray[np.floating] | Sequence[npt.NDArray[np.floating]],
    affine: npt.NDArray[np.floating],
    brain_mask: npt.NDArray[np.generic] | None,
    threshold: float,
    *,
    cores: npt.NDArray[np.integer] | None = None,
    class_name: str = 'CMB',
) -> list[Lesion]:
    """Measure every label of a label map.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside; any positive value is a lesion. For a second class pass only its own labels,
        numbered on from the first class's last.
    prob_mean : (X, Y, Z) array of float
        Mean of the folds.
    fold_probs : (F, X, Y, Z) array of float, or a sequence of F volumes
        One map per fold.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    brain_mask : (X, Y, Z) array or None
        Non-zero inside the brain. The whole mask, not the part inside the network's box: where
        the array ends, the brain is taken to end.
    threshold : float
        The probability at which the labels were cut, for the agreement of the folds.
    cores : (X, Y, Z) array of int, optional
        The labels as they were cut, where they have grown since; each has a voxel of its own.
    class_name : str
        What the names begin with.

    Returns
    -------
    list of Lesion
        By label value. Empty if there is none.

    Raises
    ------
    ValueError
        If the shapes differ or there is no fold.
    """
    _check_shapes(labels, prob_mean, fold_probs, brain_mask)
    where, indices, start, count = _by_label(labels)
    if where.size == 0:
        return []
    voxel = np.stack(np.unravel_index(where, labels.shape), axis=1).astype(np.float64)

    matrix = affine.astype(np.float64)
    centre = np.add.reduceat(voxel, start, axis=0) / count[:, None]
    position = centre @ matrix[:3, :3].T + matrix[:3, 3]
    voxel_mm3 = abs(float(np.linalg.det(matrix[:3, :3])))
    inside = _values(prob_mean, where).astype(np.float64)
    p_max = np.maximum.reduceat(inside, start)
    p_mean = np.add.reduceat(inside, start) / count
    core, core_start = where, start
    if cores is not None:
        core, _, core_start, _ = _by_label(cores)
    agreement = _agreement(fold_probs, core, core_start, threshold)
    edge = np.minimum.reduceat(_edge_distance(voxel, brain_mask, matrix), start)

    return [
        Lesion(
            index=int(index),
            name=f'{class_name}{int(index)}',
            x=float(position[n, 0]),
            y=float(position[n, 1]),
            z=float(position[n, 2]),
            volume_mm3=float(count[n] * voxel_mm3),
            voxels=int(count[n]),
            p_max=float(p_max[n]),
            p_mean=float(p_mean[n]),
            fold_agreement=float(agreement[n]),
            edge_distance_mm=float(edge[n]),
        )
        for n, index in enumerate(indices)
    ]


def _by_label(
    labels: npt.NDArray[np.integer],
) -> tuple[
    npt.NDArray[np.intp], npt.NDArray[np.integer], npt.NDArray[np.intp], npt.NDArray[np.intp]
]:
    """Voxels by their C-order index, label after label; the labels, their starts and sizes."""
    where = np.flatnonzero(labels)
    value = np.asarray(labels).ravel()[where]
    order = np.argsort(value, kind='stable')
    where, value = where[order], value[order]
    indices, start, count = np.unique(value, return_index=True, return_counts=True)
    return where, indices, start, count


def _check_shapes(
    labels: npt.NDArray[np.integer],
    prob_mean: npt.NDArray[np.floating],
    fold_probs: npt.NDArray[np.floating] | Sequence[npt.NDArray[np.floating]],
    brain_mask: npt.NDArray[np.generic] | None,
) -> None:
    if len(fold_probs) == 0:
        raise ValueError('fold_probs holds no fold')
    others = {'prob_mean': prob_mean.shape}
    others |= {f'fold_probs[{n}]': fold.shape for n, fold in enumerate(fold_probs)}
    if brain_mask is not None:
        others['brain_mask'] = brain_mask.shape
    for name, shape in others.items():
        if shape != labels.shape:
            raise ValueError(f'{name} has shape {shape}, the labels have {labels.shape}')


def _values(
    array: npt.NDArray[np.floating], where: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Voxels by their C-order index, without a copy of the whole array."""
    picked = np.asarray(array)[np.unravel_index(where, array.shape)]
    return picked.astype(np.float32)


def _agreement(
    fold_probs: npt.NDArray[np.floating] | Sequence[npt.NDArray[np.floating]],
    where: npt.NDArray[np.intp],
    start: npt.NDArray[np.intp],
    threshold: float,
) -> npt.NDArray[np.float64]:
    votes = np.zeros(len(start))
    for fold in fold_probs:
        reached = np.maximum.reduceat(_values(fold, where), start) >= np.float32(threshold)
        votes += reached
    return votes / len(fold_probs)


def _edge_distance(
    voxel: npt.NDArray[np.float64],
    brain_mask: npt.NDArray[np.generic] | None,
    affine: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Distance in mm from each voxel (N, 3) to the nearest voxel outside the mask.

    Only background voxels that share a face with the mask can be nearest to a voxel inside it: one
    step from the nearest background voxel towards the inner voxel is nearer still, hence not
    background. A search tree over that shell gives the distance of a transform of the whole
    volume in a fraction of the time. Holes are filled first: a bleed darker than a
    threshold leaves a hole in a mask made from intensities, and that hole is not the brain's edge.
    """
    if brain_mask is None:
        return np.full(len(voxel), np.nan)
    inside, start = _filled_with_margin(np.asarray(brain_mask) != 0)
    if inside is None:
        return np.zeros(len(voxel))
    shell = np.zeros_like(inside)
    for axis in range(3):
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            a = tuple(here if n == axis else slice(None) for n in range(3))
            b = tuple(there if n == axis else slice(None) for n in range(3))
            shell[a] |= inside[b]
    shell &= ~inside

    voxel_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    tree = cKDTree(np.argwhere(shell) * voxel_mm)
    own = voxel - start
    distance, _ = tree.query(own * voxel_mm)
    within = np.all((own >= 0) & (own < inside.shape), axis=1)
    kept = np.zeros(len(voxel), dtype=bool)
    kept[within] = inside[tuple(own[within].astype(np.intp).T)]
    return np.where(kept, np.asarray(distance, dtype=np.float64), 0.0)


def _filled_with_margin(
    mask: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.intp]]:
    """Cut the mask to its extent plus one voxel of background, and fill its holes."""
    import cc3d

    bounds = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis)))
        if used.size == 0:
            return None, np.zeros(3, dtype=np.intp)
        bounds.append(slice(int(used[0]), int(used[-1]) + 1))
    padded = np.pad(mask[tuple(bounds)], 1)
    outside = np.asarray(cc3d.connected_components(~padded, connectivity=6))
    start = np.array([bound.start - 1 for bound in bounds], dtype=np.intp)
    return outside != outside[0, 0, 0], start
