"""Weights before and after a training: a bundle's mean to begin with, a centred output to ship."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import UsageError
from shivacmb.models.bundle import MODEL_FILE
from shivacmb.train.loop import ARCHITECTURE
from shivacmb.train.mirror import as_trained

if TYPE_CHECKING:
    from shivacmb.models import Bundle

Array = NDArray[Any]


def fold_weights(bundle: Bundle, architecture: dict[str, Any]) -> list[list[Array]]:
    """Weights of all folds of a bundle, as they were trained (none of them mirrored).

    Parameters
    ----------
    bundle : Bundle
        Its files are verified.
    architecture : dict
        Arguments of ``build_unet3d`` that its folds must have.

    Returns
    -------
    list of list of ndarray
        By fold, in the order of ``build_unet3d``.

    Raises
    ------
    UsageError
        The bundle holds other networks.
    """
    from shivacmb.models.networks import load_network

    if any(bundle.architecture.get(name) != value for name, value in architecture.items()):
        raise UsageError(
            f'The bundle <{bundle.path}> holds other networks than those trained here; '
            'give a bundle that this command made.'
        )
    bundle.verify()
    weights = [
        load_network(bundle.fold_path(fold), fold.format, float32=True).get_weights()
        for fold in bundle.folds
    ]
    return as_trained(weights, bundle.training, bundle.path / MODEL_FILE)


def mean_of(folds: list[list[Array]]) -> list[Array]:
    """Mean of several sets of weights, float32."""
    return [np.asarray(sum(same) / len(folds), np.float32) for same in zip(*folds, strict=True)]


def mean_weights(folder: Path) -> tuple[list[Array], str]:
    """Mean of the weights of a bundle's folds.

    Folds that went on from one network for a short while lie close enough together for their mean
    to be a good network too (Izmailov et al. 2018, averaging weights leads to wider optima).

    Parameters
    ----------
    folder : Path
        A bundle whose folds have :data:`shivacmb.train.loop.ARCHITECTURE`.

    Returns
    -------
    weights : list of ndarray, float32
        In the order of ``build_unet3d``.
    name : str
        Name and version of the bundle, for the card.

    Raises
    ------
    UsageError
        The bundle holds other networks.
    """
    from shivacmb.models import load_bundle

    bundle = load_bundle(folder)
    return mean_of(fold_weights(bundle, ARCHITECTURE)), f'{bundle.name} {bundle.version}'


def shift_output(weights: list[Array], threshold: float) -> list[Array]:
    """Move a network's output so that a probability of ``threshold`` becomes 0.5.

    Patches hold far more lesions than heads do, so a network trained on them answers too high and
    its operating point crowds against 1. The shift of the last bias orders all voxels as before.

    Parameters
    ----------
    weights : list of ndarray
        Of ``build_unet3d`` with one sigmoid output: the last array is its bias.
    threshold : float
        Between 0 and 1, exclusive.

    Returns
    -------
    list of ndarray
        The same arrays but for the last.
    """
    offset = np.float32(np.log(threshold / (1.0 - threshold)))
    return [*weights[:-1], np.asarray(weights[-1] - offset, np.float32)]
