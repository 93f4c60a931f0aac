"""The engine for CPUs: all folds in one OpenVINO network.

The folds become branches of one graph, so that they share one set of buffers: the memory is that
of one fold plus the others' weights, and its pages, the most of a first prediction's extra time,
are touched once (``docs/decisions/0021-one-graph-for-all-folds.md`` has the measurements).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shivacmb.exceptions import ModelError
from shivacmb.models.convert import fix_shape, network_shape, openvino_form
from shivacmb.models.openvino_runtime import import_openvino

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shivacmb.models.bundle import Bundle

PRECISIONS = ('f32', 'bf16')


class OpenVINOEngine:
    """Runs the folds of a bundle on the CPU.

    Parameters
    ----------
    bundle : Bundle
        Its folds are verified and, where needed, converted.
    threads : int, optional
        CPU threads; all that the process may use when not given.
    precision : {'f32', 'bf16'}
        Arithmetic. ``bf16`` is faster on CPUs that have it and differs by about 1e-2.
    trust_model : bool
        Allow code in the folds' files.

    Raises
    ------
    ModelError
        A fold is missing, altered, unsafe or does not fit the bundle.
    """

    name = 'openvino'
    device = 'cpu'

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        precision: str = 'f32',
        trust_model: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            msg = f'there is no precision {precision!r}; choose one of {", ".join(PRECISIONS)}'
            raise ModelError(msg)
        openvino = import_openvino()
        self.version = str(openvino.get_version())
        self.precision = precision
        forms = [openvino_form(bundle, fold, trust_model=trust_model) for fold in bundle.folds]
        core = openvino.Core()
        graph = _merge(openvino, core, forms, bundle)
        settings = {
            'INFERENCE_PRECISION_HINT': precision,
            'PERFORMANCE_HINT': 'LATENCY',
            'NUM_STREAMS': 1,
        }
        if threads is not None:
            settings['INFERENCE_NUM_THREADS'] = threads
        self._request: Any = None
        try:
            self._request = core.compile_model(graph, 'CPU', settings).create_infer_request()
        except RuntimeError as error:
            msg = f'OpenVINO cannot run the networks of <{bundle.path}>: {error}'
            raise ModelError(msg) from error

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run all folds on one image.

        Parameters
        ----------
        image : (1, X, Y, Z, C) ndarray of float32
            Input.

        Returns
        -------
        list of (1, X, Y, Z, K) ndarray of float32
            One per fold; they are overwritten by the next call.
        """
        self._request.infer({0: np.ascontiguousarray(image)}, share_inputs=True)
        count = len(self._request.results)
        return [self._request.get_output_tensor(index).data for index in range(count)]

    def release(self) -> None:
        """Give back the buffers between the layers; earlier results may not be read any more."""
        self._request.get_compiled_model().release_memory()

    def close(self) -> None:
        """Drop the networks and their buffers."""
        self._request = None


def _merge(openvino: Any, core: Any, forms: list[Path], bundle: Bundle) -> Any:
    operations = openvino.opset13
    shape = network_shape(bundle)
    entry = operations.parameter([1, *shape], openvino.Type.f32, name='scan')
    results = []
    for index, form in enumerate(forms):
        try:
            network = core.read_model(str(form))
        except RuntimeError as error:
            msg = f'OpenVINO cannot read <{form}>: {error}'
            raise ModelError(msg) from error
        fix_shape(network, shape, form)
        parameter = network.get_parameters()[0]
        source = entry
        if parameter.get_element_type() != openvino.Type.f32:
            source = operations.convert(entry, parameter.get_element_type())
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(source.output(0))
        output = network.get_results()[0].input_value(0)
        if output.get_element_type() != openvino.Type.f32:
            output = operations.convert(output, openvino.Type.f32).output(0)
        results.append(operations.result(output, name=f'fold-{index}'))
    return openvino.Model(results, [entry], 'ensemble')
