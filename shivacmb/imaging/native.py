"""Step 11: from the box of the network back to the grid of the scan.

Every map is a permutation of axes with a scale and a shift per axis, so that each axis of the
scan can be looked up on its own: no resampling library is needed and nothing is blurred twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shivacmb.imaging.chain import SpatialChain
from shivacmb.imaging.header import Affine

Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def _axes(to_input: Affine, input_shape: tuple[int, int, int]) -> list[tuple[int, Affine]]:
    """For each axis of the scan: the source axis, and the source position of each voxel."""
    result = []
    for axis, size in enumerate(input_shape):
        source = int(np.argmax(np.abs(to_input[axis, :3])))
        positions = (np.arange(size) - to_input[axis, 3]) / to_input[axis, source]
        result.append((source, positions))
    return result


def probability_to_input(box_map: Floats, chain: SpatialChain) -> Floats:
    """Bring a map from the box to the scan's grid, linear, 0 outside the box.

    Parameters
    ----------
    box_map : ndarray of ``chain.box.shape``
        float32.
    chain : SpatialChain
        The grids.

    Returns
    -------
    ndarray of ``chain.input_shape``
        float32.
    """
    axes = _axes(chain.box_to_input, chain.input_shape)
    values = box_map.transpose([source for source, _ in axes])
    spans, lows, weights = [], [], []
    for axis, (_, positions) in enumerate(axes):
        size = values.shape[axis]
        near = np.flatnonzero((positions > -1) & (positions < size))
        span = slice(int(near[0]), int(near[-1]) + 1) if near.size else slice(0, 0)
        low = np.floor(positions[span]).astype(np.intp)
        spans.append(span)
        lows.append(low)
        weights.append((positions[span] - low).astype(np.float32))
    result = np.zeros(chain.input_shape, dtype=np.float32)
    if all(span.stop > span.start for span in spans):
        for axis in range(3):
            # A plane of zeros on either side: beyond the box there is nothing
            padded = np.pad(values, [(1, 1) if other == axis else (0, 0) for other in range(3)])
            start = np.take(padded, lows[axis] + 1, axis=axis)
            end = np.take(padded, lows[axis] + 2, axis=axis)
            end -= start
            end *= weights[axis].reshape([-1 if other == axis else 1 for other in range(3)])
            start += end
            values = start
        result[tuple(spans)] = values
    return result


def _nearest(
    box_map: npt.NDArray[np.generic], to_input: Affine, input_shape: tuple[int, int, int]
) -> npt.NDArray[np.generic]:
    """Look every voxel of the scan up at its nearest source voxel; a half goes up."""
    axes = _axes(to_input, input_shape)
    values = box_map.transpose([source for source, _ in axes])
    for axis, (_, positions) in enumerate(axes):
        index = np.floor(positions + 0.5).astype(np.intp) + 1
        index = np.clip(index, 0, values.shape[axis] + 1)
        padded = np.pad(values, [(1, 1) if other == axis else (0, 0) for other in range(3)])
        values = np.take(padded, index, axis=axis)
    return values


def mask_to_input(iso_mask: npt.NDArray[np.bool_], chain: SpatialChain) -> npt.NDArray[np.bool_]:
    """Bring a mask from the isotropic grid to the scan's grid, nearest neighbour.

    Parameters
    ----------
    iso_mask : ndarray of ``chain.iso_shape``
        bool.
    chain : SpatialChain
        The grids.

    Returns
    -------
    ndarray of ``chain.input_shape``
        bool.
    """
    return _nearest(iso_mask, chain.matrix, chain.input_shape).astype(bool)


def labels_to_input(box_labels: Labels, probability: Floats, chain: SpatialChain) -> Labels:
    """Bring lesions from the box to the scan's grid; every one keeps at least one voxel.

    Parameters
    ----------
    box_labels : ndarray of ``chain.box.shape``
        int32, one value per lesion.
    probability : ndarray of ``chain.box.shape``
        Decides which voxel is a lesion's centre.
    chain : SpatialChain
        The grids.

    Returns
    -------
    ndarray of ``chain.input_shape``
        int32. A lesion that nearest-neighbour lookup would lose, because it lies between the
        centres of thick slices, gets the scan's voxel that holds its most probable voxel; where
        another lesion needs that voxel, the free voxel nearest to it.
    """
    result = _nearest(box_labels, chain.box_to_input, chain.input_shape).astype(np.int32)
    sizes = np.bincount(result.ravel(), minlength=int(box_labels.max(initial=0)) + 1)
    lost = [label for label in range(1, sizes.size) if sizes[label] == 0]
    for label in lost:
        where = np.argwhere(box_labels == label)
        if where.size == 0:
            continue
        peak = where[int(np.argmax(probability[tuple(where.T)]))]
        centre = (chain.box_to_input @ [*peak, 1.0])[:3]
        voxel = _free_voxel(result, centre, sizes)
        sizes[result[voxel]] -= 1
        result[voxel] = label
        sizes[label] = 1
    return result


def _free_voxel(
    labels: Labels, centre: npt.NDArray[np.float64], sizes: npt.NDArray[np.intp]
) -> tuple[int, int, int]:
    """Find the voxel nearest to a point that no other lesion depends on."""
    shape = np.array(labels.shape)
    middle = np.clip(np.floor(centre + 0.5).astype(int), 0, shape - 1)
    for reach in range(int(shape.max())):
        low, high = np.maximum(middle - reach, 0), np.minimum(middle + reach + 1, shape)
        block = np.stack(
            np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing='ij'),
            axis=-1,
        ).reshape(-1, 3)
        values = labels[tuple(block.T)]
        free = block[(values == 0) | (sizes[values] > 1)]
        if free.size:
            distance = ((free - centre) ** 2).sum(axis=1)
            x, y, z = free[int(np.argmin(distance))]
            return int(x), int(y), int(z)
    raise ValueError('more lesions than voxels')
