"""Training pairs for the zones: simulated heads of any contrast on the network's grid."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_grid import scale_input
from shivacmb.simulate.anatomy import random_head
from shivacmb.simulate.anatomy_atlas import load_atlas
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.anatomy_warp import WarpRange, expand, template_lattice
from shivacmb.simulate.contrast import Kind, random_contrast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shivacmb.simulate.anatomy import Head

Array = NDArray[Any]

KINDS: tuple[Kind, ...] = ('any', 'T2starw', 'swi')
KIND_SHARES = (0.35, 0.4, 0.25)
#: Added to the zone of a voxel that lies left of the midline.
LEFT = 8
#: Fluid between the gyri counts as fluid from this width, mm; narrower, as the tissue beside it.
FLUID_MM = 4.0
#: Gaps between and in the deep nuclei up to twice this width, mm, are capsules: a deep zone.
CAPSULE_MM = 5.0

_ZONE_OF = np.zeros(len(Tissue), np.uint8)
for _zone, _tissues in {
    Zone.CORTEX: (Tissue.CORTEX,),
    Zone.WHITE_MATTER: (Tissue.CEREBRAL_WM,),
    Zone.DEEP_GREY: (Tissue.CAUDATE, Tissue.PUTAMEN, Tissue.PALLIDUM),
    Zone.THALAMUS: (Tissue.THALAMUS,),
    Zone.BRAINSTEM: (Tissue.BRAINSTEM,),
    Zone.CEREBELLUM: (Tissue.CEREBELLAR_GM, Tissue.CEREBELLAR_WM),
    Zone.FLUID: (Tissue.SULCAL_CSF, Tissue.VENTRICLE),
}.items():
    _ZONE_OF[list(_tissues)] = _zone


def _spread(rotation_deg: float) -> WarpRange:
    return WarpRange(
        rotation_deg=rotation_deg,
        size=0.08,
        shear=0.05,
        shift_mm=16.0,
        warp_mm=((60.0, 4.5), (28.0, 2.2), (14.0, 0.8)),
        ventricle_mm=(-2.0, 8.0),
    )


@dataclass(frozen=True)
class Pair:
    """Network input, float16 [X, Y, Z] (a replay pool is large), and target, uint8.

    The target is a :class:`Zone`, plus :data:`LEFT` on the left. ``places``, float16
    [X/2, Y/2, Z/2, 3], tells where in the template (mm) each block of eight voxels comes from.
    """

    image: Array
    zones: Array
    places: Array


def zone_map(head: Head) -> Array:
    """Merge the tissues of a simulated head to zones.

    Ventricles, cisterns and wide fissures are fluid; a sulcus that is narrower than
    :data:`FLUID_MM` belongs to the tissue beside it, because a bleed is not in a sulcus. The
    white matter between the deep nuclei is deep, as in MARS (Gregoire 2009).

    Parameters
    ----------
    head : Head

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
        :class:`Zone`; the background is what the head's brain mask leaves out.
    """
    zones = np.where(head.brain, _ZONE_OF[head.labels], np.uint8(Zone.BACKGROUND))
    zones = zones.astype(np.uint8)
    where = ndimage.find_objects(head.brain.astype(np.uint8))
    if not where:
        return zones
    part, labels, brain = zones[where[0]], head.labels[where[0]], head.brain[where[0]]
    size = [max(1, round(FLUID_MM / mm)) for mm in head.voxel_mm]
    wide = ndimage.binary_opening(part == Zone.FLUID, np.ones(size, bool))
    narrow = brain & ~wide & ((part == Zone.FLUID) | (part == Zone.BACKGROUND))
    narrow &= labels != Tissue.VENTRICLE
    tissue = brain & ~narrow & (part != Zone.FLUID)
    if narrow.any() and tissue.any():
        nearest = ndimage.distance_transform_edt(
            ~tissue, sampling=head.voxel_mm, return_distances=False, return_indices=True
        )
        part[narrow] = part[tuple(axis[narrow] for axis in nearest)]
    _paint_capsules(zones, head.voxel_mm)
    return zones


def _paint_capsules(zones: Array, voxel_mm: Sequence[float]) -> None:
    """Close the deep nuclei over the tissue between them, in place."""
    grey = (zones == Zone.DEEP_GREY) | (zones == Zone.THALAMUS)
    found = ndimage.find_objects(grey.astype(np.uint8))
    if not found:
        return
    pad = [int(np.ceil(CAPSULE_MM / mm)) + 1 for mm in voxel_mm]
    box = tuple(
        slice(max(0, one.start - more), one.stop + more)
        for one, more in zip(found[0], pad, strict=True)
    )
    far = ndimage.distance_transform_edt(~grey[box], sampling=voxel_mm)
    wide = np.pad(far <= CAPSULE_MM, 1)
    depth = ndimage.distance_transform_edt(wide, sampling=voxel_mm)[1:-1, 1:-1, 1:-1]
    part = zones[box]
    between = (part == Zone.WHITE_MATTER) | (part == Zone.CORTEX)
    part[between & (depth > CAPSULE_MM)] = Zone.DEEP_GREY


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


def _blocks(array: Array) -> Array:
    """Mean of each 2x2x2 block."""
    x, y, z = (size // 2 for size in array.shape)
    return np.asarray(array.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5)))


def simulate_pairs(
    seed: Sequence[int],
    shape: Sequence[int],
    net_mm: float,
    contrasts: int = 3,
    kinds: Sequence[Kind] = KINDS,
    shares: Sequence[float] = KIND_SHARES,
    spread: WarpRange | None = None,
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
    spread : WarpRange, optional
        How far heads differ; by default further than heads do.

    Returns
    -------
    list of Pair
    """
    rng = np.random.default_rng(list(seed))
    centre = (0.0, 0.0, float(rng.uniform(-30.0, 10.0)))
    # one head in six lies askew: left and right have to follow it
    turn = 20.0 if rng.random() < 1 / 6 else 9.0
    spread = spread or _spread(turn)
    # the head draws its coordinates first of all
    again = copy.deepcopy(rng)
    head = random_head(rng, shape=shape, voxel_mm=net_mm, centre_mm=centre, spread=spread)
    lattice = template_lattice(again, load_atlas(), head.labels.shape, head.affine, spread)
    where = np.stack([_blocks(expand(axis, head.labels.shape)) for axis in lattice], axis=-1)
    truth = zone_map(head)
    pairs = []
    for _ in range(contrasts):
        kind: Kind = kinds[int(rng.choice(len(kinds), p=list(shares)))]
        image = random_contrast(
            head.labels, rng, kind, voxel_mm=net_mm, coverage=False, brain=head.brain
        )
        seen = _trim(rng, image.shape)
        zones, left, places = np.where(seen, truth, np.uint8(0)), head.left, where
        image = np.where(seen, image, np.float32(0.0))
        if rng.random() < 0.2:
            # some scanners write zeros where they find no signal
            image[image < rng.uniform(0.05, 0.2) * image.max()] = 0.0
        image = scale_input(image) ** np.float32(np.exp(rng.normal(0.0, 0.25)))
        if rng.random() < 0.5:
            image, zones, left = image[::-1], zones[::-1], ~left[::-1]
            places = places[::-1] * np.array([-1.0, 1.0, 1.0], np.float32)
        target = zones + np.uint8(LEFT) * left
        pairs.append(
            Pair(image.astype(np.float16), target.astype(np.uint8), places.astype(np.float16))
        )
    return pairs
