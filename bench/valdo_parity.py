"""Compare the ``valdo`` rules with the challenge's own code on random pairs of maps.

The challenge's code has no licence, so it is not part of this repository: clone
``WhereIsValdo/valdo-eval-2021`` from GitHub and run
``python bench/valdo_parity.py --code CHECKOUT``. Prints how many pairs agree in each measure and
leaves with 1 when one does not. Its code measures distances in voxels unless it is given voxel
sizes, so the rule ``valdo-voxel`` is compared without them and ``valdo-mm`` with them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from shivacmb.evaluate import Objects, from_mask, from_probability, rule_sets, score_scan

SHAPE, SIZES_MM, THRESHOLD, TOLERANCE = (40, 44, 36), (0.8, 0.8, 2.5), 0.5, 5.0
#: Our name of each measure and theirs
MEASURES = {
    'F1': 'f1_count_element',
    'Dice over hits': 'mean_dsc_whenoverlap',
    'count difference': 'absolute_difference',
    'volume difference': 'absolute_vol_difference',
}


def ball(volume: np.ndarray, centre: np.ndarray, radius: float, value: float) -> None:
    """Fill a ball of voxels."""
    axes = np.ogrid[tuple(slice(0, size) for size in volume.shape)]
    inside = sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= radius**2
    volume[inside] = value


def random_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a probability map and a mask: hits, fragments, misses, extras, and empty sides."""
    truth, probability = np.zeros(SHAPE), rng.random(SHAPE) * 0.3
    for _ in range(rng.integers(0, 7)):
        centre, radius = rng.uniform(4, np.array(SHAPE) - 4), rng.uniform(0.8, 3.5)
        ball(truth, centre, radius, 1)
        for _ in range(rng.choice(3, p=[0.3, 0.5, 0.2])):
            there = centre + rng.normal(0, 2.5, 3)
            ball(probability, there, rng.uniform(0.8, 3.5), rng.uniform(0.4, 1))
    for _ in range(rng.integers(0, 3)):
        there = rng.uniform(4, np.array(SHAPE) - 4)
        ball(probability, there, rng.uniform(0.8, 3), rng.uniform(0.4, 1))
    return probability, truth


def ours(rule: str, pred: Objects, truth: Objects) -> dict[str, float]:
    """Score one pair with this package."""
    (chosen,) = (item for item in rule_sets(['valdo']) if item.name == rule)
    score = score_scan(chosen, pred, truth)
    return {
        'F1': score.by_zero_rule['valdo'].f1_count,
        'Dice over hits': score.dice_hits,
        'count difference': score.count_difference,
        'volume difference': score.volume_difference_mm3,
    }


def theirs(
    measures: Callable[..., object], prob: np.ndarray, truth: np.ndarray, sizes: list[float]
) -> dict[str, float]:
    """Score one pair with the challenge's code."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pair = measures(
            truth, prob, analysis='microbleeds', threshold=THRESHOLD, thresh_assign=TOLERANCE,
            connectivity=3, pixdim=sizes,
        )  # fmt: skip
        return {name: float(getattr(pair, method)()) for name, method in MEASURES.items()}


def same(one: float, other: float) -> bool:
    """Tell whether two figures agree; no figure agrees with no figure."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6) or (
        math.isnan(one) and math.isnan(other)
    )


def main() -> int:
    """Compare and print; 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--code', type=Path, required=True, help='checkout of valdo-eval-2021')
    parser.add_argument('--pairs', type=int, default=300)
    parser.add_argument('--seed', type=int, default=20261121)
    options = parser.parse_args()
    sys.path.insert(0, str(options.code))
    from evaluation_comparison.pairwise_measures import PairwiseMeasures

    differing = 0
    for rule, sizes in (('valdo-voxel', (1.0, 1.0, 1.0)), ('valdo-mm', SIZES_MM)):
        rng = np.random.default_rng(options.seed)
        agree = dict.fromkeys(MEASURES, 0)
        for number in range(options.pairs):
            probability, mask = random_pair(rng)
            affine = np.diag([*sizes, 1.0])
            pred = from_probability(probability, affine, threshold=THRESHOLD)
            mine = ours(rule, pred, from_mask(mask, affine))
            reference = theirs(PairwiseMeasures, probability, mask, list(sizes))
            for name in MEASURES:
                if same(mine[name], reference[name]):
                    agree[name] += 1
                else:
                    print(f'{rule}, pair {number}, {name}: {mine[name]} and {reference[name]}')
                    differing += 1
        print(f'{rule}: ' + ', '.join(f'{name} {n}/{options.pairs}' for name, n in agree.items()))
    return int(differing > 0)


if __name__ == '__main__':
    raise SystemExit(main())
