"""The template behind every simulated head, made once per process from nilearn's MNI152 maps.

Nothing is downloaded. Structures that those maps do not name are outlined with ellipsoids in MNI
millimetres; sizes and places are textbook anatomy, rough on purpose: the random warp on top is
larger than their error.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.distances import depth_within
from shivacmb.simulate.mni152 import read_mni152

Array = NDArray[Any]

#: Where the coarse distance maps begin (MNI mm), their spacing and shape: room for face and neck.
COARSE_ORIGIN = np.array([-130.0, -164.0, -200.0])
COARSE_MM = 2.0
COARSE_SHAPE = (131, 151, 171)

# centre (x > 0 side), radii, in MNI mm; mirrored for the other side
_DEEP = (
    (Tissue.THALAMUS, (11.0, -18.0, 7.0), (9.0, 14.0, 8.5)),
    (Tissue.CAUDATE, (12.0, 15.0, 5.0), (6.0, 11.0, 9.0)),
    (Tissue.CAUDATE, (14.5, -2.0, 19.0), (5.0, 15.0, 5.5)),
    (Tissue.PUTAMEN, (27.0, 4.0, 1.0), (6.5, 17.0, 10.5)),
    (Tissue.PALLIDUM, (19.0, -4.0, -1.0), (4.5, 9.0, 6.0)),
)
_BRAINSTEM = (
    ((0.0, -24.0, -11.0), (18.0, 12.0, 10.0)),
    ((0.0, -27.0, -32.0), (19.0, 14.0, 15.0)),
    ((0.0, -39.0, -56.0), (12.0, 10.0, 20.0)),
)
_VENTRICLES = (
    ((11.0, 0.0, 18.0), (14.0, 36.0, 13.0)),
    ((27.0, -44.0, 10.0), (12.0, 18.0, 17.0)),
    ((0.0, -14.0, -2.0), (4.0, 18.0, 14.0)),
    ((0.0, -44.0, -33.0), (12.0, 8.0, 14.0)),
)


@dataclass(frozen=True)
class Atlas:
    """Template maps.

    Attributes
    ----------
    affine : ndarray, float64 [4, 4]
        Voxel to MNI mm of ``grey``, ``white`` and ``region``.
    grey, white : ndarray, float32 [X, Y, Z]
        Tissue fractions, 0 to 1.
    region : ndarray, uint8 [X, Y, Z]
        A :class:`Tissue` value: CORTEX stands for the cerebrum, CEREBELLAR_GM for the cerebellum,
        SULCAL_CSF for fluid outside the ventricles; deep grey, brainstem and ventricle as named.
    depth : ndarray, float32 ``COARSE_SHAPE``
        Signed distance to the brain mask in mm, positive outside.
    ventricle : ndarray, float32 ``COARSE_SHAPE``
        Signed distance to the ventricles in mm, positive outside.
    ventricle_slope : ndarray, float32 [3, ``COARSE_SHAPE``]
        Smoothed gradient of ``ventricle``.
    """

    affine: Array
    grey: Array
    white: Array
    region: Array
    depth: Array
    ventricle: Array
    ventricle_slope: Array


def _inside(axes: list[Array], centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    """Voxels in an ellipsoid."""
    squares = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)]
    # where one term reaches 1 the sum does, so the rest need not be computed
    spans = [np.flatnonzero(square < 1.0) for square in squares]
    inside = np.zeros([square.size for square in squares], bool)
    if all(span.size for span in spans):
        box = tuple(slice(span[0], span[-1] + 1) for span in spans)
        x, y, z = squares[0][box[0]], squares[1][:, box[1]], squares[2][:, :, box[2]]
        inside[box] = x + y + z < 1.0
    return inside


def _hindbrain(axes: list[Array], tissue: Array, fluid: Array) -> Array:
    """Cerebrum 1, cerebellum 2: a rough tentorium, then a watershed along the fluid between."""
    from skimage.segmentation import watershed

    x, y, z = axes
    tent = 1.0 - 0.48 * np.abs(x) - 0.3 * np.maximum(0.0, -(y + 58.0))
    below = np.minimum(tent - z, -36.0 - 0.15 * np.abs(x) - y)
    # the hindbrain lies in this corner of the template; a watershed of the rest would be time lost
    box = (slice(None), slice(0, 125), slice(0, 90))
    markers = np.zeros(tissue.shape, np.int32)
    markers[tissue & (below < -5.0)] = 1
    markers[tissue & (below > 6.0)] = 2
    zones = np.ones(tissue.shape, np.uint8)
    zones[box] = watershed((255.0 * fluid[box]).astype(np.uint8), markers[box]).astype(np.uint8)
    return zones


def _ventricles(axes: list[Array], fluid: Array) -> Array:
    """Fluid within the ellipsoids that hold the lateral, third and fourth ventricles."""
    folded = [np.abs(axes[0]), axes[1], axes[2]]
    inside = np.zeros(fluid.shape, bool)
    for centre, radii in _VENTRICLES:
        inside |= _inside(folded, centre, radii)
    return np.asarray(inside & (fluid > 0.45))


def _signed_distance(mask: Array) -> Array:
    """Distance in voxels, positive outside, smoothed by less than a voxel."""
    distance = ndimage.distance_transform_edt(~mask) - depth_within(mask)
    distance -= 0.5 * np.sign(distance)
    return np.asarray(ndimage.gaussian_filter(distance.astype(np.float32), 0.7))


def _coarse(mask: Array, affine: Array) -> Array:
    """Resample a template mask to the coarse grid (half-full voxels count)."""
    smooth = ndimage.uniform_filter(mask.astype(np.float32), 2)
    offset = (COARSE_ORIGIN - affine[:3, 3]) / np.diag(affine)[:3]
    step = COARSE_MM / np.diag(affine)[:3]
    coarse = ndimage.affine_transform(smooth, step, offset, COARSE_SHAPE, order=1)
    return np.asarray(coarse > 0.5)


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the maps and derive the rest.

    Returns
    -------
    Atlas
        Shared by all callers: do not write into its arrays.
    """
    maps = read_mni152()
    affine, grey, white, mask = maps.affine, maps.grey, maps.white, maps.mask
    fluid = np.where(mask, np.clip(1.0 - grey - white, 0.0, 1.0), 1.0).astype(np.float32)
    axes = [
        (np.arange(size, dtype=np.float32) * affine[axis, axis] + affine[axis, 3]).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for axis, size in enumerate(mask.shape)
    ]
    # distances keep the interpreter to themselves, the watershed does not need it
    with ThreadPoolExecutor(1) as pool:
        hindbrain = pool.submit(_hindbrain, axes, mask & (fluid < 0.5), fluid)
        ventricle = _ventricles(axes, fluid)
        near_ventricle = _signed_distance(_coarse(ventricle, affine)) * COARSE_MM
        slope = np.stack(
            [
                ndimage.gaussian_filter(near_ventricle, 2.0, order=[int(a == b) for b in range(3)])
                for a in range(3)
            ]
        )
        depth = _signed_distance(_coarse(mask, affine)) * COARSE_MM
        zones = hindbrain.result()
    region = np.full(mask.shape, Tissue.CORTEX, np.uint8)
    region[zones == 2] = Tissue.CEREBELLAR_GM
    for centre, radii in _BRAINSTEM:
        region[_inside(axes, centre, radii)] = Tissue.BRAINSTEM
    folded = [np.abs(axes[0]), axes[1], axes[2]]
    for tissue, centre, radii in _DEEP:
        inside = _inside(folded, centre, radii)
        if tissue in (Tissue.CAUDATE, Tissue.PUTAMEN):
            inside &= grey > 0.3
        region[inside] = tissue
    region[ventricle] = Tissue.VENTRICLE
    return Atlas(
        affine=affine,
        grey=grey,
        white=white,
        region=region,
        depth=depth,
        ventricle=near_ventricle.astype(np.float32),
        ventricle_slope=(slope / COARSE_MM).astype(np.float32),
    )
