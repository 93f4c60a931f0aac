"""Which prediction belongs to which lesion: the four ways the papers know.

Both directions are kept. One prediction over two lesions, or two fragments on one, make the
number of hits differ from the side of the predictions and from the side of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.objects import Objects

Array = npt.NDArray[Any]
Unit = Literal['mm', 'voxel']
#: Distances in mm have rounding errors of the affine: three voxels of 1 mm are not below 3 mm.
_BELOW = 1 - 1e-5


@dataclass(frozen=True)
class Match:
    """Outcome of a matching.

    Attributes
    ----------
    pred_hit : (P,) array of bool
        Predictions that are right.
    truth_hit : (T,) array of bool
        Lesions that are found.
    partner : (P,) array of int
        The lesion each prediction goes to, -1 for none; for VALDO's rule also of those that lost
        it to a closer one.
    """

    pred_hit: Array
    truth_hit: Array
    partner: Array

    @property
    def tp_pred(self) -> int:
        """Predictions that are right."""
        return int(self.pred_hit.sum())

    @property
    def tp_truth(self) -> int:
        """Lesions that are found."""
        return int(self.truth_hit.sum())

    @property
    def fp(self) -> int:
        """Predictions that are wrong."""
        return int((~self.pred_hit).sum())

    @property
    def fn(self) -> int:
        """Lesions that are missed."""
        return int((~self.truth_hit).sum())


def overlaps(pred: Objects, truth: Objects) -> Array:
    """Shared voxels of every pair, (P, T) int.

    Raises
    ------
    ValueError
        If the grids have different shapes.
    """
    if pred.shape != truth.shape:
        raise ValueError(f'The grids differ: {pred.shape} and {truth.shape}')
    shared = np.zeros((len(pred), len(truth)), np.int64)
    _, first, second = np.intersect1d(
        pred.voxels, truth.voxels, assume_unique=True, return_indices=True
    )
    np.add.at(shared, (pred.owners[first], truth.owners[second]), 1)
    return shared


def distances(pred: Objects, truth: Objects, unit: Unit) -> Array:
    """Distance of the centres of every pair, (P, T), in mm or in voxels of the grid."""
    from scipy.spatial.distance import cdist

    if unit == 'mm':
        first, second = pred.centres_mm, truth.centres_mm
    else:
        first, second = pred.centres, truth.centres
    if not len(pred) or not len(truth):
        return np.zeros((len(pred), len(truth)))
    return np.asarray(cdist(first, second))


def match_touch(shared: Array) -> Match:
    """One voxel in common is a hit, any number of partners (SHIVA-CMB paper).

    Parameters
    ----------
    shared : (P, T) array of int
        Of :func:`overlaps`.
    """
    hit: Array = shared > 0
    pred_hit, truth_hit = np.asarray(hit.any(axis=1)), np.asarray(hit.any(axis=0))
    partner = shared.argmax(axis=1) if shared.shape[1] else np.zeros(len(shared), int)
    return Match(pred_hit, truth_hit, np.where(pred_hit, partner, -1))


def match_within(away: Array, tolerance: float) -> Match:
    """Hit when the centres are closer than the tolerance, any number of partners (DEEPMIR).

    Parameters
    ----------
    away : (P, T) array of float
        Of :func:`distances`.
    tolerance : float
        In the unit of ``away``; a pair exactly that far apart is no hit ("below").
    """
    hit: Array = away < tolerance * _BELOW
    pred_hit, truth_hit = np.asarray(hit.any(axis=1)), np.asarray(hit.any(axis=0))
    partner = away.argmin(axis=1) if away.shape[1] else np.zeros(len(away), int)
    return Match(pred_hit, truth_hit, np.where(pred_hit, partner, -1))


def match_nearest(away: Array, tolerance: float) -> Match:
    """Each prediction goes to its nearest lesion; of several the closest wins (VALDO's code).

    The losers are wrong and are not given another lesion, even a free one within reach. Two that
    are exactly as close both count, as they do there.

    Parameters
    ----------
    away : (P, T) array of float
        Of :func:`distances`.
    tolerance : float
        In the unit of ``away``; a pair exactly that far apart is no hit.
    """
    count, lesions = away.shape
    if not count or not lesions:
        return Match(np.zeros(count, bool), np.zeros(lesions, bool), np.full(count, -1))
    nearest = away.argmin(axis=1)
    closest = away[np.arange(count), nearest]
    near = closest < tolerance * _BELOW
    best = np.full(lesions, np.inf)
    np.minimum.at(best, nearest[near], closest[near])
    pred_hit = near & (closest == best[nearest])
    truth_hit = np.zeros(lesions, bool)
    truth_hit[nearest[pred_hit]] = True
    return Match(pred_hit, truth_hit, np.where(near, nearest, -1))


def match_optimal(away: Array, tolerance: float) -> Match:
    """One to one: most pairs closer than the tolerance, then the least total distance.

    Parameters
    ----------
    away : (P, T) array of float
        Of :func:`distances`.
    tolerance : float
        In the unit of ``away``; a pair exactly that far apart is no pair.
    """
    from scipy.optimize import linear_sum_assignment

    allowed = away < tolerance * _BELOW
    # a forbidden pair costs more than all allowed ones together: number first, distance second
    forbidden = tolerance * (min(away.shape) + 1) if away.size else 0.0
    rows, columns = linear_sum_assignment(np.where(allowed, away, forbidden))
    partner = np.full(away.shape[0], -1)
    good = allowed[rows, columns]
    partner[rows[good]] = columns[good]
    truth_hit = np.zeros(away.shape[1], bool)
    truth_hit[columns[good]] = True
    return Match(partner >= 0, truth_hit, partner)
