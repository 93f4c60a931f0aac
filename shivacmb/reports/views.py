"""Slices of a volume as a radiologist expects to see them, in plain numpy.

Everything is shown in radiological convention: the patient's right is on the left of the picture
in axial and coronal views, anterior is on the left in sagittal views, anterior or superior is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import numpy.typing as npt

AXIAL, CORONAL, SAGITTAL = 2, 1, 0
PLANE_NAMES = {AXIAL: 'axial', CORONAL: 'coronal', SAGITTAL: 'sagittal'}
LETTERS = {AXIAL: ('R', 'L', 'A'), CORONAL: ('R', 'L', 'S'), SAGITTAL: ('A', 'P', 'S')}
"""What is at the left, the right and the top of each view."""

# the axes of a RAS volume that run down and across each view; both run against the axis
_DOWN_ACROSS = {AXIAL: (1, 0), CORONAL: (2, 0), SAGITTAL: (2, 1)}


class BoxLike(Protocol):
    """Part of a volume: first voxel (may lie outside) and number of voxels per axis."""

    @property
    def start(self) -> tuple[int, ...]:
        """First voxel of the box along each axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""


class LesionLike(Protocol):
    """One row of the per-lesion table, see ``shivacmb.lesions.Lesion``."""

    @property
    def index(self) -> int:
        """Value in the label map."""

    @property
    def name(self) -> str:
        """Class and index."""

    @property
    def x(self) -> float:
        """Left to right, scanner RAS mm."""

    @property
    def y(self) -> float:
        """Posterior to anterior, scanner RAS mm."""

    @property
    def z(self) -> float:
        """Inferior to superior, scanner RAS mm."""

    @property
    def volume_mm3(self) -> float:
        """Volume in mm3."""

    @property
    def p_max(self) -> float:
        """Largest probability, 0 to 1."""

    @property
    def p_mean(self) -> float:
        """Mean probability, 0 to 1."""

    @property
    def fold_agreement(self) -> float:
        """Fraction of the folds that see the lesion."""

    @property
    def region(self) -> str:
        """Zone of the brain, '' where it is not known."""

    @property
    def parenchyma_fraction(self) -> float:
        """Share of brain tissue in what surrounds it, NaN where it is not known."""

    @property
    def edge_distance_mm(self) -> float:
        """Distance to the mask's edge in mm."""


@dataclass(frozen=True)
class View:
    """A rectangle of one plane, and how large to draw it.

    Attributes
    ----------
    plane : int
        The RAS axis it is perpendicular to: ``AXIAL``, ``CORONAL`` or ``SAGITTAL``.
    position : float
        Voxel coordinate along that axis; the nearest slice is drawn.
    top, left : float
        RAS voxel coordinates of the picture's upper left corner, along the axes that run down and
        across it.
    height, width : int
        Pixels.
    pixels_per_mm : float
        Scale.
    """

    plane: int
    position: float
    top: float
    left: float
    height: int
    width: int
    pixels_per_mm: float


