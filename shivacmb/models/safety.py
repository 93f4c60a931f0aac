"""Look into model files before anything in them is deserialised.

Weights are data; a Lambda layer is a program. Keras stores Lambdas as marshalled bytecode, and a
saved configuration can name any function that is importable, so a file is let through only when
its configuration names nothing but Keras's own building blocks. The check reads JSON and never
imports what it reads about. SavedModel graphs are programs of TensorFlow operations: one that
holds others than networks need is refused.
"""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError
from shivacmb.models.archives import DAMAGED
from shivacmb.models.checksums import md5_of
from shivacmb.models.published import PUBLISHED_MD5
from shivacmb.models.savedmodel import forbidden_operations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Layers that hold or call code, or read other files, when they are rebuilt.
_CODE_LAYERS = frozenset(
    {
        '__lambda__',
        'Lambda',
        'SlicingOpLambda',
        'TFOpLambda',
        'TFSMLayer',
        'TorchModuleWrapper',
        'JaxLayer',
        'FlaxLayer',
    }
)
# Where the building blocks of Keras 3 say that they live.
_MODULES = frozenset(
    {
        'keras',
        'keras.activations',
        'keras.constraints',
        'keras.initializers',
        'keras.layers',
        'keras.losses',
        'keras.metrics',
        'keras.mixed_precision',
        'keras.models',
        'keras.ops',
        'keras.optimizers',
        'keras.optimizers.schedules',
        'keras.regularizers',
        'keras.src.models.functional',
        'keras.src.models.model',
        'keras.src.models.sequential',
    }
)
_OPS_PREFIX = 'keras.src.ops.'
# A function named by reference can only be a harmless one.
_FUNCTION_MODULES = frozenset({'keras.activations', 'keras.losses', 'keras.metrics', 'builtins'})
_FUNCTION_CLASSES = frozenset({'function', 'builtin_function_or_method'})
_MAX_CONFIG = 64 << 20
# Keras goes by the name: a file that is HDF5 with a zip behind it is read as what it is called
_SUFFIXES = {'keras': ('.keras',), 'h5': ('.h5', '.hdf5')}


def require_safe(path: Path, kind: str, *, trust_model: bool = False) -> None:
    """Refuse a model file that carries code.

    Parameters
    ----------
    path : Path
        File or SavedModel folder whose checksum was verified.
    kind : {'keras', 'h5', 'savedmodel'}
        Its format.
    trust_model : bool
        Let it pass (``--trust-model``). A file whose MD5 is one that the authors of SHIVA-CMB
        published passes too.

    Raises
    ------
    ModelError
        It carries code and nobody vouches for it, it cannot be looked into, or its name does not
        end as its format demands.
    """
    suffixes = _SUFFIXES.get(kind)
    if suffixes is not None and path.suffix.lower() not in suffixes:
        msg = (
            f'<{path}> is called a file of the format {kind!r}, but its name does not end in '
            f'{" or ".join(suffixes)}; correct the format in model.json, or name the file by it'
        )
        raise ModelError(msg)
    reasons = sorted(set(_reasons(path, kind)))
    if not reasons or trust_model or md5_of(path) in PUBLISHED_MD5:
        return
    msg = (
        f'<{path}> carries code that would run when it is loaded ({", ".join(reasons)}); if you '
        'trust its origin, run again with --trust-model'
    )
    raise ModelError(msg)


def is_trusted(path: Path, *, trust_model: bool) -> bool:
    """Tell whether somebody vouches for code in a file: the user, or a published checksum."""
    return trust_model or md5_of(path) in PUBLISHED_MD5


def _reasons(path: Path, kind: str) -> Iterator[str]:
    if kind == 'savedmodel':
        yield from _savedmodel_reasons(path)
    else:
        yield from code_in_config(keras_config(path) if kind == 'keras' else h5_config(path))


