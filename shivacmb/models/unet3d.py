"""The U-Net of the SHIVA family, for Keras 3 on any backend.

Tsuchida 2024 ("Model architecture and implementation") gives 10 initial feature maps, 7 stages,
2 convolutions per stage and a growth of 1.8 at the first convolution of each stage. How odd sizes
are handled is not given there; see ``build_unet3d``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def stage_filters(filters: int, stages: int, growth: float) -> list[int]:
    """Feature maps per stage.

    Parameters
    ----------
    filters : int
        Feature maps of the first stage.
    stages : int
        Number of resolutions, the full one included.
    growth : float
        Factor from one stage to the next.

    Returns
    -------
    list of int
        Rounded to the nearest integer (the paper does not state the rounding); 10, 7, 1.8 gives
        10, 18, 32, 58, 105, 189, 340 and 12.3 million parameters.
    """
    return [round(filters * growth**stage) for stage in range(stages)]


def build_unet3d(
    shape: Sequence[int],
    *,
    channels: int = 1,
    classes: int = 1,
    filters: int = 10,
    stages: int = 7,
    convolutions: int = 2,
    growth: float = 1.8,
    stem: int = 1,
    activation: str = 'sigmoid',
) -> Any:
    """Build a 3-D U-Net with standard Keras layers only, so that it loads in safe mode.

    Parameters
    ----------
    shape : sequence of three int
        Input size in voxels. It need not divide by ``2 ** (stages - 1)``: pooling rounds up
        (zero-padded at the high end) and the way up crops to the size it came from, which costs
        less than padding the whole input to a multiple.
    channels : int
        Input images (contrasts).
    classes : int
        Output maps.
    filters, stages, convolutions, growth
        See :func:`stage_filters`; ``convolutions`` per stage and side, 3x3x3, each followed by
        batch normalisation and ReLU.
    stem : int
        1 is the network of the paper. With 2, a strided convolution first folds 2x2x2 voxels into
        the channels of one, and a transposed one unfolds them before a last convolution that sees
        the input again: twice the filters for less time. Input sizes must divide by it.
    activation : {'sigmoid', 'softmax'}
        Output activation.

    Returns
    -------
    keras.Model
        float32 [N, X, Y, Z, channels] to float32 [N, X, Y, Z, classes].

    Raises
    ------
    ValueError
        A size does not divide by ``stem``.
    """
    import keras
    from keras import layers

    if any(size % stem for size in shape):
        msg = f'each size of {tuple(shape)} must divide by {stem}'
        raise ValueError(msg)

    def block(tensor: Any, width: int, times: int = convolutions) -> Any:
        for _ in range(times):
            tensor = layers.Conv3D(width, 3, padding='same', use_bias=False)(tensor)
            tensor = layers.BatchNormalization()(tensor)
            tensor = layers.Activation('relu')(tensor)
        return tensor

    widths = stage_filters(filters, stages, growth)
    inputs = layers.Input((*shape, channels))
    tensor = inputs if stem == 1 else layers.Conv3D(widths[0], stem, strides=stem)(inputs)
    skips = []
    for width in widths[:-1]:
        tensor = block(tensor, width)
        skips.append(tensor)
        tensor = layers.MaxPooling3D(2, padding='same')(tensor)
    tensor = block(tensor, widths[-1])
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        tensor = layers.UpSampling3D(2)(tensor)
        excess = [
            (0, up - down) for up, down in zip(tensor.shape[1:4], skip.shape[1:4], strict=True)
        ]
        if any(high for _, high in excess):
            tensor = layers.Cropping3D(excess)(tensor)
        tensor = block(layers.Concatenate()([tensor, skip]), width)
    if stem > 1:
        narrow = max(1, widths[0] // stem**2)
        tensor = layers.Conv3DTranspose(narrow, stem, strides=stem)(tensor)
        tensor = block(layers.Concatenate()([tensor, inputs]), narrow, 1)
    # float32 on the way out also under a mixed-precision policy
    outputs = layers.Conv3D(classes, 1, activation=activation, dtype='float32')(tensor)
    return keras.Model(inputs, outputs, name='unet3d')
