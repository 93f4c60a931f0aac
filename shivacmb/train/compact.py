"""Small files for shipped weights."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import replacing
from shivacmb.models.portable import without_defaults

Array = NDArray[Any]


def round_weights(weights: list[Array]) -> list[Array]:
    """Round float32 weights to the 8 significant bits of bfloat16, still as float32.

    Parameters
    ----------
    weights : list of ndarray, float32
        Finite.

    Returns
    -------
    list of ndarray, float32
        Nearest values, ties to even; within 0.2 % of the input.
    """
    rounded = []
    for weight in weights:
        bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        bits = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
        rounded.append(bits.view(np.float32))
    return rounded


def save_compact(model: Any, path: Path) -> None:
    """Save a Keras model with deflated members, which Keras leaves uncompressed.

    The same model gives the same bytes: the date of saving is a fixed one, and shared objects are
    numbered from 1.

    Parameters
    ----------
    model : keras.Model
        With rounded weights, half of whose bytes are zero.
    path : Path
        A ``.keras`` file.

    Raises
    ------
    OutputError
        It cannot be written, for example because the disk is full.
    """
    with replacing(path) as made, tempfile.TemporaryDirectory(prefix='shivacmb-') as scratch:
        plain = Path(scratch) / 'model.keras'
        model.save(str(plain))
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(made, 'w') as target:
            for name in source.namelist():
                # a fixed date, here and below: the same weights give the same file
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                content = source.read(name)
                if name == 'metadata.json':
                    about = {**json.loads(content), 'date_saved': '1980-01-01@00:00:00'}
                    content = json.dumps(about).encode()
                if name == 'config.json':
                    # older releases of Keras refuse arguments that they do not know
                    config = _numbered(without_defaults(json.loads(content)), {})
                    content = json.dumps(config).encode()
                target.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)


def _numbered(config: Any, seen: dict[int, int]) -> Any:
    """Number shared objects in their order; Keras writes where they lay in memory."""
    if isinstance(config, list):
        return [_numbered(item, seen) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: seen.setdefault(value, len(seen) + 1)
        if key == 'shared_object_id'
        else _numbered(value, seen)
        for key, value in config.items()
    }