def _savedmodel_reasons(folder: Path) -> Iterator[str]:
    file = folder / 'saved_model.pb'
    if not file.is_file():
        msg = f'<{folder}> is not a SavedModel: it has no saved_model.pb'
        raise ModelError(msg)
    try:
        operations = forbidden_operations(file.read_bytes())
    except ValueError as error:
        msg = f'<{file}> is not a readable SavedModel: {error}'
        raise ModelError(msg) from error
    for operation in operations:
        yield f'TensorFlow operation {operation}'


def code_in_config(config: object) -> Iterator[str]:
    """Yield what in a Keras configuration could run code.

    Parameters
    ----------
    config : object
        Parsed JSON of Keras 2 or 3.

    Yields
    ------
    str
        A layer class, or a name outside of Keras's building blocks.
    """
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
            yield from _object_reasons(item)


def _object_reasons(item: dict[str, Any]) -> Iterator[str]:
    name, module = item.get('class_name'), item.get('module')
    registered = item.get('registered_name')
    if isinstance(name, str) and name.rpartition('>')[2] in _CODE_LAYERS:
        yield f'{name} layer'
    elif isinstance(name, str) and name in _FUNCTION_CLASSES:
        # {'module': 'keras.utils', 'class_name': 'function', 'config': 'get_file'} and its like
        if module not in _FUNCTION_MODULES or (
            module == 'builtins' and not isinstance(registered, str)
        ):
            yield f'function {module}.{item.get("config")}'
    elif isinstance(name, str) and isinstance(module, str) and not _is_keras(module):
        yield f'{module}.{name}'
    if isinstance(registered, str) and '>' in registered:
        yield f'custom object {registered}'


def _is_keras(module: str) -> bool:
    return module in _MODULES or module.startswith(_OPS_PREFIX)


def keras_config(path: Path) -> object:
    """Return the configuration in a ``.keras`` archive.

    Raises
    ------
    ModelError
        It is not such an archive, or its members are not the three expected ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.startswith('/') or '..' in name.split('/') for name in names):
                msg = f'<{path}> holds members that point out of the archive; it was tampered with'
                raise ModelError(msg)
            if archive.getinfo('config.json').file_size > _MAX_CONFIG:
                msg = f'the configuration in <{path}> is too large for a network'
                raise ModelError(msg)
            return json.loads(archive.read('config.json'))
    except (*DAMAGED, OSError, KeyError, RecursionError) as error:
        msg = f'<{path}> is not a readable .keras file: {error}'
        raise ModelError(msg) from error


def _h5_attributes(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        msg = (
            f'cannot look into <{path}>: HDF5 models need TensorFlow and h5py; '
            "install them with `pip install 'shivacmb[tensorflow]'`"
        )
        raise ModelError(msg) from error
    try:
        with h5py.File(path, 'r') as file:
            return {
                name: value.decode() if isinstance(value, bytes) else value
                for name, value in file.attrs.items()
                if name in {'model_config', 'keras_version'}
            }
    except (OSError, UnicodeDecodeError) as error:
        msg = f'<{path}> is not a readable HDF5 file: {error}'
        raise ModelError(msg) from error


def h5_config(path: Path) -> object:
    """Return the configuration in a ``.h5`` model.

    Raises
    ------
    ModelError
        It is no HDF5 file or holds weights only, or h5py is not installed.
    """
    text = _h5_attributes(path).get('model_config')
    if not isinstance(text, str):
        msg = f'<{path}> holds no network (no model_config): a file of weights alone will not do'
        raise ModelError(msg)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f'the configuration in <{path}> is not valid JSON: {error}'
        raise ModelError(msg) from error


def h5_keras_version(path: Path) -> int:
    """Return the major version of the Keras that wrote a ``.h5`` model; 2 when it is not said."""
    text = str(_h5_attributes(path).get('keras_version', '2'))
    major = text.partition('.')[0]
    return int(major) if major.isdigit() else 2
