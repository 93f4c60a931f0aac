"""Training patches cut from a pool of simulated scans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.dataset import BRAIN, LESION, MIMIC, UNSURE
from shivacmb.train.augment import bezier_curve
from shivacmb.train.pool import PoolScan, load_scan

Array = NDArray[Any]

#: Share of the patches by what lies in them, when hard negatives are known.
MIX: dict[str, float] = {'lesion': 0.33, 'mimic': 0.12, 'edge': 0.08, 'brain': 0.12, 'hard': 0.35}


def bezier_table(rng: np.random.Generator) -> Array:
    """Draw a monotone intensity curve.

    A cubic Bezier curve from (0, 0) to (1, 1) as in Tsuchida 2024 (who leave open whether it is
    monotone; here the inner control points are sorted), times a scale of 0.9 to 1.1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray, float32 [256]
        New value, 0 to 1, of every 8-bit value.
    """
    x = np.sort(rng.random(2))
    y = np.sort(0.6 * x + 0.4 * rng.random(2))
    curve = bezier_curve(np.stack([x, y], axis=1), np.arange(256) / 255)
    table = curve * rng.uniform(0.9, 1.1)
    return np.asarray(np.clip(table, 0, 1), np.float32)


def cut(volume: Array, corner: Array, size: int) -> Array:
    """Cut a cube, zero where it leaves the volume; ``corner`` is its lowest voxel."""
    low = np.maximum(corner, 0)
    high = np.minimum(corner + size, volume.shape)
    if (low == corner).all() and (high == corner + size).all():
        return np.array(volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    out = np.zeros((size,) * 3, volume.dtype)
    if (high > low).all():
        target = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        out[target] = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return out


def interesting_points(scan: PoolScan, seed: int, count: int = 200) -> dict[str, Array]:
    """Voxels to centre patches on, by kind.

    Parameters
    ----------
    scan : PoolScan
        One scan.
    seed : int
        Of the choice.
    count : int
        Most points of a kind.

    Returns
    -------
    dict of ndarray, int [N, 3]
        'lesion', 'mimic', 'edge' (rim of the brain) and 'brain'; a kind may be empty.
    """
    rng = np.random.default_rng(seed)
    flags = np.asarray(scan.flags)
    brain = (flags & BRAIN) > 0
    rim = brain.copy()
    rim[1:-1, 1:-1, 1:-1] &= ~(brain[2:, 1:-1, 1:-1] & brain[:-2, 1:-1, 1:-1]
                               & brain[1:-1, 2:, 1:-1] & brain[1:-1, :-2, 1:-1])  # fmt: skip
    masks = {'mimic': brain & ((flags & MIMIC) > 0), 'edge': rim, 'brain': brain}
    points: dict[str, Array] = {
        'lesion': np.array([row['voxel'] for row in scan.lesions if row['visible']]).reshape(-1, 3)
    }
    for kind, mask in masks.items():
        flat = np.flatnonzero(mask)
        chosen = rng.choice(flat, count) if flat.size else flat
        points[kind] = np.stack(np.unravel_index(chosen, mask.shape), axis=1)
    return points


@dataclass
class PatchSource:
    """Draws batches; the seed and the step alone decide a batch.

    Attributes
    ----------
    pool : Path
        Folder of a pool.
    indices : list of int
        Scans that may be used, in the order in which they become available.
    seed : int
        Of every draw.
    size : int
        Side of a patch in voxels.
    batch : int
        Patches per batch.
    first, per_step : int, float
        Scans used at step 0, and added per step: the pool may still be filling.
    hard : dict of int to ndarray [N, 3]
        Hard negatives by scan number.
    """

    pool: Path
    indices: list[int]
    seed: int
    size: int = 48
    batch: int = 6
    first: int = 24
    per_step: float = 0.2
    hard: dict[int, Array] = field(default_factory=dict)
    _open: dict[int, tuple[PoolScan, dict[str, Array]]] = field(default_factory=dict)

    def _scan(self, index: int) -> tuple[PoolScan, dict[str, Array]]:
        if index not in self._open:
            scan = load_scan(self.pool, index)
            self._open[index] = (scan, interesting_points(scan, index))
        return self._open[index]

    def _patch(self, rng: np.random.Generator, usable: list[int]) -> tuple[Array, Array]:
        kinds = list(MIX)
        kind = kinds[int(rng.choice(len(kinds), p=list(MIX.values())))]
        known = [index for index in usable if len(self.hard.get(index, ()))]
        if kind == 'hard' and not known:
            kind = 'mimic' if rng.random() < 0.5 else 'brain'
        index = int(rng.choice(known if kind == 'hard' else usable))
        scan, points = self._scan(index)
        where = self.hard[index] if kind == 'hard' else points[kind]
        if not len(where):
            where = points['brain']
        reach = self.size // 2 - 6
        middle = where[int(rng.integers(len(where)))] + rng.integers(-reach, reach + 1, 3)
        corner = np.asarray(middle) - self.size // 2
        table = bezier_table(rng) if rng.random() < 0.6 else np.arange(256, dtype=np.float32) / 255
        image = table[cut(scan.image, corner, self.size)]
        flags = cut(scan.flags, corner, self.size)
        if rng.random() < 0.3:
            noise = rng.standard_normal(image.shape, dtype=np.float32)
            image = np.clip(image + np.float32(rng.uniform(0, 0.04)) * noise, 0, 1)
        target = np.stack([(flags & LESION) > 0, (flags & UNSURE) == 0], axis=-1)
        turn = tuple(
            int(axis) for axis in (rng.permutation(3) if rng.random() < 0.3 else range(3))
        )
        flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
        image = np.flip(image.transpose(turn), flips)
        target = np.flip(target.transpose((*turn, 3)), flips)
        return image[..., None], target.astype(np.float32)

    def draw(self, step: int) -> tuple[Array, Array]:
        """Draw the batch of one step.

        Parameters
        ----------
        step : int
            Number of the training step.

        Returns
        -------
        images : ndarray, float32 [N, X, Y, Z, 1]
            Scaled intensities.
        targets : ndarray, float32 [N, X, Y, Z, 2]
            Lesion (0 or 1), and weight (0 where nobody could tell).
        """
        rng = np.random.default_rng([self.seed, step])
        usable = self.indices[: max(1, int(self.first + self.per_step * step))]
        pairs = [self._patch(rng, usable) for _ in range(self.batch)]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
