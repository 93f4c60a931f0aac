"""How deep a voxel lies in a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


def depth_within(mask: Array) -> Array:
    """Distance of each voxel of a mask to what is not in it, looked for around the mask only.

    The nearest voxel outside is never farther than the rim of the box around the mask, so the
    rest of the array need not be looked at.

    Parameters
    ----------
    mask : ndarray, bool [X, Y, Z]
        May be empty, and may touch the edge of the array, beyond which there is nothing.

    Returns
    -------
    ndarray, float64 [X, Y, Z]
        In voxels; 0 outside the mask.
    """
    depth = np.zeros(mask.shape)
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        window = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        depth[window] = ndimage.distance_transform_edt(mask[window])
    return depth
