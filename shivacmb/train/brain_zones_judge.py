"""How good mask and zones are on simulated heads that the network was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from shivacmb.imaging.zones import GROUPS, MIDLINE, SIDE_STEP, Side, Zone
from shivacmb.models.brain_mask import brain_from
from shivacmb.simulate.anatomy import random_head
from shivacmb.simulate.anatomy_warp import WarpRange
from shivacmb.simulate.contrast import random_contrast
from shivacmb.train.brain_zones_samples import Array, zone_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shivacmb.models.brain_atlas import Atlas

#: Held-out conditions: arguments of ``random_contrast`` after the kind.
CONDITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    'T2starw, 1 mm': ('T2starw', {'slice_mm': 1.0, 'stripped': False, 'coverage': False}),
    'T2starw, 5 mm slices': ('T2starw', {'slice_mm': 5.0, 'stripped': False, 'coverage': False}),
    'swi, 2 mm slices, partial': ('swi', {'slice_mm': 2.0, 'stripped': False, 'coverage': True}),
    'swi, noisy': ('swi', {'slice_mm': 1.5, 'stripped': False, 'coverage': False, 'snr': 8.0}),
    'any contrast': ('any', {'stripped': False, 'coverage': False}),
    'T2starw, skull-stripped': ('T2starw', {'stripped': True, 'coverage': False}),
    'T2starw, turned by 20 degrees': ('T2starw', {'stripped': False, 'coverage': False}),
}
_TURNED = 20.0
_NO_TISSUE = (Zone.BACKGROUND, Zone.FLUID)


def compare(mask: Array, truth: Array, voxel_mm: Sequence[float]) -> tuple[float, float]:
    """Dice overlap, and distance of the centres of mass in mm.

    Parameters
    ----------
    mask, truth : ndarray [X, Y, Z]
        Not empty; above 0 counts.
    voxel_mm : sequence of three float

    Returns
    -------
    tuple of float
    """
    one, two = mask > 0, truth > 0
    dice = 2.0 * float((one & two).sum()) / float(one.sum() + two.sum())
    centres = [np.argwhere(m).mean(axis=0) * np.asarray(voxel_mm) for m in (one, two)]
    return dice, float(np.linalg.norm(centres[0] - centres[1]))


def compare_zones(zones: Array, truth: Array, left: Array) -> dict[str, float]:
    """Dice overlap of each zone, and how often the side is right.

    Parameters
    ----------
    zones : ndarray [X, Y, Z]
        Values of :data:`shivacmb.imaging.zones.REGIONS`.
    truth : ndarray [X, Y, Z]
        :class:`Zone` without sides.
    left : ndarray of bool [X, Y, Z]

    Returns
    -------
    dict
        Zone name in lower case to Dice, NaN for one that neither map has; ``side`` to the share
        of the voxels in paired zones on both maps; for each of the groups in which lesions are
        counted, ``<group>_recall`` and ``<group>_precision`` where both maps show tissue.
    """
    plain, result = zones % SIDE_STEP, {}
    for zone in Zone:
        if zone is Zone.BACKGROUND:
            continue
        one, two = plain == zone, truth == zone
        total = int(one.sum()) + int(two.sum())
        result[zone.name.lower()] = 2.0 * int((one & two).sum()) / total if total else np.nan
    paired = (zones >= SIDE_STEP) & ~np.isin(truth, MIDLINE)
    right = (zones // SIDE_STEP == Side.LEFT) == left
    result['side'] = float(right[paired].mean()) if paired.any() else np.nan
    tissue = ~np.isin(plain, _NO_TISSUE) & ~np.isin(truth, _NO_TISSUE)
    for group, members in GROUPS.items():
        one, two = np.isin(plain[tissue], members), np.isin(truth[tissue], members)
        both = float((one & two).sum())
        result[f'{group}_recall'] = both / int(two.sum()) if two.any() else np.nan
        result[f'{group}_precision'] = both / int(one.sum()) if one.any() else np.nan
    return result


def judge(
    predict: Callable[[Array], Array],
    shape: Sequence[int],
    net_mm: float,
    *,
    seed: int = 77_000_000,
    heads: int = 6,
    voxel_mm: float = 1.0,
    atlas: Atlas | None = None,
) -> dict[str, dict[str, float | None]]:
    """Measure a network on simulated heads of other seeds than those of training.

    Parameters
    ----------
    predict, shape, net_mm
        As for :func:`shivacmb.models.brain_mask.brain_from`.
    seed : int
        Of the first head; training seeds are a pair of numbers, so none is met again.
    heads : int
        Per condition.
    voxel_mm : float
        Voxel size of the scans.
    atlas : Atlas, optional
        Of the zones.

    Returns
    -------
    dict
        Per condition ``dice`` (median), ``dice_least``, ``centre_mm`` (median),
        ``centre_mm_most`` of the mask, and the medians of :func:`compare_zones`, None where no
        head tells.
    """
    table = {}
    for number, (name, (kind, options)) in enumerate(CONDITIONS.items()):
        turn = _TURNED if 'turned' in name else 8.0
        spread = WarpRange(rotation_deg=turn, shift_mm=15.0)
        found, zones = [], []
        for index in range(heads):
            rng = np.random.default_rng([seed, number, index])
            head = random_head(rng, voxel_mm=voxel_mm, spread=spread)
            scan = random_contrast(
                head.labels,
                rng,
                kind,  # type: ignore[arg-type]
                voxel_mm=voxel_mm,
                brain=head.brain,
                **options,
            )
            truth = head.brain
            if options['coverage']:
                truth = truth & _acquired(scan)
            image = nib.Nifti1Image(scan, head.affine)
            maps = brain_from(image, predict, shape, net_mm, atlas=atlas)
            mask = maps.mask()
            found.append(compare(mask, truth, head.voxel_mm))
            zones.append(compare_zones(maps.zones(mask), zone_map(head) * truth, head.left))
        dice, distance = np.array(found).T
        table[name] = {
            'dice': round(float(np.median(dice)), 4),
            'dice_least': round(float(dice.min()), 4),
            'centre_mm': round(float(np.median(distance)), 2),
            'centre_mm_most': round(float(distance.max()), 2),
            **{key: _median([z[key] for z in zones]) for key in zones[0]},
        }
    return table


def _median(values: Sequence[float]) -> float | None:
    """Of what is known; None where nothing is, which JSON has a word for."""
    known = [value for value in values if not np.isnan(value)]
    return round(float(np.median(known)), 4) if known else None


def _acquired(scan: Array) -> Array:
    """Planes in which anything was acquired."""
    seen = np.ones(scan.shape, bool)
    for axis in range(3):
        planes = (scan > 0).any(axis=tuple(a for a in range(3) if a != axis))
        seen &= planes.reshape([-1 if a == axis else 1 for a in range(3)])
    return seen
