"""All folds of a bundle behind one call, and never fewer than all."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shivacmb.exceptions import ModelError, ShivaCMBError, TemporaryError, UsageError
from shivacmb.models.convert import network_shape
from shivacmb.models.ladder import GPU_PAUSE_S, FoldByFold, Ladder, Rung
from shivacmb.models.memory import is_out_of_memory
from shivacmb.models.networks import has_tensorflow, import_tensorflow, without_tensorflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shivacmb.models.bundle import Bundle

ENGINES = ('auto', 'openvino', 'tensorflow')
DEVICES = ('auto', 'cpu', 'gpu')
#: What the drivers of NVIDIA, of WSL 2 and of AMD make where there is a GPU.
GPU_DEVICES = ('/dev/nvidiactl', '/dev/nvidia0', '/dev/dxg', '/dev/kfd')


class Engine(Protocol):
    """What runs the networks."""

    @property
    def name(self) -> str:
        """Return ``openvino`` or ``tensorflow``."""

    @property
    def device(self) -> str:
        """Return ``cpu`` or ``gpu``."""

    @property
    def version(self) -> str:
        """Return the version of the library."""

    @property
    def precision(self) -> str:
        """Return the arithmetic, ``f32`` or ``bf16``."""

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run every fold on [1, X, Y, Z, C]; return as many [1, X, Y, Z, K]."""

    def release(self) -> None:
        """Give back the memory that only a prediction needs."""

    def close(self) -> None:
        """Drop the networks and give their memory back."""


class Ensemble:
    """The folds of one bundle, loaded once for however many scans.

    Parameters
    ----------
    bundle : Bundle
        The model.
    engine : Engine
        What runs it.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine

    def describe(self) -> Mapping[str, str | int]:
        """Return what a provenance record should say about the engine."""
        return {
            'engine': self.engine.name,
            'engine_version': self.engine.version,
            'device': self.engine.device,
            'precision': self.engine.precision,
            'folds': len(self.bundle.folds),
            'note': getattr(self.engine, 'note', ''),
        }

    def release(self) -> None:
        """Give back the memory that only a prediction needs; the next one takes it again."""
        self.engine.release()

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict a batch with every fold.

        Parameters
        ----------
        batch : (N, X, Y, Z, C) ndarray of float32
            Preprocessed scans on the bundle's grid; channels in the order of ``bundle.inputs``.

        Returns
        -------
        (F, N, X, Y, Z, K) ndarray of float32
            Probabilities of the F folds. A sigmoid network has one map per entry of
            ``bundle.classes``; a softmax network has one more, and its first is the background
            (:meth:`Bundle.foreground` drops it). The images go through one by one, so that
            memory does not grow with N.

        Raises
        ------
        ModelError
            The batch does not fit the bundle; or a fold fails, or returns another shape than the
            bundle says, or values that are not finite. There is never a result of fewer folds.
        TemporaryError
            Memory is exhausted, on smaller work and on the CPU too.
        """
        batch = np.asarray(batch, dtype=np.float32)
        wanted = network_shape(self.bundle)
        if batch.ndim != 5 or batch.shape[1:] != wanted or not len(batch):
            msg = (
                f'model {self.bundle.name!r} takes (N, {", ".join(map(str, wanted))}) '
                f'(batch, X, Y, Z, channels), not {batch.shape}'
            )
            raise ModelError(msg)
        result: NDArray[np.float32] | None = None
        for index in range(len(batch)):
            folds = self._run(batch[index : index + 1])
            if result is None:
                shape = (len(folds), len(batch), *wanted[:3], folds[0].shape[-1])
                result = np.empty(shape, np.float32)
            for number, fold in enumerate(folds):
                result[number, index] = fold[0]
        if result is None:  # len(batch) is at least 1
            msg = 'nothing was predicted'
            raise ModelError(msg)
        return result

    def _run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        try:
            folds = self.engine.predict(image)
        except ShivaCMBError:
            raise
        except MemoryError as error:
            msg = 'out of memory while predicting; close other programs or give the job more'
            raise TemporaryError(msg) from error
        except Exception as error:
            # the engines raise whatever their libraries do; all of it means: no result
            msg = (
                f'the networks of <{self.bundle.path}> failed in {self.engine.name}: '
                f'{type(error).__name__}: {error}'
            )
            raise ModelError(msg) from error
        self._check(folds)
        return folds

    def _check(self, folds: list[NDArray[np.float32]]) -> None:
        bundle = self.bundle
        if len(folds) != len(bundle.folds):
            msg = f'{len(folds)} of the {len(bundle.folds)} folds of <{bundle.path}> gave a result'
            raise ModelError(msg)
        expected = (1, *bundle.grid.shape)
        for fold, output in zip(bundle.folds, folds, strict=True):
            path = bundle.fold_path(fold)
            if output.ndim != 5 or output.shape[:4] != expected:
                msg = (
                    f'the fold <{path}> returned an array of shape {output.shape}, not '
                    f'{(*expected, "K")}'
                )
                raise ModelError(msg)
            bundle.check_maps(output.shape[-1])
            if output.shape[-1] != folds[0].shape[-1]:
                msg = f'the folds of <{bundle.path}> return different numbers of maps'
                raise ModelError(msg)
            if not np.isfinite(output).all():
                msg = (
                    f'the fold <{path}> returned values that are not finite; check the scan for '
                    'NaN, and the model with `shivacmb-tools models verify`'
                )
                raise ModelError(msg)


