"""Make a ``.keras`` file readable by older releases of Keras 3.

Each release adds arguments to its layers and saves them even when they have their default
values; older releases refuse what they do not know (Keras 3.6, which SHiVAi 0.5.9 pins, refuses a
file of 3.15). An argument that has its default value can be left out without a change of meaning.
"""

from __future__ import annotations

import importlib
import inspect
import json
import zipfile
from typing import TYPE_CHECKING, Any

from shivacmb.models.safety import keras_config

if TYPE_CHECKING:
    from pathlib import Path

_SPARSE = frozenset({'keras.layers', 'keras.initializers', 'keras.regularizers'})


def _as_saved(value: object) -> object:
    """Return a value as JSON gives it back."""
    return [_as_saved(item) for item in value] if isinstance(value, (list, tuple)) else value


def without_defaults(config: Any) -> Any:
    """Leave out the arguments of layers and initialisers that have their default values.

    Parameters
    ----------
    config : object
        Parsed configuration of a network, already found free of code.

    Returns
    -------
    object
        A smaller copy that means the same.
    """
    if isinstance(config, list):
        return [without_defaults(item) for item in config]
    if not isinstance(config, dict):
        return config
    copy = {key: without_defaults(value) for key, value in config.items()}
    module, own = copy.get('module'), copy.get('config')
    if module in _SPARSE and isinstance(own, dict):
        kind = getattr(importlib.import_module(module), str(copy.get('class_name')), None)
        if inspect.isclass(kind):
            known = inspect.signature(kind.__init__).parameters
            copy['config'] = {
                key: value
                for key, value in own.items()
                if key not in known
                or known[key].default is inspect.Parameter.empty
                or _as_saved(known[key].default) != value
            }
    return copy


def write_portable(source: Path, target: Path) -> None:
    """Copy a ``.keras`` file with the configuration of :func:`without_defaults`.

    Parameters
    ----------
    source : Path
        File that passed :func:`shivacmb.models.safety.require_safe`.
    target : Path
        File to write.
    """
    config = json.dumps(without_defaults(keras_config(source)))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for item in old.infolist():
            content = config.encode() if item.filename == 'config.json' else old.read(item)
            # ZipInfo without a date: the same network gives the same bytes
            new.writestr(zipfile.ZipInfo(item.filename), content)