@dataclass(frozen=True)
class Volumes:
    """A scan and what was found on it, all turned to RAS voxel order.

    Attributes
    ----------
    image : (X, Y, Z) array of float32
        Scaled for display, 0 black to 1 white.
    labels : (X, Y, Z) array of int
        0 outside, otherwise the lesion's index.
    mask : (X, Y, Z) array of bool
        Brain.
    affine : (4, 4) array of float
        RAS voxel to scanner mm.
    voxel_mm : (3,) array of float
        Voxel size.
    box : (2, 3) array of float or None
        Lower and upper corner of the network's box in RAS voxel coordinates.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer]
    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    voxel_mm: npt.NDArray[np.float64]
    box: npt.NDArray[np.float64] | None

    def voxel(self, lesion: LesionLike) -> npt.NDArray[np.float64]:
        """RAS voxel coordinates of a lesion's centre."""
        point = np.linalg.inv(self.affine) @ np.array([lesion.x, lesion.y, lesion.z, 1.0])
        return np.asarray(point[:3], dtype=np.float64)

    def extent(self) -> npt.NDArray[np.float64]:
        """Corners (2, 3) of the brain in RAS voxels; of the image where the mask is empty."""
        corners = np.empty((2, 3))
        for axis in range(3):
            other = tuple(n for n in range(3) if n != axis)
            used = np.flatnonzero(self.mask.any(axis=other))
            ends = (used[0], used[-1]) if used.size else (0, self.mask.shape[axis] - 1)
            corners[:, axis] = ends[0] - 0.5, ends[1] + 0.5
        return corners

    def frame(
        self, plane: int, position: float, corners: npt.NDArray[np.float64], pixels_per_mm: float
    ) -> View:
        """View that shows the part of a plane between two corners (2, 3)."""
        down, across = _DOWN_ACROSS[plane]
        size = (corners[1] - corners[0]) * self.voxel_mm * pixels_per_mm
        return View(
            plane=plane,
            position=position,
            top=float(corners[1, down]),
            left=float(corners[1, across]),
            height=max(1, round(float(size[down]))),
            width=max(1, round(float(size[across]))),
            pixels_per_mm=pixels_per_mm,
        )

    def pixel(self, view: View, voxel: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Where a point (3,) of the volume lies in a view: pixels from its left and its top."""
        down, across = _DOWN_ACROSS[view.plane]
        scale = view.pixels_per_mm * self.voxel_mm
        return (
            float((view.left - voxel[across]) * scale[across]),
            float((view.top - voxel[down]) * scale[down]),
        )

    def draw(
        self, volume: npt.NDArray[Any], view: View, order: int = 3
    ) -> npt.NDArray[np.float32]:
        """Draw a volume in a view: (height, width) float32, zero where the volume ends."""
        nearest = round(view.position)
        if not 0 <= nearest < volume.shape[view.plane]:
            return np.zeros((view.height, view.width), dtype=np.float32)
        # A view, lower axis first: numpy's take would copy the whole volume for each slice
        flat = np.moveaxis(volume, view.plane, 0)[nearest].astype(np.float32)
        down, across = _DOWN_ACROSS[view.plane]
        scale = view.pixels_per_mm * self.voxel_mm
        rows = view.top - (np.arange(view.height) + 0.5) / scale[down]
        columns = view.left - (np.arange(view.width) + 0.5) / scale[across]
        drawn = _resample(_resample(flat.T, rows, order).T, columns, order)
        turned: npt.NDArray[np.float32] = drawn.T
        return turned


def _resample(
    array: npt.NDArray[np.float32], position: npt.NDArray[np.float64], order: int
) -> npt.NDArray[np.float32]:
    """Interpolate along the first axis: nearest (0), linear (1) or cubic (3, Keys 1981).

    Enlarges, cuts and pads at once; positions outside the array give zeros. Written as a sum over
    neighbours rather than a matrix product: the latter's threads wait busily for each other
    where the machine is shared, and its last digit depends on the library.
    """
    size = array.shape[0]
    if order == 0:  # the linear kernel at whole positions
        inside = (position >= -0.5) & (position < size - 0.5)
        position = np.where(inside, np.floor(position + 0.5), -1.0)
    first = np.floor(position).astype(np.intp)
    offsets = (-1, 0, 1, 2) if order == 3 else (0, 1)
    inside = (position >= -0.5) & (position < size - 0.5)
    result = np.zeros((len(position), array.shape[1]), dtype=np.float32)
    for offset in offsets:
        away = np.abs(position - (first + offset))
        weight = np.where(inside, _kernel(away, order), 0).astype(np.float32)
        # beyond the first and last voxel the border's value goes on
        neighbour = np.clip(first + offset, 0, size - 1)
        result += weight[:, None] * array[neighbour]
    return result


def _kernel(away: npt.NDArray[np.float64], order: int) -> npt.NDArray[np.float64]:
    """Weight of a voxel so many voxels away."""
    if order == 1:
        return np.maximum(0, 1 - away)
    near: npt.NDArray[np.float64] = (1.5 * away - 2.5) * away * away + 1
    far: npt.NDArray[np.float64] = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return np.where(away < 1, near, np.where(away < 2, far, 0))


def signed(value: float) -> str:
    """Whole number with its sign, and no minus zero."""
    return f'{round(value):+d}' if round(value) else '0'


def turn_to_ras(
    image: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    mask: npt.NDArray[np.generic],
    affine: npt.NDArray[np.floating],
    box: BoxLike | None,
) -> Volumes:
    """Turn arrays of any orientation to RAS voxel order and scale the image for display.

    Parameters
    ----------
    image, labels, mask : (X, Y, Z) arrays
        On one grid.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm of that grid.
    box : BoxLike or None
        The network's box on that grid.

    Returns
    -------
    Volumes
        For oblique grids each axis goes to the nearest of the scanner's.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    for name, other in (('labels', labels), ('mask', mask)):
        if other.shape != image.shape:
            raise ValueError(f'{name} has shape {other.shape}, the image has {image.shape}')
    orientation = nib.orientations.io_orientation(affine)
    to_ras = nib.orientations.inv_ornt_aff(orientation, image.shape)  # RAS voxel -> voxel
    turned = [
        np.asarray(nib.orientations.apply_orientation(array, orientation))
        for array in (image, labels, np.asarray(mask) != 0)
    ]
    corners = None
    if box is not None:
        low = np.asarray(box.start, dtype=np.float64) - 0.5
        both = np.stack([low, low + np.asarray(box.shape)])
        back = np.linalg.inv(to_ras)
        corners = np.sort(both @ back[:3, :3].T + back[:3, 3], axis=0)
    ras = np.asarray(affine, dtype=np.float64) @ to_ras
    return Volumes(
        image=_for_display(turned[0], turned[2]),
        labels=turned[1],
        mask=turned[2],
        affine=ras,
        voxel_mm=np.sqrt((ras[:3, :3] ** 2).sum(axis=0)),
        box=corners,
    )


def _for_display(
    image: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Grey values 0 to 1: the brain's 0.5th to 99.5th percentile, as a viewer would set it."""
    values = image[mask] if mask.any() else image.ravel()
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:
        low, high = float(np.min(image)), float(np.max(image))
    width = float(high - low) or 1.0
    scaled: npt.NDArray[np.float32] = ((image - low) / width).clip(0, 1).astype(np.float32)
    return scaled