def _gpu_device_present() -> bool:
    """Tell whether a look through TensorFlow (10 s) for a GPU is worth its while."""
    if os.environ.get('CUDA_VISIBLE_DEVICES', '0').strip() in ('', '-1'):
        return False
    return any(Path(name).exists() for name in GPU_DEVICES)


def check_gpu(device: str) -> None:
    """Refuse to begin where a GPU is asked for and none can be; TensorFlow is not asked.

    Parameters
    ----------
    device : {'auto', 'cpu', 'gpu'}
        As typed.

    Raises
    ------
    TemporaryError
        There is no device file of a GPU, or ``CUDA_VISIBLE_DEVICES`` hides all.
    """
    if device == 'gpu' and not _gpu_device_present():
        from shivacmb.models.engine_tensorflow import no_gpu

        raise no_gpu('there is no GPU')


def check_engine(engine: str) -> None:
    """Refuse to begin with an engine whose library is not installed; it is not imported.

    Parameters
    ----------
    engine : {'openvino', 'tensorflow'}
        As resolved.

    Raises
    ------
    ModelError
        TensorFlow is not installed; the message names the extra.
    """
    if engine == 'tensorflow' and not has_tensorflow():
        raise without_tensorflow('the engine "tensorflow"')


def choose_engine(engine: str, device: str) -> str:
    """Resolve ``auto``.

    Parameters
    ----------
    engine : {'auto', 'openvino', 'tensorflow'}
        ``auto`` is TensorFlow where it sees a GPU, else OpenVINO. TensorFlow is imported for this
        only if a GPU is asked for, or if it is installed and device files of a GPU exist.
    device : {'auto', 'cpu', 'gpu'}
        Where to compute.

    Returns
    -------
    {'openvino', 'tensorflow'}

    Raises
    ------
    UsageError
        The two contradict each other or are not known.
    """
    if engine not in ENGINES:
        raise UsageError(f'there is no engine {engine!r}; choose one of {", ".join(ENGINES)}')
    if device not in DEVICES:
        raise UsageError(f'there is no device {device!r}; choose one of {", ".join(DEVICES)}')
    if engine == 'openvino' and device == 'gpu':
        msg = 'the engine openvino runs on the CPU here; use --engine tensorflow for a GPU'
        raise UsageError(msg)
    if engine != 'auto':
        return engine
    if device == 'gpu':
        return 'tensorflow'
    if device == 'auto' and _gpu_device_present() and has_tensorflow():
        from shivacmb.models.engine_tensorflow import visible_gpus

        if visible_gpus(import_tensorflow('looking for a GPU')):
            return 'tensorflow'
    return 'openvino'


