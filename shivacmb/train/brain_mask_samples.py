"""Training pairs for the brain mask: simulated heads of any contrast on the network's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.models.brain_grid import scale_input
from shivacmb.simulate.anatomy import random_head
from shivacmb.simulate.anatomy_warp import WarpRange
from shivacmb.simulate.contrast import Kind, random_contrast

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]

KINDS: tuple[Kind, ...] = ('any', 'T2starw', 'swi')
KIND_SHARES = (0.35, 0.4, 0.25)

_SPREAD = WarpRange(
    rotation_deg=9.0,
    size=0.08,
    shear=0.05,
    shift_mm=16.0,
    warp_mm=((60.0, 4.5), (28.0, 2.2), (14.0, 0.8)),
    ventricle_mm=(-2.0, 8.0),
)


@dataclass(frozen=True)
class Pair:
    """Network input, float16 [X, Y, Z] (a replay pool is large), and target, uint8."""

    image: Array
    brain: Array


def _trim(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Field of view of the scan within the grid: a slab, a missing vertex, or all of it."""
    seen = np.ones(shape, bool)
    # feet, head, left, right, front, back
    chances = ((2, 0, 0.45), (2, 1, 0.25), (0, 0, 0.1), (0, 1, 0.1), (1, 1, 0.2), (1, 0, 0.1))
    if rng.random() < 0.6:
        for axis, end, chance in chances:
            if rng.random() < chance:
                cut = int(shape[axis] * rng.uniform(0.05, 0.4 if axis == 2 else 0.2))
                lost: list[slice] = [slice(None)] * 3
                lost[axis] = slice(0, cut) if end == 0 else slice(shape[axis] - cut, None)
                seen[tuple(lost)] = False
    return seen


def simulate_pairs(
    seed: Sequence[int],
    shape: Sequence[int],
    net_mm: float,
    contrasts: int = 2,
    kinds: Sequence[Kind] = KINDS,
    shares: Sequence[float] = KIND_SHARES,
) -> list[Pair]:
    """Draw one head and give it several contrasts.

    Parameters
    ----------
    seed : sequence of int
        Seed of everything in the pairs.
    shape : sequence of three int
        The network's grid.
    net_mm : float
        Its voxel size.
    contrasts : int
        Pairs to make of the head, each with its own field of view.
    kinds, shares
        What to draw from, and how often.

    Returns
    -------
    list of Pair
    """
    rng = np.random.default_rng(list(seed))
    centre = (0.0, 0.0, float(rng.uniform(-30.0, 10.0)))
    head = random_head(
        rng,
        shape=shape,
        voxel_mm=net_mm,
        centre_mm=centre,
        spread=_SPREAD,
    )
    pairs = []
    for _ in range(contrasts):
        kind: Kind = kinds[int(rng.choice(len(kinds), p=list(shares)))]
        image = random_contrast(
            head.labels, rng, kind, voxel_mm=net_mm, coverage=False, brain=head.brain
        )
        seen = _trim(rng, image.shape)
        brain = head.brain & seen
        image = np.where(seen, image, np.float32(0.0))
        if rng.random() < 0.2:
            # some scanners write zeros where they find no signal
            image[image < rng.uniform(0.05, 0.2) * image.max()] = 0.0
        image = scale_input(image) ** np.float32(np.exp(rng.normal(0.0, 0.25)))
        if rng.random() < 0.5:
            image, brain = image[::-1], brain[::-1]
        pairs.append(Pair(image.astype(np.float16), brain.astype(np.uint8)))
    return pairs
