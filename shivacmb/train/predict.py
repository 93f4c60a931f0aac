"""Whole-volume prediction with weights that were trained on patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.models.unet3d import build_unet3d
from shivacmb.simulate.dataset import LESION, UNSURE
from shivacmb.train.loop import ARCHITECTURE

Array = NDArray[Any]


class VolumePredictor:
    """The network at a whole volume's shape, built once for many sets of weights.

    Parameters
    ----------
    shape : tuple of three int
        Of the volumes.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.model = build_unet3d(shape, **ARCHITECTURE)

    def predict(self, folds: list[list[Array]], image: Array) -> Array:
        """Mean probability over folds.

        Parameters
        ----------
        folds : list of list of ndarray
            Weights.
        image : ndarray, uint8 [X, Y, Z]
            Scaled intensities times 255.

        Returns
        -------
        ndarray, float32 [X, Y, Z]
            Probability.
        """
        batch = (np.asarray(image, np.float32) / 255)[None, ..., None]
        total = np.zeros(image.shape, np.float32)
        for weights in folds:
            self.model.set_weights(weights)
            total += self.model.predict_on_batch(batch)[0, ..., 0]
        return total / len(folds)


def clusters(probability: Array, threshold: float) -> tuple[Array, int]:
    """26-connected clusters of ``probability >= threshold``: labels from 1, and their number."""
    import cc3d

    labels, count = cc3d.connected_components(
        probability >= threshold, connectivity=26, return_N=True
    )
    return np.asarray(labels), int(count)


def centroids(labels: Array, count: int) -> Array:
    """Centroid of every cluster 1 to ``count``, in voxels, float [N, 3]."""
    where = np.flatnonzero(labels)
    owner = labels.ravel()[where]
    sizes = np.maximum(np.bincount(owner, minlength=count + 1), 1)
    axes = np.unravel_index(where, labels.shape)
    sums = [np.bincount(owner, axis, minlength=count + 1) / sizes for axis in axes]
    return np.stack(sums, axis=1)[1:]


def false_positives(probability: Array, flags: Array, threshold: float, most: int = 60) -> Array:
    """Centres of clusters that touch no lesion.

    Parameters
    ----------
    probability : ndarray, float32 [X, Y, Z]
        Prediction.
    flags : ndarray, uint8 [X, Y, Z]
        Of the simulated scan.
    threshold : float
        Low, to learn from near misses too.
    most : int
        Keep the most probable ones.

    Returns
    -------
    ndarray, int [N, 3]
        Voxels, the most probable cluster first.
    """
    labels, count = clusters(probability, threshold)
    if not count:
        return np.empty((0, 3), int)
    known = ndimage.binary_dilation((np.asarray(flags) & (LESION | UNSURE)) > 0, iterations=2)
    touching = set(np.unique(labels[known]).tolist())
    false = np.array([number for number in range(1, count + 1) if number not in touching])
    if not false.size:
        return np.empty((0, 3), int)
    peaks = np.zeros(count + 1, np.float32)
    inside = labels > 0
    np.maximum.at(peaks, labels[inside], probability[inside])
    chosen = false[np.argsort(-peaks[false], kind='stable')[:most]]
    return np.asarray(np.rint(centroids(labels, count)[chosen - 1]), int)
