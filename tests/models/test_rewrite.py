"""A decoder stage computed as written and as rewritten; the oracle is plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import correlate

from shivacmb.models.openvino_runtime import import_openvino
from shivacmb.models.rewrite import merge_upsampling, transposed_kernel

SMALL = (3, 4, 2)
BIG = tuple(2 * size for size in SMALL)


def _stage(kernel: np.ndarray, *, doubled_first: bool, repeats: int = 2) -> Any:
    """Build: halve by striding, double, concatenate with the input, convolve with ``kernel``."""
    openvino = import_openvino()
    ops = openvino.opset13
    scan = ops.parameter([1, 1, *BIG], openvino.Type.f32)
    small = ops.max_pool(scan, [2] * 3, [1] * 3, [0] * 3, [0] * 3, [2] * 3).output(0)
    wide = small
    for axis in (2, 3, 4):
        size = list(wide.get_shape())
        apart = ops.unsqueeze(wide, ops.constant(np.array([axis + 1])))
        tiles = [repeats if place == axis + 1 else 1 for place in range(6)]
        tiled = ops.tile(apart, ops.constant(np.array(tiles)))
        size[axis] *= repeats
        wide = ops.reshape(tiled, ops.constant(np.array(size)), False).output(0)
    pair = [wide, scan.output(0)] if doubled_first else [scan.output(0), wide]
    ones = [1, 1, 1]
    out = ops.convolution(ops.concat(pair, 1), ops.constant(kernel), ones, ones, ones, ones)
    return openvino, openvino.Model([out], [scan], 'stage')


@pytest.mark.parametrize('doubled_first', [True, False])
def test_a_decoder_stage(doubled_first: bool) -> None:
    rng = np.random.default_rng(2)
    scan = rng.normal(size=BIG).astype(np.float32)
    kernel = rng.normal(size=(3, 2, 3, 3, 3)).astype(np.float32)
    x, y, z = SMALL
    small = scan.reshape(x, 2, y, 2, z, 2).max(axis=(1, 3, 5))
    wide = small.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    pair = [wide, scan] if doubled_first else [scan, wide]
    expected = [
        sum(correlate(map_, k, mode='constant') for map_, k in zip(pair, own, strict=True))
        for own in kernel
    ]
    openvino, model = _stage(kernel, doubled_first=doubled_first)
    assert merge_upsampling(openvino, model) == 1
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert 'Concat' not in kinds
    assert 'Tile' not in kinds
    settings = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.Core().compile_model(model, 'CPU', settings)
    np.testing.assert_allclose(compiled({0: scan[None, None]})[0][0], expected, atol=1e-4)


def test_a_wrong_guess_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        'shivacmb.models.rewrite.transposed_kernel', lambda kernel: -transposed_kernel(kernel)
    )
    openvino, model = _stage(np.ones((1, 2, 3, 3, 3), np.float32), doubled_first=True)
    assert merge_upsampling(openvino, model) == 0
    assert 'kept as it is' in caplog.text
    assert 'Concat' in [node.get_type_name() for node in model.get_ops()]


def test_a_kernel_of_ones_spreads_evenly() -> None:
    # each small voxel reaches outputs 2i-1 .. 2i+2 with weights 1, 2, 2, 1 along every axis
    line = np.array([1, 2, 2, 1])
    expected = line[:, None, None] * line[:, None] * line
    result = transposed_kernel(np.ones((1, 1, 3, 3, 3), np.float32))
    np.testing.assert_array_equal(result[0, 0], expected)
