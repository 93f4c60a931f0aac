"""Threshold and minimum size from scans that a network did not see in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import write_text
from shivacmb.train.labels import IGNORED, components
from shivacmb.train.predict import clusters
from shivacmb.train.select import MIN_VOXELS, THRESHOLDS, Score, pool_scores
from shivacmb.train.volumes import Volume, open_volume

Array = NDArray[Any]

PAPER_THRESHOLD, PAPER_MIN_VOXELS = 0.4, 3
#: A cluster this many times the size of a lesion has not found it.
TOO_LARGE = 10
#: Radius in voxels from which a lesion counts as large.
LARGE_RADIUS = 2.0


def score_volume(probability: Array, volume: Volume, number: int, outside: int = 0) -> list[Score]:
    """Score one prediction at every operating point.

    A cluster finds the lesion it shares most voxels with, one cluster one lesion, unless it is
    more than ten times as large as that lesion (and than 3 voxels): a network that marks half the
    brain has found nothing. A second cluster on a lesion is neither a hit nor false.

    Parameters
    ----------
    probability : ndarray, float32 [X, Y, Z]
        Of one class; what lies outside the brain is left out, as in the app.
    volume : Volume
        Truth.
    number : int
        Of the class.
    outside : int
        Lesions of the class that the box leaves out: nobody can find them.

    Returns
    -------
    list of Score
        All thresholds and sizes of :mod:`shivacmb.train.select`.
    """
    classes = np.asarray(volume.classes)
    truth, count = components(classes == number)
    volumes = np.bincount(truth.ravel(), minlength=count + 1)
    radii = (3 * volumes / (4 * np.pi)) ** (1 / 3)
    large = {lesion for lesion in range(1, count + 1) if radii[lesion] >= LARGE_RADIUS}
    inside = np.asarray(probability, np.float32) * (np.asarray(volume.brain) > 0)
    scores = []
    for threshold in THRESHOLDS:
        found, clusters_found = clusters(inside, threshold)
        where = np.flatnonzero(found)
        owner, marks = found.ravel()[where], truth.ravel()[where]
        sizes = np.bincount(owner, minlength=clusters_found + 1)
        unclear = np.bincount(
            owner[classes.ravel()[where] == IGNORED], minlength=clusters_found + 1
        )
        pairs = _pairs(owner, marks, sizes, volumes)
        excused = {cluster for _, cluster, _ in pairs}
        excused |= set(np.flatnonzero(unclear * 2 >= np.maximum(sizes, 1)).tolist())
        for least in MIN_VOXELS:
            kept = [c for c in range(1, clusters_found + 1) if sizes[c] >= least]
            hits = _match([pair for pair in pairs if sizes[pair[1]] >= least])
            scores.append(
                Score(
                    threshold, least, len(hits), count + outside, len(hits & large), len(large),
                    sum(cluster not in excused for cluster in kept), 1,
                )
            )  # fmt: skip
    return scores


def _pairs(owner: Array, marks: Array, sizes: Array, volumes: Array) -> list[tuple[int, int, int]]:
    """Clusters that may stand for lesions: (voxels shared, cluster, lesion), most first."""
    both = marks > 0
    stacked = np.stack([owner[both], marks[both]], axis=1).astype(np.int64).reshape(-1, 2)
    unique, shared = np.unique(stacked, axis=0, return_counts=True)
    pairs = [
        (int(voxels), int(cluster), int(lesion))
        for (cluster, lesion), voxels in zip(unique, shared, strict=True)
        if sizes[cluster] <= TOO_LARGE * max(3, volumes[lesion])
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


def _match(pairs: list[tuple[int, int, int]]) -> set[int]:
    """Lesions found when a cluster may find one lesion only."""
    used: set[int] = set()
    hits: set[int] = set()
    for _, cluster, lesion in pairs:
        if cluster not in used and lesion not in hits:
            used.add(cluster)
            hits.add(lesion)
    return hits


def soft_dice(probability: Array, volume: Volume, number: int) -> tuple[float, float]:
    """Numerator and denominator of the soft Dice overlap of a class, to be added over scans."""
    classes = np.asarray(volume.classes)
    keep = classes != IGNORED
    truth = (classes == number) & keep
    guess = np.asarray(probability, np.float32) * (np.asarray(volume.brain) > 0) * keep
    return 2 * float(guess[truth].sum()), float(truth.sum()) + float(guess.sum())


def choose_point(scores: Sequence[Score]) -> Score:
    """Choose the point with the largest F1 over all lesions.

    Of equal ones: fewer false positives, then the point nearest to that of Tsuchida 2024, a
    threshold of 0.4 and 3 voxels.
    """
    return max(
        scores,
        key=lambda score: (
            round(score.f1, 9),
            -score.false,
            -abs(score.threshold - PAPER_THRESHOLD),
            -abs(score.min_voxels - PAPER_MIN_VOXELS),
        ),
    )


def score_fold(
    predict: Callable[[Array], Array],
    weights: Sequence[Array],
    pool: Path,
    names: Sequence[str],
    number: int,
    kept: Path,
    stop: Callable[[], bool],
) -> list[dict[str, Any]] | None:
    """Score the scans that a fold did not see; what was scored before is read back.

    Parameters
    ----------
    predict : callable
        Image [X, Y, Z, C] to probability [X, Y, Z, K].
    weights : sequence of ndarray
        Of the network behind ``predict``: with other weights everything is scored anew.
    pool : Path
        Prepared scans.
    names : sequence of str
        Which.
    number : int
        Class to score.
    kept : Path
        Folder for the scores.
    stop : callable
        Asked between scans: True ends the work early.

    Returns
    -------
    list of dict, or None
        ``name``, ``scores`` and ``dice`` (numerator, denominator) by scan; None when stopped.
    """
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    found = []
    for name in names:
        volume = open_volume(pool, name)
        key = f'{digest.hexdigest()[:24]}-{volume.facts.get("key", "")[:24]}-{number}'
        path = kept / f'{name.replace("/", "__")}.json'
        entry = _read(path, key)
        if entry is None:
            if stop():
                return None
            probability = predict(np.asarray(volume.image))[..., number - 1]
            scores = score_volume(probability, volume, number, volume.outside(number))
            entry = {
                'key': key, 'name': name, 'scores': [asdict(score) for score in scores],
                'dice': soft_dice(probability, volume, number),
            }  # fmt: skip
            write_text(path, json.dumps(entry) + '\n')
        found.append(entry)
    return found


def _read(path: Path, key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get('key') == key else None


def pooled(entries: Sequence[dict[str, Any]]) -> list[Score]:
    """Add up the scores of scans, operating point by operating point."""
    return pool_scores([[Score(**score) for score in entry['scores']] for entry in entries])


def points_table(scores: Sequence[Score]) -> str:
    """Return all operating points as a TSV table."""
    lines = ['threshold\tmin_voxels\tsensitivity\tfalse_positives_per_scan\tf1\thits\tlesions']
    lines += [
        f'{s.threshold:g}\t{s.min_voxels}\t{s.sensitivity:.4f}\t{s.false_per_scan:.4f}\t'
        f'{s.f1:.4f}\t{s.hits}\t{s.visible}'
        for s in scores
    ]
    return '\n'.join(lines) + '\n'
