"""From the folds' probabilities to lesions that are numbered, measured and placed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.lesions.clusters import find_clusters, grow_clusters, number_by_size
from shivacmb.lesions.measure import Lesion, lesion_table
from shivacmb.lesions.regions import with_regions
from shivacmb.lesions.surroundings import keep_labels, parenchyma, parenchyma_fractions

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FoundLesions:
    """What the networks' probabilities come to.

    Attributes
    ----------
    lesions : list of Lesion
        By number.
    labels : (X, Y, Z) array of int32
        In the box, one value per lesion.
    mean : (X, Y, Z) array of float32
        Of the folds, in the box.
    left_out : int or None
        Candidates that were not counted, since too little of what surrounds them is tissue; None
        where that could not be told.
    """

    lesions: list[Lesion]
    labels: npt.NDArray[np.int32]
    mean: npt.NDArray[np.float32]
    left_out: int | None


def find_lesions(
    folds: Sequence[Array] | Array,
    *,
    to_whole: Callable[[Array], Array],
    affine: Array,
    brain_mask: Array,
    zones: Array | None,
    threshold: float,
    min_voxels: int,
    connectivity: int,
    min_parenchyma: float,
    outline_threshold: float | None = None,
) -> FoundLesions:
    """Average the folds, binarise, cluster, leave out what lies in fluid, outline, measure.

    Parameters
    ----------
    folds : (F, X, Y, Z) array of float32
        Probability by each network in the box, 0 outside the brain.
    to_whole : callable
        Lays an array of the box on the whole isotropic grid.
    affine : (4, 4) array
        Of the whole isotropic grid, voxel to scanner RAS mm.
    brain_mask : array
        On the whole grid: where the box cuts the brain is not the brain's edge.
    zones : array, optional
        Zones of the brain on the whole grid; all 0 says that they are not known.
    threshold, min_voxels, connectivity
        As for :func:`find_clusters`.
    min_parenchyma : float
        Least share of the surroundings that must be brain tissue; see
        :func:`parenchyma_fractions`. Without zones nothing is left out.
    outline_threshold : float, optional
        Probability down to which the clusters then grow, see :func:`grow_clusters`; without it
        they end at ``threshold``.

    Returns
    -------
    FoundLesions
    """
    mean = np.asarray(folds).mean(axis=0, dtype=np.float32)
    labels = find_clusters(
        mean, threshold=threshold, min_voxels=min_voxels, connectivity=connectivity
    )
    voxel_mm = float(np.linalg.norm(affine[:3, 0]))
    if zones is not None and not zones.any():
        zones = None
    fractions = np.full(int(labels.max(initial=0)), np.nan)
    left_out = None
    keep = np.ones(len(fractions), bool)
    if zones is not None:
        tissue = parenchyma(zones, affine)
        fractions = parenchyma_fractions(to_whole(labels), tissue, voxel_mm)
        keep = ~(fractions < min_parenchyma)
        left_out = int(np.count_nonzero(~keep))
    found = labels > 0
    outline = min(threshold if outline_threshold is None else outline_threshold, threshold)
    if outline < threshold:
        # before anything is left out, so that no lesion grows over that
        labels = grow_clusters(labels, mean, outline_threshold=outline, connectivity=connectivity)
    labels, fractions = keep_labels(labels, keep), fractions[keep]
    if outline < threshold:
        labels, former = number_by_size(labels)
        fractions = fractions[former - 1]
    whole = to_whole(labels)
    # where a lesion is, and what the folds say of it, do not depend on how far it is outlined
    cores = to_whole(np.where(found, labels, 0)) if outline < threshold else None
    lesions = lesion_table(
        whole, to_whole(mean), [to_whole(fold) for fold in folds], affine,
        brain_mask=brain_mask, threshold=threshold, cores=cores,
    )  # fmt: skip
    if zones is not None:
        lesions = with_regions(lesions, whole if cores is None else cores, zones, voxel_mm)
    measured = zip(lesions, fractions.tolist(), strict=True)
    lesions = [
        dataclasses.replace(lesion, parenchyma_fraction=share) for lesion, share in measured
    ]
    return FoundLesions(lesions, labels, mean, left_out)
