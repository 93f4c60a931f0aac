"""Which zone of the brain a lesion lies in, and how many lie in each group of zones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shivacmb.imaging.zones import GROUPS, REGIONS, group_of
from shivacmb.lesions.measure import Lesion
from shivacmb.lesions.surroundings import distances, is_tissue

#: How far from a lesion its zone may be looked for, where it lies in fluid or in no zone.
REACH_MM = 10.0
#: Count of lesions without a zone.
UNPLACED = 'unplaced'


def with_regions(
    lesions: Sequence[Lesion],
    labels: npt.NDArray[np.integer],
    zones: npt.NDArray[np.integer],
    voxel_mm: float,
) -> list[Lesion]:
    """Name the zone of each lesion.

    Parameters
    ----------
    lesions : sequence of Lesion
        Their ``index`` is the value in ``labels``.
    labels : (X, Y, Z) array of int
        0 outside lesions.
    zones : (X, Y, Z) array of int
        Values of :data:`shivacmb.imaging.zones.REGIONS`, 0 outside the brain.
    voxel_mm : float
        Voxel size of both, which are isotropic.

    Returns
    -------
    list of Lesion
        With ``region``: the zone of most of its voxels, the smaller index where two are equal.
        Fluid does not count, because bleeds lie in tissue; a lesion all in fluid or outside takes
        the nearest tissue within :data:`REACH_MM`, else ''.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels.shape != zones.shape:
        raise ValueError(f'zones has shape {zones.shape}, the labels have {labels.shape}')
    boxes = ndimage.find_objects(labels)
    return [
        dataclasses.replace(lesion, region=_region(lesion.index, labels, zones, boxes, voxel_mm))
        for lesion in lesions
    ]


def _region(
    index: int,
    labels: npt.NDArray[np.integer],
    zones: npt.NDArray[np.integer],
    boxes: list[Any],
    voxel_mm: float,
) -> str:
    box = boxes[index - 1]
    inside = labels[box] == index
    own = zones[box][inside]
    found = own[is_tissue(own)]
    if not found.size:
        window, away = distances(labels, index, box, REACH_MM, voxel_mm)
        around = zones[window]
        away[~is_tissue(around)] = np.inf
        if not away.min() <= REACH_MM:
            return ''
        found = around[away == away.min()]
    values, counts = np.unique(found, return_counts=True)
    return REGIONS[int(values[np.argmax(counts)])].name


def group_counts(lesions: Sequence[Lesion]) -> dict[str, int]:
    """Count the lesions by group of zones.

    Returns
    -------
    dict
        A number for each of :data:`shivacmb.imaging.zones.GROUPS` and for ``unplaced``; their sum
        is the number of lesions.
    """
    counts = dict.fromkeys([*GROUPS, UNPLACED], 0)
    for lesion in lesions:
        counts[group_of(lesion.region) or UNPLACED] += 1
    return counts
