"""Calcifications: dark and round as microbleeds are, told apart by their place or by phase.

How often they occur is taken from CT of 1569 adults (Daghighi 2007: pineal gland 71 %, choroid
plexus 66 %, falx, tentorium and sagittal sinus 7 %, basal ganglia 1 %, elsewhere 1 %), those of
the basal ganglia and elsewhere raised to what is met in the old (Kwak 1988: 7.5 % in the basal
ganglia). All but the last kind have a place of their own, which is how readers know them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.simulate.lesions import Lesion, Protocol, draw_lesion
from shivacmb.simulate.mimics_place import Scene

Array = NDArray[Any]

#: Share of people who have them.
PREVALENCE = {'pineal': 0.71, 'choroid': 0.66, 'dura': 0.07, 'pallidum': 0.05, 'brain': 0.02}
#: Median apparent radius in mm, and standard deviation of its logarithm.
_RADIUS = {
    'pineal': (2.0, 0.3),
    'choroid': (1.8, 0.35),
    'dura': (1.6, 0.4),
    'pallidum': (1.2, 0.35),
    'brain': (1.35, 0.36),
}
_LEAST_RADIUS, _MOST_RADIUS = 0.6, 5.0


def _atrium(masks: dict[str, Array], back: float, middle: float, side: int) -> Array:
    """Mask of a lateral ventricle where its glomus lies: wide, beside and behind the thalamus."""
    fluid = masks['ventricle']
    x, y = np.ogrid[: fluid.shape[0], : fluid.shape[1]]
    there = (side * (x - middle) > 8) & (np.abs(y - (back - 4)) < 9)
    home = fluid & there[..., None]
    wide = ndimage.binary_erosion(home)
    return np.asarray(wide if wide.any() else home)


def _midline(pair: Array) -> float:
    """Middle between the two sides of a structure; the median would lie in the larger one."""
    sides = np.flatnonzero(pair.any(axis=(1, 2)))
    return float(sides[0] + sides[-1]) / 2


def _rim(brain: Array) -> Array:
    """Mask of the outermost 2 voxels of the brain, without an erosion of the whole head."""
    inner = brain.copy()
    for axis in range(3):
        inner &= np.roll(brain, 2, axis) & np.roll(brain, -2, axis)
    return np.asarray(brain & ~inner)


def _homes(rng: np.random.Generator, scene: Scene) -> Iterator[tuple[str, Array]]:
    """Draw who has what: names, and the head mask or the points [N, 3] in scan mm it lies in."""
    masks = scene.masks
    has = {name: bool(rng.random() < share) for name, share in PREVALENCE.items()}
    both = [bool(rng.random() < 0.8) for _ in range(2)]
    thalamus = np.argwhere(masks['thalamus'])
    if len(thalamus):
        low, high = thalamus.min(0), thalamus.max(0)
        middle = _midline(masks['thalamus'])
        back = float(low[1])
        if has['pineal']:
            # between the thalami, a fifth of their length from behind, a quarter of their height
            place = [middle, back + 0.2 * (high[1] - low[1]), low[2] + 0.25 * (high[2] - low[2])]
            spread = rng.normal(scale=1.3, size=(int(rng.integers(1, 3)), 3))
            yield 'pineal', scene.scan_mm(np.array(place) + spread)
        if has['choroid']:
            for side, found in zip((-1, 1), both, strict=True):
                if found:
                    home = _atrium(masks, back, middle, side)
                    yield 'choroid', scene.pick(rng, home, int(rng.integers(1, 4)))
    if has['pallidum'] and masks['pallidum'].any():
        half = np.zeros_like(masks['pallidum'])
        half[: round(_midline(masks['pallidum']))] = True
        for side_mask in (masks['pallidum'] & half, masks['pallidum'] & ~half):
            yield 'pallidum', scene.pick(rng, side_mask, int(rng.integers(1, 3)))
    if has['dura']:
        yield 'dura', scene.pick(rng, _rim(masks['brain']), int(rng.integers(1, 4)))
    if has['brain']:
        yield 'brain', scene.pick(rng, masks['brain'], int(rng.integers(1, 3)))


def draw_calcifications(
    rng: np.random.Generator, scene: Scene, protocol: Protocol, amount: float
) -> list[Lesion]:
    """Draw calcifications: the shapes of microbleeds, but diamagnetic.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    scene : Scene
        The scan's grid and the head's maps, which lie in RAS order.
    protocol : Protocol
        Field and echo time.
    amount : float
        Amount of mimics; 0 leaves them out.

    Returns
    -------
    list of Lesion
        With a negative ``chi`` in ppm; ``zone`` is ``calcification_`` and a key of
        :data:`PREVALENCE`.
    """
    found: list[Lesion] = []
    if not amount:
        return found
    for name, points in _homes(rng, scene):
        median, spread = _RADIUS[name]
        for x, y, z in points:
            radius = float(
                np.clip(median * rng.lognormal(0.0, spread), _LEAST_RADIUS, _MOST_RADIUS)
            )
            calcium = draw_lesion(
                rng, (float(x), float(y), float(z)), protocol, f'calcification_{name}', radius, 0.3
            )
            found.append(replace(calcium, chi=-calcium.chi, depth=1.0))
    return found
