"""How much of what surrounds a lesion is brain tissue.

A microbleed is at least half surrounded by brain parenchyma: one of the criteria of Greenberg et
al., Lancet Neurol 2009;8:165-174, table 1. What lies in a ventricle or a cistern (a calcified
choroid plexus, a vessel) is a mimic, and so is the calcium of the pineal gland, which is no brain
tissue either.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shivacmb.imaging.zones import Zone
from shivacmb.lesions.pineal import pineal_region

#: How far from a lesion its surroundings reach, on coarser grids one voxel.
SURROUNDINGS_MM = 2.0
#: What the share of tissue among a lesion's own voxels counts, compared with that around it: zones
#: are rough, and a dark spot may pass for fluid in part (docs/decisions/0128).
OWN_WEIGHT = 2.0


def is_tissue(zones: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Tell which voxels of a zone map are brain tissue: neither fluid nor outside the brain."""
    tissue: npt.NDArray[np.bool_] = (zones != Zone.BACKGROUND) & (zones != Zone.FLUID)
    return tissue


def parenchyma(zones: npt.NDArray[np.integer], affine: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which voxels are brain tissue in which a microbleed may lie.

    Parameters
    ----------
    zones, affine
        As for :func:`shivacmb.lesions.pineal.find_pineal`.

    Returns
    -------
    (X, Y, Z) array of bool
        :func:`is_tissue`, without the :func:`pineal_region
        <shivacmb.lesions.pineal.pineal_region>`.
    """
    return is_tissue(zones) & ~pineal_region(zones, affine)


def parenchyma_fractions(
    labels: npt.NDArray[np.integer], tissue: npt.NDArray[np.bool_], voxel_mm: float
) -> npt.NDArray[np.float64]:
    """Measure how much of the surroundings of each label is brain tissue.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside, lesions numbered from 1 without a gap.
    tissue : (X, Y, Z) array of bool
        Of :func:`parenchyma`.
    voxel_mm : float
        Voxel size of both, which are isotropic.

    Returns
    -------
    (N,) array of float64
        For label n + 1 the share of tissue among the voxels that are not of the lesion and whose
        centre lies within :data:`SURROUNDINGS_MM` of one of its own, or :data:`OWN_WEIGHT` times
        that among its own voxels, whichever is smaller; 0 to 1. NaN for a lesion that fills the
        array.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels.shape != tissue.shape:
        raise ValueError(f'tissue has shape {tissue.shape}, the labels have {labels.shape}')
    boxes = ndimage.find_objects(labels)
    fractions = np.full(len(boxes), np.nan)
    reach = max(SURROUNDINGS_MM, voxel_mm) + 1e-6
    for n, box in enumerate(boxes):
        window, away = distances(labels, n + 1, box, reach, voxel_mm)
        around = (away > 0) & (away <= reach)
        if not around.any():
            continue
        own = float(tissue[window][away == 0].mean())
        fractions[n] = min(float(tissue[window][around].mean()), OWN_WEIGHT * own)
    return fractions


def distances(
    labels: npt.NDArray[np.integer],
    number: int,
    box: tuple[slice, ...],
    reach_mm: float,
    voxel_mm: float,
) -> tuple[tuple[slice, ...], npt.NDArray[np.float64]]:
    """Measure how far the voxels around a lesion lie from it.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside.
    number : int
        Of the lesion.
    box : tuple of three slice
        Which holds it.
    reach_mm : float
        How far to look.
    voxel_mm : float
        Voxel size, isotropic.

    Returns
    -------
    window : tuple of three slice
        All voxels within reach are in there, and others.
    away : array of float64
        In that window: mm to the nearest voxel of the lesion, 0 in it.
    """
    margin = int(np.ceil(reach_mm / voxel_mm))
    window = tuple(
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, size in zip(box, labels.shape, strict=True)
    )
    away = ndimage.distance_transform_edt(labels[window] != number, sampling=voxel_mm)
    return window, np.asarray(away, np.float64)


def keep_labels(
    labels: npt.NDArray[np.integer], keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """Drop labels and number the others on without a gap, in the same order.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside, lesions numbered from 1.
    keep : (N,) array of bool
        For label n + 1.
    """
    numbers = np.zeros(len(keep) + 1, dtype=np.int32)
    numbers[1:][keep] = np.arange(1, np.count_nonzero(keep) + 1, dtype=np.int32)
    kept: npt.NDArray[np.int32] = numbers[labels]
    return kept
