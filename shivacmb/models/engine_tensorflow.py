"""The engine for GPUs, and for comparison on CPUs: TensorFlow runs the folds one by one."""

from __future__ import annotations

import contextlib
import importlib
import socket
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import TemporaryError
from shivacmb.models.networks import import_tensorflow, load_network, predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shivacmb.models.bundle import Bundle


def visible_gpus(tensorflow: Any) -> list[Any]:
    """Return TensorFlow's GPUs, their memory set to grow with use.

    Without that TensorFlow takes the whole card, also from other programs.
    """
    gpus: list[Any] = tensorflow.config.list_physical_devices('GPU')
    for gpu in gpus:
        # it can no longer be set once TensorFlow has used the card
        with contextlib.suppress(RuntimeError):
            tensorflow.config.experimental.set_memory_growth(gpu, True)
    return gpus


def no_gpu(seen: str) -> TemporaryError:
    """Make the error for a GPU that is asked for and not there: another node may have one."""
    return TemporaryError(
        f'{seen} on {socket.gethostname()}; check `nvidia-smi`, install '
        "`pip install 'shivacmb[gpu]'`, or use --device cpu"
    )


class TensorFlowEngine:
    """Runs the folds of a bundle with TensorFlow (``.keras`` folds: with Keras's own backend).

    Parameters
    ----------
    bundle : Bundle
        Its folds are verified.
    device : {'auto', 'cpu', 'gpu'}
        ``auto`` takes the first GPU that TensorFlow sees.
    threads : int, optional
        CPU threads; obeyed only if TensorFlow has not computed anything yet.
    trust_model : bool
        Allow code in the folds' files.

    Raises
    ------
    ModelError
        TensorFlow is not installed, or a fold is missing, altered, unsafe or cannot be loaded.
    TemporaryError
        A GPU is asked for and none is seen: another node may have one.
    """

    name = 'tensorflow'
    precision = 'f32'

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = 'auto',
        threads: int | None = None,
        trust_model: bool = False,
    ) -> None:
        tensorflow = import_tensorflow('the engine "tensorflow"')
        self._tensorflow = tensorflow
        self.version = str(tensorflow.__version__)
        if threads is not None:
            with contextlib.suppress(RuntimeError):
                tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
                tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        gpus = [] if device == 'cpu' else visible_gpus(tensorflow)
        if device == 'gpu' and not gpus:
            raise no_gpu('TensorFlow sees no GPU')
        self.device = 'gpu' if gpus else 'cpu'
        self._place = '/GPU:0' if gpus else '/CPU:0'
        self._predictors = []
        for fold in bundle.folds:
            bundle.verify_fold(fold)
            path = bundle.fold_path(fold)
            with tensorflow.device(self._place):
                network = load_network(
                    path, fold.format, float32=self.device == 'cpu', trust_model=trust_model
                )
            self._predictors.append(predictor(network, path))

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run all folds on one image; see :meth:`OpenVINOEngine.predict`."""
        with self._tensorflow.device(self._place):
            return [predict(image) for predict in self._predictors]

    def release(self) -> None:
        """Do nothing: TensorFlow keeps its memory for the next prediction."""

    def close(self) -> None:
        """Drop the networks; TensorFlow keeps their memory for those that it loads next."""
        self._predictors = []
        with contextlib.suppress(ImportError):
            importlib.import_module('keras').utils.clear_session()
