"""Whether two images have their voxels in the same places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

TOLERANCE_MM = 0.1


def same_grid(first: Any, second: Any) -> bool:
    """Compare the grids of two images.

    Parameters
    ----------
    first, second : Nifti1Image
        The headers alone are looked at.

    Returns
    -------
    bool
        Same shape (trailing axes of length 1 aside; several volumes are another grid than one),
        and no corner more than 0.1 mm apart: converters round affines differently.
    """
    shape = first.shape[:3]
    if _volumes(first) != _volumes(second):
        return False
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape))).reshape(3, -1)
    difference = np.asarray(first.affine) - np.asarray(second.affine)
    apart = difference[:3, :3] @ corners + difference[:3, 3:]
    return bool(np.sqrt((apart**2).sum(axis=0)).max() <= TOLERANCE_MM)


def _volumes(image: Any) -> tuple[tuple[int, ...], int]:
    return tuple(image.shape[:3]), math.prod(image.shape[3:])
