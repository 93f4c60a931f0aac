"""Make a U-Net lighter without changing what it computes.

A decoder stage doubles a map (nearest neighbour), puts the skip connection beside it and convolves
both. The doubled map and the concatenation are the largest arrays of the whole network, and three
of four products in that convolution see the same value twice or more. Both halves can be
convolved apart and added, and a 3x3x3 convolution of a doubled map is a transposed convolution of
the small one: along each axis, with kernel (a, b, c),

    out[2 i]     = a x[i-1] + (b + c) x[i]
    out[2 i + 1] = (a + b) x[i] + c x[i+1]

which is stride 2 with the kernel (c, b + c, a + b, a). Measured on the 12.3 M-parameter network at
160x216x176: docs/decisions/0021-one-graph-for-all-folds.md.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGGER = logging.getLogger('shivacmb.models')
# Operations of one data input through which a doubled map may pass.
_MOVES = frozenset(
    {'Broadcast', 'Interpolate', 'Reshape', 'Squeeze', 'Tile', 'Transpose', 'Unsqueeze'}
)
_SPREAD = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float64)
_TOLERANCE = 1e-4


def transposed_kernel(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the transposed convolution that equals doubling, then convolving.

    Parameters
    ----------
    kernel : (O, I, 3, 3, 3) ndarray
        Convolution, zero-padded by one, of a map that was doubled along each axis.

    Returns
    -------
    (I, O, 4, 4, 4) ndarray of float32
        For stride 2 and padding 1 on the map before.
    """
    wide = np.einsum('ap,bq,cr,oipqr->ioabc', _SPREAD, _SPREAD, _SPREAD, kernel.astype(np.float64))
    return np.ascontiguousarray(wide.astype(np.float32))


def merge_upsampling(openvino: Any, model: Any) -> int:
    """Replace doubling, concatenation and convolution by two convolutions and a sum, in place.

    The rewritten stages are computed both ways on random input; unless they agree to 1e-4 of
    their largest value, the network is left as it was.

    Parameters
    ----------
    openvino : module
        From :func:`shivacmb.models.openvino_runtime.import_openvino`.
    model : openvino.Model
        Network of static shape with one input.

    Returns
    -------
    int
        Number of stages rewritten.
    """
    passes = importlib.import_module('openvino.passes')
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    pairs = [
        (node, sum_node)
        for node in model.get_ordered_ops()
        if node.get_type_name() == 'Convolution'
        and (sum_node := _rewritten(openvino, node)) is not None
    ]
    if not pairs:
        return 0
    # every pair hangs on the original nodes still, so both can be computed on the same inputs
    parameters = model.get_parameters()
    outputs = [node.output(0) for pair in pairs for node in pair]
    check = openvino.Model(outputs, parameters, 'check')
    if not _agree(openvino, check):
        LOGGER.warning('a network is kept as it is: its stages could not be rewritten exactly')
        return 0
    for node, sum_node in pairs:
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(sum_node.output(0))
    model.validate_nodes_and_infer_types()
    return len(pairs)


def _source(output: Any) -> Any:
    """Follow a map back through operations that only move its values."""
    while output.get_node().get_type_name() in _MOVES:
        output = output.get_node().input_value(0)
    return output


def _rewritten(openvino: Any, node: Any) -> Any:
    """Return the sum that can stand for a decoder's convolution; None where none can."""
    concat, weights = (node.input_value(index).get_node() for index in range(2))
    settings = node.get_attributes()
    if (
        concat.get_type_name() != 'Concat'
        or concat.get_attributes()['axis'] not in (1, -4)
        or concat.get_input_size() != 2
        or weights.get_type_name() != 'Constant'
        or list(weights.get_output_shape(0))[2:] != [3, 3, 3]
        or any(list(settings[name]) != [1, 1, 1] for name in ('strides', 'dilations'))
        or any(list(settings[name]) != [1, 1, 1] for name in ('pads_begin', 'pads_end'))
    ):
        return None
    inputs = [concat.input_value(index) for index in range(2)]
    doubled = [_is_doubled(output) for output in inputs]
    if sum(doubled) != 1:
        return None
    kernel = weights.data
    first = list(inputs[0].get_shape())[1]
    kernels = [kernel[:, :first], kernel[:, first:]]
    big = doubled.index(True)
    operations, ones = openvino.opset13, [1, 1, 1]
    skip = operations.convolution(
        inputs[1 - big],
        operations.constant(np.ascontiguousarray(kernels[1 - big])),
        ones,
        ones,
        ones,
        ones,
    )
    wide = operations.convolution_backprop_data(
        _source(inputs[big]),
        operations.constant(transposed_kernel(kernels[big])),
        [2, 2, 2],
        pads_begin=ones,
        pads_end=ones,
    )
    return operations.add(skip, wide)


def _is_doubled(output: Any) -> bool:
    size, origin = list(output.get_shape()), list(_source(output).get_shape())
    return len(origin) == 5 and size == [*origin[:2], *(2 * length for length in origin[2:])]


def _agree(openvino: Any, check: Any) -> bool:
    settings = {'INFERENCE_PRECISION_HINT': 'f32'}
    request = openvino.Core().compile_model(check, 'CPU', settings).create_infer_request()
    shape = list(check.inputs[0].get_shape())
    scan = np.random.default_rng(0).random(shape, dtype=np.float32)
    request.infer({0: scan}, share_inputs=True)
    outputs = [request.get_output_tensor(index).data for index in range(len(check.outputs))]
    return all(
        float(np.abs(old - new).max()) <= _TOLERANCE * max(float(np.abs(old).max()), 1e-6)
        for old, new in zip(outputs[::2], outputs[1::2], strict=True)
    )
