"""From a probability map to numbered clusters of voxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError

CONNECTIVITIES = (6, 18, 26)


def find_clusters(
    prob: npt.NDArray[np.floating],
    *,
    threshold: float,
    min_voxels: int = 1,
    connectivity: int = 26,
) -> npt.NDArray[np.int32]:
    """Threshold a probability map and number its connected clusters.

    The comparison is made in single precision on both sides: networks answer in float32, where
    0.4 is 0.4000000059. Compared with the double 0.4, such a voxel would pass as float32 and fail
    once somebody had averaged it in float64.

    Parameters
    ----------
    prob : (X, Y, Z) array of float
        Probability of one class, 0 to 1.
    threshold : float
        Lowest probability that belongs to a cluster, itself included.
    min_voxels : int
        Smallest cluster that is kept, in voxels. The SHIVA-CMB paper drops clusters of one or two
        voxels, hence 3.
    connectivity : {6, 18, 26}
        Neighbours: shared face, also edge, also corner.

    Returns
    -------
    (X, Y, Z) array of int32
        0 outside. Clusters are numbered from 1 by volume, largest first; equal volumes by their
        first voxel in C order, so that the numbers never depend on the order of a search.

    Raises
    ------
    DataError
        If the map holds NaN or infinity.
    ValueError
        If the map is not 3-D, or a parameter makes no sense.
    """
    import cc3d

    if prob.ndim != 3:
        raise ValueError(f'A probability map has 3 axes, this one has {prob.ndim}')
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f'connectivity is one of {CONNECTIVITIES}, not {connectivity}')
    if not 0 < threshold <= 1:
        raise ValueError(f'threshold lies above 0 and up to 1, not at {threshold}')
    if min_voxels < 1:
        raise ValueError(f'min_voxels is at least 1, not {min_voxels}')
    single = np.asarray(prob, dtype=np.float32)
    if not np.isfinite(single).all():
        raise DataError(
            'The probability map holds values that are not numbers (NaN or infinity). '
            'Check the model bundle with "shivacmb-tools models verify".'
        )

    above = np.ascontiguousarray(single >= np.float32(threshold))
    if not above.any():
        return np.zeros(above.shape, dtype=np.int32)
    found = np.asarray(cc3d.connected_components(above, connectivity=connectivity))

    return number_by_size(found, min_voxels)[0]


def number_by_size(
    labels: npt.NDArray[np.integer], min_voxels: int = 1
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Number labels from 1 by volume, largest first.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        0 outside.
    min_voxels : int
        Smallest label that is kept, in voxels.

    Returns
    -------
    numbered : (X, Y, Z) array of int32
        Equal volumes are numbered by their first voxel in C order.
    former : (N,) array of int
        For number n + 1 the label it had before.
    """
    flat = np.ascontiguousarray(labels).ravel()
    where = np.flatnonzero(flat)
    names, first, inverse, size = np.unique(
        flat[where], return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -size))
    order = order[size[order] >= min_voxels]
    number = np.zeros(len(names), dtype=np.int32)
    number[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    numbered = np.zeros(labels.shape, dtype=np.int32)
    numbered.ravel()[where] = number[inverse.ravel()]
    return numbered, names[order].astype(np.int64)


def grow_clusters(
    labels: npt.NDArray[np.integer],
    prob: npt.NDArray[np.floating],
    *,
    outline_threshold: float,
    connectivity: int = 26,
) -> npt.NDArray[np.int32]:
    """Let clusters grow over the voxels around them down to a lower probability.

    The threshold that decides whether there is a lesion need not be the one that tells where it
    ends: hysteresis, as for the edges of Canny (IEEE Trans Pattern Anal Mach Intell 1986;8:679).
    No cluster is added, and where two meet each keeps its own side (watershed on the probability).

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        Of :func:`find_clusters`.
    prob : (X, Y, Z) array of float
        The map they were found in.
    outline_threshold : float
        Lowest probability that belongs to a lesion, itself included; compared in single precision.
    connectivity : {6, 18, 26}
        Neighbours: shared face, also edge, also corner.

    Returns
    -------
    (X, Y, Z) array of int32
        The same labels over at least the same voxels.
    """
    from skimage.segmentation import watershed

    # watershed does not grow at all in arrays in Fortran order (scikit-image 0.26)
    kept = np.ascontiguousarray(labels, dtype=np.int32)
    single = np.ascontiguousarray(prob, dtype=np.float32)
    mask = (single >= np.float32(outline_threshold)) | (kept > 0)
    if not kept.any():
        return kept
    # the clusters with what surrounds them are a small part of the map
    box = tuple(slice(int(line.min()), int(line.max()) + 1) for line in np.nonzero(mask))
    grown = np.zeros_like(kept)
    grown[box] = watershed(
        np.ascontiguousarray(-single[box]),
        np.ascontiguousarray(kept[box]),
        connectivity=1 + CONNECTIVITIES.index(connectivity),
        mask=np.ascontiguousarray(mask[box]),
    )
    return grown
