"""The way back: from the network's grid to the grid of the input scan.

Each axis of one grid runs along one axis of the other (reorientation permutes and reverses,
resampling and cropping scale and shift), so the map is taken apart into three 1-D maps. An
iso voxel owns the half voxel on either side of its centre: an input voxel whose centre lies
there takes values from it, one whose centre lies farther outside was not seen and gets 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shivacmb.imaging.grid import Shape3

_EDGE = 0.5 + 1e-6  # in iso voxels; the excess absorbs the float32 of voxel sizes


class _Axis(NamedTuple):
    """Where the voxels of one input axis lie on their iso axis."""

    source: int  # iso axis
    first: int  # first input index inside the iso grid
    position: npt.NDArray[np.float64]  # iso coordinate of each input index from ``first`` on
    scale: float  # input voxels per iso voxel, signed
    offset: float  # input coordinate of iso voxel 0

    @property
    def window(self) -> slice:
        return slice(self.first, self.first + self.position.size)


def _axes(iso_to_input: npt.ArrayLike, iso_shape: tuple[int, ...], shape: Shape3) -> list[_Axis]:
    """Take the map apart; raise ValueError if it mixes axes."""
    matrix = np.asarray(iso_to_input, dtype=np.float64)
    linear = matrix[:3, :3]
    used = linear != 0
    if not (np.all(used.sum(axis=0) == 1) and np.all(used.sum(axis=1) == 1)):
        msg = 'The map to the input grid must permute, reverse, scale and shift axes only'
        raise ValueError(msg)
    axes = []
    for axis in range(3):
        source = int(np.argmax(used[axis]))
        scale, offset = float(linear[axis, source]), float(matrix[axis, 3])
        position = ((np.arange(shape[axis]) - offset) / scale).astype(np.float64)
        # The float32 of voxel sizes must not turn a voxel centre into a near miss.
        whole = np.round(position)
        close = np.abs(position - whole) < 1e-6
        position[close] = whole[close]
        seen = np.flatnonzero((position >= -_EDGE) & (position <= iso_shape[source] - 1 + _EDGE))
        first = int(seen[0]) if seen.size else 0
        axes.append(_Axis(source, first, position[seen], scale, offset))
    return axes


def _nearest(position: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.intp]:
    """Index of the nearest iso voxel, half up, clamped to the grid."""
    return np.clip(np.floor(position + 0.5), 0, size - 1).astype(np.intp)


def probability_to_input(
    prob: npt.NDArray[Any], iso_to_input: npt.ArrayLike, input_shape: Shape3
) -> npt.NDArray[np.float32]:
    """Bring a probability map back to the input grid, linear between voxel centres.

    Parameters
    ----------
    prob : (X, Y, Z) ndarray
        Map on the isotropic grid, or in the box.
    iso_to_input : (4, 4) array
        Voxel of ``prob`` -> voxel of the input (`SpatialChain.iso_to_input` or
        `SpatialChain.box_to_input`).
    input_shape : tuple of int
        Shape of the input grid.

    Returns
    -------
    float32 ndarray of ``input_shape``
        0 where the network did not look.
    """
    out = np.zeros(input_shape, dtype=np.float32)
    axes = _axes(iso_to_input, prob.shape, input_shape)
    target = out[tuple(axis.window for axis in axes)]
    if target.size == 0:
        return out
    source = prob.transpose([axis.source for axis in axes]).astype(np.float32, order='C')
    (a0, b0, w0), (a1, b1, w1), (a2, b2, w2) = (
        _between(axis.position, size) for axis, size in zip(axes, source.shape, strict=True)
    )
    cached: dict[int, npt.NDArray[np.float32]] = {}

    def plane(index: int) -> npt.NDArray[np.float32]:
        rows = source[index]
        if not rows.any():
            return np.zeros(target.shape[1:], dtype=np.float32)
        rows = _lerp(rows.take(a1, axis=0), rows.take(b1, axis=0), w1[:, None])
        return _lerp(rows.take(a2, axis=1), rows.take(b2, axis=1), w2)

    for i, (low, high, weight) in enumerate(zip(a0.tolist(), b0.tolist(), w0, strict=True)):
        cached = {k: cached[k] if k in cached else plane(k) for k in (low, high)}
        target[i] = cached[low] if weight == 0 else _lerp(cached[low], cached[high], weight)
    return out


def _between(position: npt.NDArray[np.float64], size: int) -> tuple[Any, Any, Any]:
    """Lower and upper neighbour and weight of each sample, clamped to the grid."""
    inside = np.clip(position, 0, size - 1)
    low = np.floor(inside).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (inside - low).astype(np.float32)


def _lerp(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], weight: Any
) -> npt.NDArray[np.float32]:
    """Return a + (b - a) * weight; ``a`` itself, exactly, where the weight is 0."""
    mixed: npt.NDArray[np.float32] = a + (b - a) * weight
    return mixed


def mask_to_input(
    mask: npt.NDArray[Any], iso_to_input: npt.ArrayLike, input_shape: Shape3
) -> npt.NDArray[np.bool_]:
    """Bring a mask back to the input grid: linear, then at least one half."""
    inside = (np.asarray(mask) > 0).astype(np.float32)
    back: npt.NDArray[np.bool_] = probability_to_input(inside, iso_to_input, input_shape) >= 0.5
    return back


def zones_to_input(
    zones: npt.NDArray[Any], iso_to_input: npt.ArrayLike, input_shape: Shape3
) -> npt.NDArray[np.uint8]:
    """Bring a zone map back to the input grid: each voxel takes the nearest one's zone.

    Parameters
    ----------
    zones : (X, Y, Z) ndarray
        On the isotropic grid.
    iso_to_input : (4, 4) array
        Voxel of ``zones`` -> voxel of the input.
    input_shape : tuple of int
        Shape of the input grid.

    Returns
    -------
    uint8 ndarray of ``input_shape``
    """
    out = np.zeros(input_shape, dtype=np.uint8)
    axes = _axes(iso_to_input, zones.shape, input_shape)
    turned = zones.transpose([axis.source for axis in axes])
    indices = [_nearest(axis.position, zones.shape[axis.source]) for axis in axes]
    out[tuple(axis.window for axis in axes)] = turned[np.ix_(*indices)]
    return out


def labels_to_input(
    labels: npt.NDArray[Any],
    prob: npt.NDArray[Any] | None,
    iso_to_input: npt.ArrayLike,
    input_shape: Shape3,
) -> npt.NDArray[np.int32]:
    """Bring lesion labels back to the input grid so that every label survives.

    Each input voxel takes the label at the nearest iso voxel. The input voxel that holds a
    lesion's centre is added if it is free: where input voxels are larger than lesions this is
    often the only one. A label that still has none takes the nearest voxel that can be had
    without erasing another label.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
        0 is background; on the isotropic grid or in the box.
    prob : (X, Y, Z) ndarray or None
        Lesion probability on the same grid; breaks ties between centre voxels.
    iso_to_input : (4, 4) array
        Voxel of ``labels`` -> voxel of the input.
    input_shape : tuple of int
        Shape of the input grid.

    Returns
    -------
    int32 ndarray of ``input_shape``

    Raises
    ------
    ValueError
        If there are more labels than input voxels.
    """
    out = np.zeros(input_shape, dtype=np.int32)
    labels = np.asarray(labels)
    axes = _axes(iso_to_input, labels.shape, input_shape)
    boxes = ndimage.find_objects(labels)
    counts = np.zeros(len(boxes) + 1, dtype=np.intp)
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            counts[number] = _sample_label(labels, number, box, axes, out)
    # Lost labels come after all others, so that they see every voxel that is taken.
    present = [number for number, box in enumerate(boxes, start=1) if box is not None]
    for number in sorted(present, key=lambda number: counts[number] == 0):
        box = boxes[number - 1]
        voxels = np.argwhere(labels[box] == number) + [part.start for part in box]
        homes = _homes(voxels, prob, axes, out.shape)
        if out[tuple(homes[0])] == 0:
            _take(number, tuple(homes[0]), out, counts)
        elif counts[number] == 0:
            _rescue(number, homes, axes, out, counts)
    return out


def _sample_label(
    labels: npt.NDArray[Any],
    number: int,
    box: tuple[slice, slice, slice],
    axes: list[_Axis],
    out: npt.NDArray[np.int32],
) -> int:
    """Write one label wherever the nearest iso voxel carries it; return how many voxels.

    Only the part of the grids around the label's bounding ``box`` is looked at.
    """
    windows, indices = [], []
    for axis in axes:
        nearest = _nearest(axis.position, labels.shape[axis.source])
        hit = np.flatnonzero(
            (nearest >= box[axis.source].start) & (nearest < box[axis.source].stop)
        )
        if hit.size == 0:
            return 0
        windows.append(slice(axis.first + int(hit[0]), axis.first + int(hit[-1]) + 1))
        indices.append(nearest[hit[0] : hit[-1] + 1])
    turned = labels.transpose([axis.source for axis in axes])
    hits = turned[np.ix_(*indices)] == number
    out[tuple(windows)][hits] = number
    return int(np.count_nonzero(hits))


def _homes(
    voxels: npt.NDArray[np.intp],
    prob: npt.NDArray[Any] | None,
    axes: list[_Axis],
    shape: tuple[int, ...],
) -> npt.NDArray[np.intp]:
    """Input voxels, (n, 3), that hold a lesion's iso voxels, the one nearest to its centre first.

    Among equally near ones the more probable comes first, then the first in C order.
    """
    away = np.round(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1), 9)
    chance = np.zeros(len(voxels)) if prob is None else -prob[tuple(voxels.T)].astype(float)
    order = np.lexsort((np.arange(len(voxels)), chance, away))
    places = [
        np.floor(voxels[order, axis.source] * axis.scale + axis.offset + 0.5) for axis in axes
    ]
    homes: npt.NDArray[np.intp] = np.stack(places, axis=1).astype(np.intp)
    return np.clip(homes, 0, np.array(shape) - 1)


def _rescue(
    number: int,
    homes: npt.NDArray[np.intp],
    axes: list[_Axis],
    out: npt.NDArray[np.int32],
    counts: npt.NDArray[np.intp],
) -> None:
    """Give a lost label an input voxel: its own if one is free, else one near by.

    In this order: a free voxel it touches, a voxel it touches whose owner has others, the
    nearest free voxel around, the nearest whose owner has others.
    """
    for place in sorted(map(tuple, homes), key=lambda place: out[place] != 0):
        if _take(number, place, out, counts):
            return
    home = homes[0]
    steps = np.array([1.0 / axis.scale for axis in axes])
    for radius in range(1, max(out.shape)):
        low = np.maximum(home - radius, 0)
        near = out[tuple(slice(a, b + radius + 1) for a, b in zip(low, home, strict=True))]
        usable = np.argwhere((near == 0) | (counts[near] > 1)) + low
        if len(usable) == 0:
            continue
        far = np.round((((usable - home) * steps) ** 2).sum(axis=1), 9)
        taken = out[tuple(usable.T)] > 0
        best = usable[np.lexsort((np.arange(len(usable)), far, taken))[0]]
        _take(number, tuple(int(i) for i in best), out, counts)
        return
    msg = 'There are more lesions than voxels in the input grid'
    raise ValueError(msg)


def _take(
    number: int,
    place: tuple[int, ...],
    out: npt.NDArray[np.int32],
    counts: npt.NDArray[np.intp],
) -> bool:
    """Write ``number`` at ``place`` unless that would erase the last voxel of another label."""
    owner = int(out[place])
    if owner and counts[owner] <= 1:
        return False
    if owner:
        counts[owner] -= 1
    out[place] = number
    counts[number] += 1
    return True
