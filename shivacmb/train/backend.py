"""The library behind Keras, and the machine it runs on."""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any

from shivacmb.exceptions import TemporaryError, UsageError
from shivacmb.models.memory import is_out_of_memory
from shivacmb.train.processor import ask_for_onednn, has_bfloat16, processor_name

BACKENDS = ('tensorflow', 'jax', 'torch')


def start_backend(*, deterministic: bool) -> str:
    """Import Keras on the backend of ``KERAS_BACKEND`` (TensorFlow by default).

    Parameters
    ----------
    deterministic : bool
        Have the backend take algorithms that give the same bits each time, where it has them.

    Returns
    -------
    str
        Name of the backend.

    Raises
    ------
    UsageError
        It is not known or not installed.
    """
    wanted = os.environ.get('KERAS_BACKEND', 'tensorflow') or 'tensorflow'
    if wanted not in BACKENDS:
        raise UsageError(
            f'KERAS_BACKEND is {wanted!r}; training runs on {", ".join(BACKENDS)}: set it to one'
        )
    # Keras would take what ~/.keras/keras.json says, of another project perhaps
    os.environ['KERAS_BACKEND'] = wanted
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    ask_for_onednn()
    if deterministic and wanted == 'torch':
        # read by CUDA when it starts
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    if deterministic and wanted == 'jax':
        flags = os.environ.get('XLA_FLAGS', '')
        os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()
    try:
        library = importlib.import_module(wanted)
        keras = importlib.import_module('keras')
    except ImportError as error:
        raise UsageError(
            f'training on the backend {wanted!r} needs it installed ({error}): '
            f"`pip install '.[{wanted}]'`, or set KERAS_BACKEND to another of "
            f'{", ".join(BACKENDS)}'
        ) from error
    keras.config.set_image_data_format('channels_last')
    keras.config.set_floatx('float32')
    name = str(keras.backend.backend())
    if deterministic:
        _make_deterministic(name, library)
    return name


def _make_deterministic(name: str, library: Any) -> None:
    if name == 'tensorflow':
        library.config.experimental.enable_op_determinism()
    elif name == 'torch':
        library.use_deterministic_algorithms(True, warn_only=True)


def describe_machine() -> dict[str, Any]:
    """Return what a model card says about software and hardware."""
    import keras

    name = str(keras.backend.backend())
    library = importlib.import_module(name)
    return {
        'backend': f'{name} {library.__version__}',
        'keras': str(keras.__version__),
        'python': platform.python_version(),
        'device': _device(name, library),
        'cpu': processor_name(),
        'cpu_cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
        else os.cpu_count(),
    }  # fmt: skip


def computes_bfloat16() -> bool:
    """Tell whether arithmetic in bfloat16 is fast here: on a GPU, or a processor that has it."""
    import keras

    name = str(keras.backend.backend())
    return _device(name, importlib.import_module(name)) != 'cpu' or has_bfloat16()


def _device(name: str, library: Any) -> str:
    if name == 'torch':
        return str(library.cuda.get_device_name(0)) if library.cuda.is_available() else 'cpu'
    if name == 'jax':
        return str(library.devices()[0].device_kind)
    gpus = library.config.list_physical_devices('GPU')
    if not gpus:
        return 'cpu'
    details = library.config.experimental.get_device_details(gpus[0])
    return str(details.get('device_name', 'gpu'))


def out_of_memory(error: Exception) -> TemporaryError | None:
    """Say what to do where an error of a library means that memory ran out.

    Parameters
    ----------
    error : Exception
        As the library raised it.

    Returns
    -------
    TemporaryError or None
        None for any other error.
    """
    if not is_out_of_memory(error):
        return None
    return TemporaryError(
        f'memory ran out in the machine or its GPU ({type(error).__name__}); free some, or take a '
        'larger one (CUDA_VISIBLE_DEVICES=-1 leaves the GPU out), and run the same command again. '
        'Less is needed with --precision mixed_bfloat16 and, as long as no fold has begun or in '
        'another --work, with a lower --batch, with --patch-size or with --network small'
    )
