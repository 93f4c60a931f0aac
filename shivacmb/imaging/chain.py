"""The spatial steps of one scan, as numbers that can be stored and inverted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.imaging.box import Box
from shivacmb.imaging.grid import (
    Affine,
    Shape3,
    isotropic_to_std_map,
    spatial_shape,
    std_to_input_map,
)


@dataclass(frozen=True, eq=False)
class SpatialChain:
    """Input grid -> reoriented -> isotropic -> box, and the map back.

    Attributes
    ----------
    input_shape, std_shape, iso_shape : tuple of int
        Shapes of the three grids.
    voxel_mm : float
        Voxel size of the isotropic grid in mm.
    iso_to_input : (4, 4) float64 ndarray
        Voxel of the isotropic grid -> voxel of the input.
    box : Box or None
        The network's box on the isotropic grid, once it is placed.
    """

    input_shape: Shape3
    std_shape: Shape3
    iso_shape: Shape3
    voxel_mm: float
    iso_to_input: Affine
    box: Box | None = None

    @classmethod
    def from_images(
        cls, img: Any, img_std: Any, voxel_mm: float = 1.0, box: Box | None = None
    ) -> SpatialChain:
        """Derive the chain from the input scan and its reoriented form (Nifti1Image)."""
        iso_shape, iso_to_std = isotropic_to_std_map(img_std, voxel_mm)
        to_input = std_to_input_map(img) @ iso_to_std
        return cls(
            spatial_shape(img), spatial_shape(img_std), iso_shape, float(voxel_mm), to_input, box
        )

    @property
    def placed_box(self) -> Box:
        """The box; raise ValueError while there is none."""
        if self.box is None:
            msg = 'The box of this chain has not been placed'
            raise ValueError(msg)
        return self.box

    @property
    def box_to_input(self) -> Affine:
        """Voxel of the box -> voxel of the input, (4, 4); the iso map while there is no box."""
        return self.iso_to_input @ self.box.to_image_map() if self.box else self.iso_to_input

    def with_box(self, box: Box) -> SpatialChain:
        """Return the same chain with its box placed."""
        return SpatialChain(
            self.input_shape, self.std_shape, self.iso_shape, self.voxel_mm, self.iso_to_input, box
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON."""
        return {
            'input_shape': list(self.input_shape),
            'std_shape': list(self.std_shape),
            'iso_shape': list(self.iso_shape),
            'voxel_mm': self.voxel_mm,
            'iso_to_input': np.asarray(self.iso_to_input).tolist(),
            'box': self.box and {'shape': list(self.box.shape), 'start': list(self.box.start)},
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> SpatialChain:
        """Rebuild a chain from `to_dict`."""
        box = stored['box'] and Box(_three(stored['box']['shape']), _three(stored['box']['start']))
        return cls(
            _three(stored['input_shape']),
            _three(stored['std_shape']),
            _three(stored['iso_shape']),
            float(stored['voxel_mm']),
            np.array(stored['iso_to_input'], dtype=np.float64),
            box,
        )

    def __eq__(self, other: object) -> bool:
        """Compare every number."""
        return isinstance(other, SpatialChain) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def _three(numbers: npt.ArrayLike) -> Shape3:
    """Three whole numbers as a tuple."""
    i, j, k = (int(n) for n in np.asarray(numbers).tolist())
    return i, j, k
