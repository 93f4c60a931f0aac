"""Score predictions on simulated scans and choose the operating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.lesions.surroundings import keep_labels, parenchyma, parenchyma_fractions
from shivacmb.simulate.dataset import LESION, UNSURE
from shivacmb.train.predict import centroids, clusters

Array = NDArray[Any]

#: Finer near 1, where training on hard negatives crowds the probabilities.
THRESHOLDS = (
    *(0.05, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    *(0.97, 0.98, 0.99, 0.993, 0.995, 0.997, 0.998, 0.999),
)
MIN_VOXELS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Score:
    """What an operating point gives on some scans.

    Attributes
    ----------
    threshold : float
        Probability.
    min_voxels : int
        Smallest cluster that counts.
    hits, visible : int
        Lesions found, and lesions that could be seen.
    hits_large, visible_large : int
        The same for an apparent radius of at least 2 mm.
    false : int
        Clusters that match no lesion, seen or unseen.
    scans : int
        Number of scans.
    lesion_free, crowded : int
        Scans in which no lesion can be seen, and those of them with more than one false positive.
    """

    threshold: float
    min_voxels: int
    hits: int
    visible: int
    hits_large: int
    visible_large: int
    false: int
    scans: int
    lesion_free: int = 0
    crowded: int = 0

    @property
    def sensitivity(self) -> float:
        """Share of visible lesions found; 1 without any."""
        return self.hits / self.visible if self.visible else 1.0

    @property
    def false_per_scan(self) -> float:
        """False positives per scan."""
        return self.false / max(1, self.scans)

    @property
    def f1(self) -> float:
        """Pooled F1 over lesions."""
        return 2 * self.hits / max(1, self.hits + self.visible + self.false)


def score_scan(
    probability: Array,
    flags: Array,
    labels: Array,
    lesions: list[dict[str, Any]],
    *,
    zones: Array | None = None,
    min_parenchyma: float = 0.0,
) -> list[Score]:
    """Score one scan at every operating point.

    A lesion is hit when a cluster touches its label, or the cluster's centroid lies within
    ``max(3, radius + 1.5)`` mm of its centre.

    Parameters
    ----------
    probability : ndarray, float32 [X, Y, Z]
        Prediction, voxels of 1 mm.
    flags, labels : ndarray, uint8 [X, Y, Z]
        Truth.
    lesions : list of dict
        Rows of :attr:`shivacmb.simulate.dataset.Example.lesions`.
    zones : ndarray, uint8 [X, Y, Z], optional
        Zones of the brain.
    min_parenchyma : float
        Clusters with less brain tissue around do not count; needs the zones. See
        :func:`shivacmb.lesions.parenchyma_fractions`.

    Returns
    -------
    list of Score
        All thresholds and sizes.
    """
    flags, truth = np.asarray(flags), np.asarray(labels)
    centres = np.array([row['voxel'] for row in lesions], float).reshape(-1, 3)
    reach = np.array([max(3.0, row['radius'] + 1.5) for row in lesions])
    tissue = None if zones is None else parenchyma(zones, np.eye(4))
    scores = []
    for threshold in THRESHOLDS:
        found, count = clusters(probability, threshold)
        if tissue is not None and count:
            inside = ~(parenchyma_fractions(found, tissue, 1.0) < min_parenchyma)
            found, count = keep_labels(found, inside), int(np.count_nonzero(inside))
        sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
        numbers = np.arange(1, count + 1)
        middles = centroids(found, count)
        matched: list[set[int]] = []
        excused = []
        where = np.flatnonzero(found)
        owner, marks = found.ravel()[where], truth.ravel()[where]
        pairs = set(zip(owner[marks > 0].tolist(), marks[marks > 0].tolist(), strict=True))
        free = set(owner[(flags.ravel()[where] & (LESION | UNSURE)) > 0].tolist())
        touching: dict[int, set[int]] = {}
        for number, mark in pairs:
            touching.setdefault(number, set()).add(mark)
        for number, middle in zip(numbers.tolist(), middles, strict=True):
            near = np.linalg.norm(centres - middle, axis=1) <= reach
            close = {int(lesions[i]['number']) for i in np.flatnonzero(near)}
            matched.append(touching.get(number, set()) | close)
            excused.append(number in free)
        for least in MIN_VOXELS:
            keep = [i for i in range(count) if sizes[i] >= least]
            hit = set().union(*[matched[i] for i in keep]) if keep else set()
            seen = [row for row in lesions if row['visible']]
            large = [row for row in seen if row['radius'] >= 2.0]
            false = sum(not matched[i] and not excused[i] for i in keep)
            scores.append(Score(
                threshold, least,
                sum(row['number'] in hit for row in seen), len(seen),
                sum(row['number'] in hit for row in large), len(large),
                false, 1, int(not seen), int(not seen and false > 1),
            ))  # fmt: skip
    return scores


def pool_scores(tables: list[list[Score]]) -> list[Score]:
    """Add up the scores of several scans, operating point by operating point."""
    pooled = []
    for row in zip(*tables, strict=True):
        sums = [
            sum(getattr(score, name) for score in row)
            for name in (
                'hits', 'visible', 'hits_large', 'visible_large', 'false', 'scans',
                'lesion_free', 'crowded',
            )
        ]  # fmt: skip
        pooled.append(Score(row[0].threshold, row[0].min_voxels, *sums))
    return pooled


def choose(scores: list[Score], most_false: float = 0.9, slack: float = 0.01) -> Score:
    """Choose the most sensitive point among those of the best F1 and few enough false positives.

    Parameters
    ----------
    scores : list of Score
        Of :func:`pool_scores`.
    most_false : float
        False positives per scan that are still accepted: fewer than the one that is wanted, as the
        scans that chose the point show it better than it is.
    slack : float
        How much lower than the best an F1 may be: less than it differs between two sets of scans
        (docs/decisions/0125).

    Returns
    -------
    Score
        When none is accepted: the one with the fewest false positives.
    """
    accepted = [score for score in scores if score.false_per_scan <= most_false]
    if not accepted:
        return min(scores, key=lambda s: (s.false_per_scan, -s.sensitivity))
    best = max(score.f1 for score in accepted)
    good = [score for score in accepted if score.f1 >= best - slack]
    return max(good, key=lambda s: (s.sensitivity, s.f1, -s.threshold, -s.min_voxels))
