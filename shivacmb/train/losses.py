"""Losses for rare, tiny targets."""

from __future__ import annotations

from typing import Any


def lesion_loss(target: Any, predicted: Any) -> Any:
    """Soft Dice over the whole batch plus a class-weighted cross-entropy.

    Dice alone leaves a network at all-background for hundreds of steps when lesions fill one voxel
    in ten thousand; the cross-entropy, its two classes averaged apart, gives it a slope from the
    start.

    Parameters
    ----------
    target : tensor [N, X, Y, Z, 2]
        Lesion, and weight (0: neither lesion nor background).
    predicted : tensor [N, X, Y, Z, 1]
        Probability.

    Returns
    -------
    tensor
        Scalar.
    """
    from keras import ops

    lesion, weight = target[..., 0], target[..., 1]
    probability = ops.clip(predicted[..., 0], 1e-6, 1.0 - 1e-6)
    shared = ops.sum(weight * lesion * probability)
    both = ops.sum(weight * (lesion + probability))
    dice = 1.0 - (2.0 * shared + 1.0) / (both + 1.0)
    present = weight * lesion
    absent = weight * (1.0 - lesion)
    missed = -ops.sum(present * ops.log(probability)) / (ops.sum(present) + 10.0)
    wrong = -ops.sum(absent * ops.log(1.0 - probability)) / (ops.sum(absent) + 10.0)
    return dice + 0.2 * missed + 400.0 * wrong
