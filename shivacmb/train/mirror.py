"""Each fold sees the scan from another side, at no cost: its kernels are mirrored instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Array = NDArray[Any]
Axes = tuple[int, ...]
#: Axes (x, y, z) that are mirrored in the folds of an ensemble, in turn (docs/decisions/0130).
SIDES: tuple[Axes, ...] = ((), (0,), (0, 1, 2))
#: Entry of a card's training that names the axes of each fold.
MIRRORED = 'mirrored'


def sides(folds: int) -> list[Axes]:
    """Axes that are mirrored in each of some folds."""
    return [SIDES[fold % len(SIDES)] for fold in range(folds)]


def mirror_network(weights: Sequence[Array], axes: Axes) -> list[Array]:
    """Mirror a network in space: the new one sees the mirror image and mirrors its answer back.

    A convolution of a mirrored image with a mirrored kernel is the mirrored result; normalisation,
    activation, and pooling and unpooling of sizes that divide know no direction. So, for an image
    whose size divides by all strides of the network, ``new(image)`` is
    ``flip(old(flip(image)))``. Errors of networks that come from one start resemble each other;
    seen from different sides, less of them is the same, and the mean keeps less of them.

    Parameters
    ----------
    weights : sequence of ndarray
        Of ``build_unet3d``; kernels have five axes, space first.
    axes : tuple of int
        Of 0, 1, 2. Twice the same is the network as it was.

    Returns
    -------
    list of ndarray
        In the same order.
    """
    return [
        np.ascontiguousarray(np.flip(weight, axes)) if axes and weight.ndim == 5 else weight
        for weight in weights
    ]


def as_trained(
    folds: Sequence[list[Array]], training: Mapping[str, Any], card: Path
) -> list[list[Array]]:
    """Undo the mirroring that a bundle's card names, so that the folds may be averaged.

    Parameters
    ----------
    folds : sequence of list of ndarray
        Weights by fold.
    training : mapping
        Of the bundle; without an entry ``mirrored`` the folds stay.
    card : Path
        Where it stands, for messages.

    Returns
    -------
    list of list of ndarray
        Weights by fold.

    Raises
    ------
    UsageError
        The entry is not a list of axes for each fold.
    """
    mirrored = training.get(MIRRORED, [()] * len(folds))
    if not (
        isinstance(mirrored, list)
        and len(mirrored) == len(folds)
        and all(_are_axes(axes) for axes in mirrored)
    ):
        raise UsageError(
            f'"training.{MIRRORED}" in <{card}> is {mirrored!r}, but should name the '
            f'mirrored axes (0, 1, 2) of each of {len(folds)} fold(s), such as [[], [0]]; mend '
            'it, or give another model.'
        )
    return [
        mirror_network(weights, tuple(axes)) for weights, axes in zip(folds, mirrored, strict=True)
    ]


def _are_axes(axes: Any) -> bool:
    if not isinstance(axes, (list, tuple)):
        return False
    known = [axis for axis in axes if type(axis) is int and axis in (0, 1, 2)]
    return len(set(known)) == len(axes)
