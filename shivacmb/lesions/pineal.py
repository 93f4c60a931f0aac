"""Where the pineal gland is: found by the thalami on its two sides.

Most adults have calcium in it (71 % of 1569 in CT, Daghighi et al. 2007), as round and as dark on
T2*-GRE and SWI as a microbleed; readers know it by its place. It lies in the midline, between the
hind ends of the thalami and above the midbrain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.imaging.zones import SIDE_STEP, Side, Zone

#: Radius of the ball around the gland: the gland (7 mm long) and the error of its place
#: (docs/decisions/0128).
REACH_MM = 8.0
#: Smallest thalamus to find the gland by; whole ones have 5000 to 8000 mm³.
LEAST_THALAMUS_MM3 = 1000.0
#: Where between the hind and the fore end of the thalami, and between their lower and upper.
_FROM_BEHIND = _FROM_BELOW = 0.1


def find_pineal(
    zones: npt.NDArray[np.integer], affine: npt.ArrayLike
) -> npt.NDArray[np.float64] | None:
    """Find the middle of the pineal gland.

    Parameters
    ----------
    zones : (X, Y, Z) array of int
        Values of :data:`shivacmb.imaging.zones.REGIONS`, 0 outside the brain.
    affine : (4, 4) array
        Voxel to scanner RAS mm.

    Returns
    -------
    (3,) array of float64, or None
        In mm; None where one of the thalami is missing, or cut by the edge of the array.

    Notes
    -----
    Left, right, front and back are those of the head, however it lies in the scanner: from one
    thalamus to the other, and along them.
    """
    matrix = np.asarray(affine, np.float64)
    voxel_mm3 = abs(float(np.linalg.det(matrix[:3, :3])))
    thalami = []
    for side in (Side.LEFT, Side.RIGHT):
        voxels = np.argwhere(zones == Zone.THALAMUS + SIDE_STEP * side)
        if len(voxels) * voxel_mm3 < LEAST_THALAMUS_MM3:
            return None
        if not voxels.min() or (voxels == np.array(zones.shape) - 1).any():
            return None
        thalami.append(voxels @ matrix[:3, :3].T + matrix[:3, 3])
    left, right = (points.mean(axis=0) for points in thalami)
    middle = (left + right) / 2
    across = (right - left) / np.linalg.norm(right - left)
    spread = np.concatenate([points - points.mean(axis=0) for points in thalami])
    spread -= np.outer(spread @ across, across)
    along = np.linalg.eigh(np.einsum('ni,nj->ij', spread, spread))[1][:, -1]
    along *= np.copysign(1.0, along[1])
    both = np.concatenate(thalami) - middle
    centre = middle
    for axis, share in ((along, _FROM_BEHIND), (np.cross(across, along), _FROM_BELOW)):
        # a few stray voxels do not move the ends
        low, high = np.percentile(both @ axis, (2, 98))
        centre = centre + (low + share * (high - low)) * axis
    return np.asarray(centre)


def pineal_region(zones: npt.NDArray[np.integer], affine: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mark the pineal gland and what lies next to it.

    Parameters
    ----------
    zones, affine
        As for :func:`find_pineal`.

    Returns
    -------
    (X, Y, Z) array of bool
        Voxels whose centre lies within :data:`REACH_MM` of its middle; none without thalami.
    """
    region = np.zeros(zones.shape, bool)
    centre = find_pineal(zones, affine)
    if centre is None:
        return region
    matrix = np.asarray(affine, np.float64)
    middle = np.linalg.solve(matrix[:3, :3], centre - matrix[:3, 3])
    reach = REACH_MM / np.linalg.norm(matrix[:3, :3], axis=0) + 1
    box = tuple(
        slice(max(0, int(np.floor(c - r))), max(0, int(np.ceil(c + r)) + 1))
        for c, r in zip(middle, reach, strict=True)
    )
    view: npt.NDArray[Any] = region[box]
    starts = [part.start for part in box]
    voxels = np.moveaxis(np.indices(view.shape), 0, -1) + starts
    away = np.linalg.norm(voxels @ matrix[:3, :3].T + matrix[:3, 3] - centre, axis=-1)
    view[...] = away <= REACH_MM
    return region
