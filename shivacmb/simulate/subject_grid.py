"""The grid of a scan of a head at 1 mm, and means over its voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.physics import interpolate

if TYPE_CHECKING:
    from shivacmb.simulate.anatomy import Head
    from shivacmb.simulate.scanner import Scanner

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The scan's grid: its axes are those of the head, its voxels are not."""

    low: Array
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    slice_axis: int

    @property
    def parts(self) -> tuple[int, int, int]:
        """Sub-voxels of about 1 mm per axis; in plane a voxel of up to 1.2 mm is one."""
        x, y, z = (
            max(1 if axis == self.slice_axis or size <= 1.2 else 2, round(size))
            for axis, size in enumerate(self.voxel_mm)
        )
        return x, y, z

    def points(
        self, part: tuple[int, ...] = (0, 0, 0), parts: tuple[int, ...] = (1, 1, 1)
    ) -> list[Array]:
        """Head voxels of the middles of one sub-voxel of every voxel, per axis."""
        return [
            low + np.arange(n) * size + ((index + 0.5) / count - 0.5) * size
            for low, n, size, index, count in zip(
                self.low, self.shape, self.voxel_mm, part, parts, strict=True
            )
        ]

    def holds(self, point: Array) -> bool:
        """Whether a point, in mm from the first voxel, lies in a voxel."""
        voxel = np.rint(np.asarray(point) / self.voxel_mm)
        return bool((voxel >= 0).all() and (voxel < self.shape).all())

    def sub_voxels(self) -> Iterator[list[Array]]:
        """:meth:`points` of all sub-voxels."""
        for part in np.ndindex(self.parts):
            yield self.points(part, self.parts)

    def mean(self, volume: Array) -> Array:
        """Mean over each voxel of a map of the head."""
        total = np.zeros(self.shape, np.float32)
        for points in self.sub_voxels():
            total += interpolate(volume, points)
        return np.asarray(total / np.float32(np.prod(self.parts)))


def scan_grid(head: Head, labels: Array, scanner: Scanner) -> Grid:
    """Field of view: the brain with what lies beside it in plane, or the whole head."""
    acquisition = scanner.acquisition
    axis = acquisition.slice_axis
    low, high = np.zeros(3), np.array(labels.shape, float) - 1
    if not scanner.whole_head:
        planes = np.flatnonzero(
            head.brain.any(axis=tuple(other for other in range(3) if other != axis))
        )
        ends = (planes[0] - 5.0 + scanner.cut_mm[0], planes[-1] + 5.0 - scanner.cut_mm[1])
        low[axis], high[axis] = max(low[axis], ends[0]), min(high[axis], ends[1])
        chosen = [slice(None)] * 3
        chosen[axis] = slice(int(planes[0]), int(planes[-1]) + 1)
        seen = labels[tuple(chosen)] > 0
        for other in range(3):
            if other != axis:
                hit = np.flatnonzero(seen.any(axis=tuple(a for a in range(3) if a != other)))
                low[other], high[other] = max(0, hit[0] - 4), min(high[other], hit[-1] + 4)
    size = np.asarray(acquisition.voxel_mm)
    shape = np.maximum(np.floor((high - low) / size + 1), 4).astype(int)
    return Grid(low, (int(shape[0]), int(shape[1]), int(shape[2])), acquisition.voxel_mm, axis)
