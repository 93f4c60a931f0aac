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
from shivacmb.simulate.dataset import LESION, UNSURE
from shivacmb.train.labels import IGNORED, components
from shivacmb.train.select import Score, pool_scores, score_scan
from shivacmb.train.volumes import Volume, open_volume

Array = NDArray[Any]

PAPER_THRESHOLD, PAPER_MIN_VOXELS = 0.4, 3


def lesion_rows(classes: Array, number: int) -> tuple[Array, list[dict[str, Any]]]:
    """Number the lesions of a class.

    Parameters
    ----------
    classes : ndarray, uint8 [X, Y, Z]
        Map of classes.
    number : int
        Of the class.

    Returns
    -------
    labels : ndarray, int [X, Y, Z]
        1, 2, ... by lesion (26-connected).
    rows : list of dict
        ``number``, ``voxel`` (centre), ``radius`` (of a sphere of the same volume, voxels) and
        ``visible`` of each lesion, as :func:`shivacmb.train.select.score_scan` wants them.
    """
    labels, count = components(classes == number)
    rows = []
    for lesion in range(1, count + 1):
        where = np.argwhere(labels == lesion)
        radius = float((3 * len(where) / (4 * np.pi)) ** (1 / 3))
        rows.append({
            'number': lesion, 'voxel': where.mean(axis=0).tolist(), 'radius': radius,
            'visible': True,
        })  # fmt: skip
    return labels, rows


def score_volume(probability: Array, volume: Volume, number: int) -> list[Score]:
    """Score one prediction at every operating point.

    Parameters
    ----------
    probability : ndarray, float32 [X, Y, Z]
        Of one class; what lies outside the brain is left out, as in the app.
    volume : Volume
        Truth.
    number : int
        Of the class.

    Returns
    -------
    list of Score
        All thresholds and sizes of :mod:`shivacmb.train.select`.
    """
    classes = np.asarray(volume.classes)
    labels, rows = lesion_rows(classes, number)
    flags = np.where(labels > 0, LESION, 0).astype(np.uint8)
    flags[classes == IGNORED] = UNSURE
    inside = np.asarray(probability, np.float32) * (np.asarray(volume.brain) > 0)
    return score_scan(inside, flags, labels, rows)


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
            scores = score_volume(probability, volume, number)
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
