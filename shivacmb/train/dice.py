"""The Dice loss of Tsuchida 2024, and a loss of this package for each of several classes."""

from __future__ import annotations

from typing import Any

from shivacmb.train.losses import lesion_loss

SMOOTHING = 1e-6


def dice_loss(target: Any, predicted: Any) -> Any:
    """Soft Dice loss over the voxels of a batch, its mean over classes.

    ``1 - (2 sum(t p) + s) / (sum(t) + sum(p) + s)`` with the smoothing s = 1e-6 in numerator and
    denominator (Tsuchida 2024).

    Parameters
    ----------
    target : tensor [N, X, Y, Z, K + 1]
        Classes, then weight (0: neither).
    predicted : tensor [N, X, Y, Z, K]
        Probabilities.

    Returns
    -------
    tensor
        Scalar, 0 to 1.
    """
    from keras import ops

    weight = target[..., -1:]
    truth = target[..., :-1] * weight
    guess = ops.cast(predicted, truth.dtype) * weight
    axes = (0, 1, 2, 3)
    shared = ops.sum(truth * guess, axis=axes)
    both = ops.sum(truth, axis=axes) + ops.sum(guess, axis=axes)
    return ops.mean(1.0 - (2.0 * shared + SMOOTHING) / (both + SMOOTHING))


def balanced_loss(target: Any, predicted: Any) -> Any:
    """Mean over classes of :func:`shivacmb.train.losses.lesion_loss`, for short trainings.

    Parameters and result are those of :func:`dice_loss`, except that the loss may exceed 1.
    """
    from keras import ops

    count = predicted.shape[-1]
    weight = target[..., -1]
    return (
        sum(
            lesion_loss(
                ops.stack([target[..., index], weight], axis=-1), predicted[..., index : index + 1]
            )
            for index in range(count)
        )
        / count
    )
