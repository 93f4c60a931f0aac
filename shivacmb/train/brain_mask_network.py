"""The brain-mask network: a U-Net at half the resolution of its input.

A strided 2x2x2 convolution folds eight voxels into the channels of one, a transposed one unfolds
them again, so that a 2 mm mask costs what a 4 mm U-Net costs: the network trains on two CPU cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def build_brain_network(shape: Sequence[int], widths: Sequence[int] = (8, 16, 16, 24, 24)) -> Any:
    """Build the network with standard Keras layers only.

    Parameters
    ----------
    shape : sequence of three int
        Input size; each must divide by ``2 ** len(widths)``.
    widths : sequence of int
        Feature maps per stage, the first at half the input's resolution.

    Returns
    -------
    keras.Model
        float32 [N, X, Y, Z, 1] in 0..1 to the probability of brain, same shape.

    Raises
    ------
    ValueError
        A size does not divide.
    """
    import keras
    from keras import layers

    if any(size % 2 ** len(widths) for size in shape):
        msg = f'each size of {tuple(shape)} must divide by {2 ** len(widths)}'
        raise ValueError(msg)

    def block(tensor: Any, width: int) -> Any:
        for _ in range(2):
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
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        tensor = layers.UpSampling3D(2)(tensor)
        tensor = block(layers.Concatenate()([tensor, skip]), width)
    outputs = layers.Conv3DTranspose(1, 2, strides=2, activation='sigmoid', dtype='float32')(
        tensor
    )
    return keras.Model(inputs, outputs, name='brain_mask')
