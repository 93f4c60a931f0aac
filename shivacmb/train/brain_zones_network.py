"""The zone network: a U-Net at half the resolution of its input.

A strided 2x2x2 convolution folds eight voxels into the channels of one, and a transposed one
unfolds them again, so that 2 mm zones cost what a 4 mm U-Net costs: it trains on two CPU cores.
For training the last layer stays folded: a 1x1x1 convolution with eight times the channels is the
same map and several times faster there than a transposed convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]

#: Background and seven zones share a softmax; one map more says left of the midline.
ZONES = 8
WIDTHS = (16, 24, 32, 32, 24)


def build_zone_network(
    shape: Sequence[int], widths: Sequence[int] = WIDTHS, *, folded: bool = False
) -> Any:
    """Build the network with standard Keras layers only.

    Parameters
    ----------
    shape : sequence of three int
        Input size; each must divide by ``2 ** len(widths)``.
    widths : sequence of int
        Feature maps per stage, the first at half the input's resolution.
    folded : bool
        For training: logits of the eight voxels of a block side by side.

    Returns
    -------
    keras.Model
        float32 [N, X, Y, Z, 1] in 0..1 to float32 [N, X, Y, Z, 9]: probabilities of background
        and zones, then of the left. Folded: logits [N, X/2, Y/2, Z/2, 72]. Both have the same
        weights in the same order; :func:`unfolded` turns those of one into the other's.

    Raises
    ------
    ValueError
        A size does not divide.
    """
    import keras
    from keras import layers

    inputs, tensor = _trunk(shape, widths)
    if folded:
        last = {'use_bias': False, 'dtype': 'float32'}
        zones = layers.Conv3D(8 * ZONES, 1, name='zones', **last)(tensor)
        left = layers.Conv3D(8, 1, name='left', **last)(tensor)
    else:
        last = {'kernel_size': 2, 'strides': 2, 'use_bias': False, 'dtype': 'float32'}
        zones = layers.Conv3DTranspose(ZONES, activation='softmax', name='zones', **last)(tensor)
        left = layers.Conv3DTranspose(1, activation='sigmoid', name='left', **last)(tensor)
    outputs = layers.Concatenate(dtype='float32')([zones, left])
    return keras.Model(inputs, outputs, name='brain_zones')


def _trunk(shape: Sequence[int], widths: Sequence[int]) -> tuple[Any, Any]:
    """Input and features at half its resolution."""
    from keras import layers

    if any(size % 2 ** len(widths) for size in shape):
        msg = f'each size of {tuple(shape)} must divide by {2 ** len(widths)}'
        raise ValueError(msg)

    def block(tensor: Any, width: int, convolutions: int = 2) -> Any:
        for _ in range(convolutions):
            tensor = layers.Conv3D(width, 3, padding='same', use_bias=False)(tensor)
            # by image: in a batch of two, contrasts differ too much for shared statistics
            tensor = layers.GroupNormalization(groups=-1)(tensor)
            tensor = layers.Activation('relu')(tensor)
        return tensor

    inputs = layers.Input((*shape, 1))
    tensor = layers.Conv3D(widths[0], 2, strides=2)(inputs)
    skips = []
    for width in widths[:-1]:
        tensor = block(tensor, width)
        skips.append(tensor)
        tensor = layers.MaxPooling3D(2)(tensor)
    tensor = block(tensor, widths[-1])
    for stage in reversed(range(len(skips))):
        tensor = layers.Concatenate()([layers.UpSampling3D(2)(tensor), skips[stage]])
        # the finest stage costs most: one convolution instead of two saves a fifth of the time
        tensor = block(tensor, widths[stage], 2 if stage else 1)
    return inputs, tensor


def fold(array: Array) -> Array:
    """Put the eight voxels of each 2x2x2 block side by side.

    Parameters
    ----------
    array : ndarray [N, X, Y, Z]

    Returns
    -------
    ndarray [N, X/2, Y/2, Z/2, 8]
        The block's voxels in C order.
    """
    n, x, y, z = array.shape
    blocks = array.reshape(n, x // 2, 2, y // 2, 2, z // 2, 2)
    order = blocks.transpose(0, 1, 3, 5, 2, 4, 6)
    return np.asarray(order.reshape(n, x // 2, y // 2, z // 2, 8))


def unfolded(weights: Sequence[Array]) -> list[Array]:
    """Weights of the network from those of its folded form.

    Parameters
    ----------
    weights : sequence of ndarray
        ``get_weights()`` of the folded network.

    Returns
    -------
    list of ndarray
        For ``set_weights`` of the other.
    """
    out = list(weights)
    for index, count in ((-2, ZONES), (-1, 1)):
        kernel = np.asarray(weights[index])
        # [1, 1, 1, in, 8 * out] to [2, 2, 2, out, in]
        blocks = kernel.reshape(kernel.shape[3], 2, 2, 2, count)
        out[index] = np.ascontiguousarray(blocks.transpose(1, 2, 3, 4, 0))
    return out
