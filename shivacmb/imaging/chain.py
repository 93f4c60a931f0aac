"""The grids of one scan and the maps between them, to go there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.imaging.box import Box, centred_box
from shivacmb.imaging.header import Affine
from shivacmb.imaging.reorient import reorient_to_std, std_to_input_map
from shivacmb.imaging.resample import isotropic_to_std_map

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SpatialChain:
    """From the scan to the network's box: scan -> reoriented -> isotropic -> box.

    Attributes
    ----------
    input_shape, iso_shape : tuple of three int
        Grids of the scan and of the isotropic image, voxels.
    voxel_mm : float
        Isotropic voxel size, mm.
    iso_to_input : 4 rows of 4 float
        Voxels of the isotropic image to voxels of the scan. Built from voxel counts and sizes
        alone, so that the way back does not depend on which of sform and qform is right.
    box : Box
        What the network sees, in voxels of the isotropic image.
    """

    input_shape: tuple[int, int, int]
    iso_shape: tuple[int, int, int]
    voxel_mm: float
    iso_to_input: Rows
    box: Box

    @classmethod
    def build(
        cls,
        scan: nib.Nifti1Image,
        mask: npt.NDArray[np.generic],
        *,
        box_shape: Sequence[int],
        voxel_mm: float,
    ) -> SpatialChain:
        """Work the chain out from a scan's header and its brain mask.

        Parameters
        ----------
        scan : Nifti1Image
            3-D, on its own grid.
        mask : (X, Y, Z) ndarray
            Brain mask on the isotropic grid.
        box_shape : sequence of three int
            The network's input, voxels.
        voxel_mm : float
            Isotropic voxel size, mm.

        Raises
        ------
        ValueError
            If the mask is not on the isotropic grid of the scan.
        """
        iso_shape, iso_to_std = isotropic_to_std_map(reorient_to_std(scan), voxel_mm)
        if mask.shape != iso_shape:
            raise ValueError(f'expected a mask of {iso_shape} voxels, got {mask.shape}')
        iso_to_input = std_to_input_map(scan) @ iso_to_std
        x, y, z = scan.shape[:3]
        return cls(
            input_shape=(x, y, z),
            iso_shape=iso_shape,
            voxel_mm=voxel_mm,
            iso_to_input=tuple(tuple(float(value) for value in row) for row in iso_to_input),
            box=centred_box(mask, box_shape),
        )

    @property
    def matrix(self) -> Affine:
        """``iso_to_input`` as a (4, 4) array."""
        return np.array(self.iso_to_input)

    @property
    def box_to_input(self) -> Affine:
        """(4, 4) map from voxels of the box to voxels of the scan."""
        return self.matrix @ _translation(self.box.start)

    def box_affine(self, iso_affine: Affine) -> Affine:
        """Affine (voxel to scanner mm) of the box, given that of the isotropic image."""
        return iso_affine @ _translation(self.box.start)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpatialChain:
        """Inverse of :meth:`to_dict`, also after a trip through JSON."""
        box = Box(_three(values['box']['shape']), _three(values['box']['start']))
        rows = tuple(tuple(float(value) for value in row) for row in values['iso_to_input'])
        return cls(
            _three(values['input_shape']),
            _three(values['iso_shape']),
            float(values['voxel_mm']),
            rows,
            box,
        )


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _translation(start: Sequence[int]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = start
    return matrix