def load_ensemble(
    bundle: Bundle,
    engine: str = 'auto',
    device: str = 'auto',
    threads: int | None = None,
    *,
    precision: str = 'f32',
    trust_model: bool = False,
) -> Ensemble:
    """Verify and load all folds of a bundle.

    Parameters
    ----------
    bundle : Bundle
        See :func:`shivacmb.models.find_bundle`.
    engine : {'auto', 'openvino', 'tensorflow'}
        See :func:`choose_engine`.
    device : {'auto', 'cpu', 'gpu'}
        Where to compute.
    threads : int, optional
        CPU threads.
    precision : {'f32', 'bf16'}
        Arithmetic of OpenVINO.
    trust_model : bool
        Load folds that carry code (Lambda layers) though their checksums are not published ones.

    Returns
    -------
    Ensemble

    Raises
    ------
    ModelError
        A fold is missing, altered, unsafe, or does not fit the bundle.
    UsageError
        ``engine`` and ``device`` contradict each other.
    TemporaryError
        Memory ran out while loading, on the CPU too.
    """
    if threads is not None and threads < 1:
        raise UsageError(f'the number of threads must be at least 1, not {threads}')
    chosen = choose_engine(engine, device)
    make = _Maker(chosen, device, threads, precision, trust_model=trust_model)
    return Ensemble(bundle, Ladder(_rungs(bundle, make)))


@dataclass(frozen=True)
class _Maker:
    """Loads engines with what was asked for."""

    engine: str
    device: str
    threads: int | None
    precision: str
    _: KW_ONLY
    trust_model: bool

    def __call__(self, bundle: Bundle) -> Engine:
        if self.engine == 'openvino':
            from shivacmb.models.engine_openvino import OpenVINOEngine

            return OpenVINOEngine(
                bundle,
                threads=self.threads,
                precision=self.precision,
                trust_model=self.trust_model,
            )
        from shivacmb.models.engine_tensorflow import TensorFlowEngine

        return TensorFlowEngine(
            bundle, device=self.device, threads=self.threads, trust_model=self.trust_model
        )

    def on_cpu(self, bundle: Bundle) -> Engine:
        """Take the CPU's own engine, or where it cannot read the folds, the same one there."""
        try:
            return replace(self, engine='openvino', device='cpu')(bundle)
        except ModelError as error:
            if is_out_of_memory(error):
                raise
        return replace(self, device='cpu')(bundle)


def _rungs(bundle: Bundle, make: _Maker) -> list[Rung]:
    """List the ways to run a bundle, best first."""
    if make.engine == 'tensorflow' and make.device != 'cpu' and _sees_gpu(make.device):
        return [
            Rung('the GPU', 'gpu', lambda: make(bundle)),
            Rung('the GPU, fold by fold', 'gpu', lambda: FoldByFold(bundle, make), GPU_PAUSE_S),
            Rung('the CPU', 'cpu', lambda: make.on_cpu(bundle)),
        ]
    rungs = [Rung('the CPU', 'cpu', lambda: make(bundle))]
    if len(bundle.folds) > 1:
        rungs.append(Rung('the CPU, fold by fold', 'cpu', lambda: FoldByFold(bundle, make)))
    return rungs


def _sees_gpu(device: str) -> bool:
    """Tell whether TensorFlow is to run on a GPU: it is asked for, or there."""
    from shivacmb.models.engine_tensorflow import visible_gpus

    return device == 'gpu' or bool(visible_gpus(import_tensorflow('the engine "tensorflow"')))
