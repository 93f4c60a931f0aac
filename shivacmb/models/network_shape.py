"""Which input a network was built for, read without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError
from shivacmb.models.openvino_runtime import import_openvino
from shivacmb.models.safety import h5_config, keras_config

if TYPE_CHECKING:
    from pathlib import Path


def own_shape(path: Path, kind: str) -> tuple[int, int, int, int] | None:
    """Return the size that a network is fixed to.

    Parameters
    ----------
    path : Path
        Fold that passed :func:`shivacmb.models.safety.require_safe`.
    kind : {'keras', 'h5', 'savedmodel'}
        Its format.

    Returns
    -------
    tuple of int, or None
        X, Y, Z and channels; None when the network takes any size.

    Raises
    ------
    ModelError
        OpenVINO cannot read a SavedModel.
    """
    if kind == 'savedmodel':
        return _savedmodel_shape(path)
    shapes = list(_input_shapes(keras_config(path) if kind == 'keras' else h5_config(path)))
    return _fixed(shapes[0][1:]) if shapes else None


def _savedmodel_shape(path: Path) -> tuple[int, int, int, int] | None:
    try:
        model = import_openvino().Core().read_model(str(path))
    except RuntimeError as error:
        msg = f'OpenVINO cannot read the network <{path}>: {error}'
        raise ModelError(msg) from error
    shape = model.inputs[0].get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return _fixed([None if size.is_dynamic else size.get_length() for size in shape][1:])


def _fixed(shape: list[Any]) -> tuple[int, int, int, int] | None:
    if len(shape) != 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        return None
    x, y, z, channels = shape
    return x, y, z, channels


def _input_shapes(config: Any) -> list[list[Any]]:
    """Return the shapes of all input layers of a Keras 2 or 3 configuration."""
    found: list[list[Any]] = []
    if isinstance(config, list):
        for item in config:
            found += _input_shapes(item)
    elif isinstance(config, dict):
        own = config.get('config')
        if config.get('class_name') == 'InputLayer' and isinstance(own, dict):
            shape = own.get('batch_shape') or own.get('batch_input_shape')
            if isinstance(shape, list):
                found.append(shape)
        else:
            for item in config.values():
                found += _input_shapes(item)
    return found
