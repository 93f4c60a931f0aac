"""Load networks with TensorFlow; all imports of TensorFlow and Keras for prediction are here."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError
from shivacmb.models.safety import h5_keras_version, is_trusted, require_safe

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_EXTRA = "install it with `pip install 'shivacmb[tensorflow]'`"


def has_tensorflow() -> bool:
    """Tell whether TensorFlow is installed, without importing it."""
    return importlib.util.find_spec('tensorflow') is not None


def import_tensorflow(purpose: str) -> Any:
    """Import TensorFlow quietly.

    Parameters
    ----------
    purpose : str
        What needs it, for the message.

    Raises
    ------
    ModelError
        It is not installed; the message names the extra.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    return _import('tensorflow', purpose)


def without_tensorflow(purpose: str) -> ModelError:
    """Make the error of :func:`import_tensorflow` where it is known not to be installed."""
    return _missing('tensorflow', purpose, "No module named 'tensorflow'")


def _import(name: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name, purpose, error) from error


def _missing(name: str, purpose: str, why: object) -> ModelError:
    return ModelError(f'{purpose} needs {name} ({why}); {_EXTRA}')


def load_network(path: Path, kind: str, *, float32: bool, trust_model: bool = False) -> Any:
    """Load one fold with the library that wrote it.

    Parameters
    ----------
    path : Path
        File or folder whose checksum was verified.
    kind : {'keras', 'h5', 'savedmodel'}
        Its format.
    float32 : bool
        Rebuild a mixed-precision network in float32: its 3-D convolutions do not run on a CPU.
    trust_model : bool
        Allow code in the file; see :func:`shivacmb.models.safety.require_safe`.

    Returns
    -------
    keras.Model, tf_keras.Model or a restored SavedModel

    Raises
    ------
    ModelError
        The file carries code, is not what it says, or a library is missing.
    """
    require_safe(path, kind, trust_model=trust_model)
    # a .keras file is read on whichever backend Keras runs on
    tensorflow = None if kind == 'keras' else import_tensorflow(f'reading <{path}>')
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        if tensorflow is not None and kind == 'savedmodel':
            return tensorflow.saved_model.load(str(path))
        trusted = is_trusted(path, trust_model=trust_model)
        if kind == 'h5' and h5_keras_version(path) < 3:
            library, extra = _import('tf_keras', f'reading <{path}>'), {'tf': tensorflow}
        else:
            library, extra = _import('keras', f'reading <{path}>'), None
        network = library.models.load_model(
            str(path),
            custom_objects=extra if trusted else None,
            compile=False,
            safe_mode=not trusted,
        )
        if not float32:
            return network
        return in_float32(network, library, extra if trusted else None)
    except ModelError:
        raise
    except Exception as error:
        # the libraries raise whatever their parsers meet
        msg = f'cannot load the network <{path}>: {type(error).__name__}: {error}'
        raise ModelError(msg) from error


def in_float32(
    network: Any, library: Any = None, custom_objects: dict[str, Any] | None = None
) -> Any:
    """Rebuild a network whose layers compute in 16 bits; others are returned as they are.

    Parameters
    ----------
    network : keras.Model or tf_keras.Model
        The network; under a mixed policy its weights are float32 already.
    library : module, optional
        ``keras`` (also when not given) or ``tf_keras``.
    custom_objects : dict, optional
        Names that the configuration may use.
    """
    library = library or importlib.import_module('keras')
    config = network.to_json()
    changed = config.replace('"mixed_float16"', '"float32"').replace(
        '"mixed_bfloat16"', '"float32"'
    )
    if changed == config:
        return network
    rebuilt = library.models.model_from_json(changed, custom_objects=custom_objects)
    rebuilt.set_weights(network.get_weights())
    return rebuilt


def predictor(network: Any, path: Path) -> Predictor:
    """Return a function from one batch to the network's output.

    Parameters
    ----------
    network : object
        As :func:`load_network` returns it.
    path : Path
        Where it came from, for messages.

    Raises
    ------
    ModelError
        A SavedModel has neither a ``serve`` endpoint nor the signature ``serving_default``.
    """
    import numpy as np

    if hasattr(network, 'predict_on_batch'):
        return lambda batch: np.asarray(network.predict_on_batch(batch))
    if hasattr(network, 'serve'):
        return lambda batch: np.asarray(network.serve(batch))
    signature = getattr(network, 'signatures', {}).get('serving_default')
    if signature is None:
        msg = f'<{path}> can be run neither by serve() nor by the signature serving_default'
        raise ModelError(msg)
    return _signature_predictor(signature, path)


def _signature_predictor(signature: Any, path: Path) -> Predictor:
    import numpy as np
    import tensorflow

    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        msg = f'<{path}> must have one input and one output, not {sorted(inputs)}'
        raise ModelError(msg)
    ((name, spec),) = inputs.items()
    (output,) = signature.structured_outputs
    return lambda batch: np.asarray(
        signature(**{name: tensorflow.constant(batch, dtype=spec.dtype)})[output]
    )


def export_savedmodel(network: Any, folder: Path) -> None:
    """Write a loaded Keras network as a SavedModel with a ``serving_default`` signature.

    Raises
    ------
    ModelError
        The network is not a Keras model.
    """
    if not hasattr(network, 'export'):
        msg = f'only Keras networks can be written as a SavedModel to <{folder}>'
        raise ModelError(msg)
    try:
        network.export(str(folder), format='tf_saved_model', verbose=False)
    except TypeError:
        network.export(str(folder))  # tf_keras knows one format
