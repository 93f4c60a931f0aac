from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shivacmb.exceptions import ModelError, TemporaryError, UsageError
from shivacmb.models import Ensemble, check_gpu, choose_engine, load_bundle, load_ensemble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from shivacmb.models import Bundle

SHAPE = (6, 5, 4)  # of the bundles of conftest.py


@pytest.fixture
def scans() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((2, *SHAPE, 1), dtype=np.float32)


def test_folds_come_in_order(
    make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]
) -> None:
    ensemble = load_ensemble(make_bundle(0.25, 0.5, 1.0), threads=1)
    result = ensemble.predict(scans)
    assert result.dtype == np.float32
    assert result.shape == (3, 2, *SHAPE, 1)
    assert np.array_equal(result, np.stack([0.25 * scans, 0.5 * scans, scans]))
    # the engine's own buffers must not show through in what was returned before
    ensemble.predict(np.zeros_like(scans))
    assert np.array_equal(result[2], scans)
    assert ensemble.describe()['engine'] == 'openvino'
    assert ensemble.describe()['folds'] == 3


def test_memory_given_back_is_taken_again(
    make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]
) -> None:
    ensemble = load_ensemble(make_bundle(0.25, 0.5), threads=1)
    before = ensemble.predict(scans)
    ensemble.release()
    assert np.array_equal(ensemble.predict(scans), before)
    ensemble.release()
    ensemble.engine.close()
    ensemble.release()  # nothing is held any more


def test_identical_folds_have_no_spread(
    make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]
) -> None:
    result = load_ensemble(make_bundle(0.3, 0.3)).predict(scans)
    assert np.array_equal(result[0], result[1])


def test_a_strided_batch_is_read_right(
    make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]
) -> None:
    turned = np.ascontiguousarray(scans[:, ::-1])[:, ::-1]
    assert np.array_equal(load_ensemble(make_bundle(1.0)).predict(turned)[0], scans)


def test_background_map_of_softmax(
    make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]
) -> None:
    bundle = make_bundle(1.0, maps=2)
    result = load_ensemble(bundle).predict(scans)
    assert result.shape[-1] == 2
    assert bundle.foreground(result).shape[-1] == 1


@pytest.mark.parametrize(
    ('shape', 'message'),
    [((1, 6, 5, 4), r'not \(1, 6, 5, 4\)'), ((0, 6, 5, 4, 1), 'not'), ((1, 6, 5, 4, 2), 'not')],
)
def test_a_batch_that_does_not_fit(
    make_bundle: Callable[..., Bundle], shape: tuple[int, ...], message: str
) -> None:
    ensemble = load_ensemble(make_bundle(1.0))
    with pytest.raises(ModelError, match=f"model 'small' takes .*{message}"):
        ensemble.predict(np.zeros(shape, np.float32))


def test_nan_is_no_result(make_bundle: Callable[..., Bundle], scans: NDArray[np.float32]) -> None:
    scans[1, 0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match=r'fold-0.keras> returned values that are not finite'):
        load_ensemble(make_bundle(1.0)).predict(scans)


@pytest.mark.parametrize('name', ['fold-1.xml', 'fold-1.bin'])
def test_an_altered_fold_ends_the_run(make_bundle: Callable[..., Bundle], name: str) -> None:
    bundle = make_bundle(1.0, 1.0, 1.0)
    content = bytearray((bundle.path / name).read_bytes())
    content[-1] ^= 1
    (bundle.path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf'{name}> of model .* is not the file'):
        load_ensemble(bundle)


def test_a_missing_fold_ends_the_run(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(1.0, 1.0)
    (bundle.path / 'fold-1.xml').unlink()
    with pytest.raises(ModelError, match=r'is incomplete: the file <.*fold-1.xml> is missing'):
        load_ensemble(bundle)
    bundle.verify_fold(bundle.folds[1])
    (bundle.path / 'fold-1.keras').write_bytes(b'other')
    with pytest.raises(ModelError, match=r'fold-1.keras> of model .* is not the file'):
        bundle.verify_fold(bundle.folds[1])


def test_a_network_of_another_size(make_bundle: Callable[..., Bundle]) -> None:
    grid = {'shape': [6, 5, 5]}
    with pytest.raises(ModelError, match=r'takes \[1,6,5,4,1\].*but its bundle says 6x5x5'):
        load_ensemble(make_bundle(1.0, grid=grid))


class _Engine:
    name = device = version = precision = 'fake'

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.answer = None


@pytest.mark.parametrize(
    ('answer', 'kind', 'message'),
    [
        ([np.zeros((1, *SHAPE, 1))], ModelError, '1 of the 2 folds'),
        ([np.zeros((1, *SHAPE, 1)), np.zeros((1, 6, 5, 3, 1))], ModelError, 'fold-1.keras> ret'),
        ([np.zeros((1, *SHAPE, 3))] * 2, ModelError, 'returns 3 maps'),
        ([np.zeros((1, *SHAPE, 1)), np.zeros((1, *SHAPE, 2))], ModelError, 'different numbers'),
        (ValueError('boom'), ModelError, 'failed in fake: ValueError: boom'),
        (MemoryError(), TemporaryError, 'out of memory'),
    ],
)
def test_never_fewer_folds(
    make_bundle: Callable[..., Bundle],
    scans: NDArray[np.float32],
    answer: Any,
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        Ensemble(make_bundle(1.0, 1.0), _Engine(answer)).predict(scans)


@pytest.mark.parametrize(
    ('engine', 'device', 'expected'),
    [
        ('auto', 'cpu', 'openvino'),
        ('auto', 'gpu', 'tensorflow'),
        ('openvino', 'auto', 'openvino'),
        ('tensorflow', 'cpu', 'tensorflow'),
    ],
)
def test_choice_of_the_engine(engine: str, device: str, expected: str) -> None:
    assert choose_engine(engine, device) == expected


def test_a_gpu_that_cannot_be_there_is_seen_without_tensorflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        'shivacmb.models.ensemble.import_tensorflow', lambda _: pytest.fail('imported')
    )
    there = tmp_path / 'nvidiactl'
    monkeypatch.setattr('shivacmb.models.ensemble.GPU_DEVICES', (str(there),))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    check_gpu('cpu')
    check_gpu('auto')
    with pytest.raises(TemporaryError, match=r'there is no GPU on .+ or use --device cpu'):
        check_gpu('gpu')
    there.touch()
    check_gpu('gpu')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    with pytest.raises(TemporaryError, match='there is no GPU'):
        check_gpu('gpu')


def test_auto_looks_for_a_gpu_only_where_one_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('shivacmb.models.ensemble._gpu_device_present', lambda: False)
    monkeypatch.setattr(
        'shivacmb.models.ensemble.import_tensorflow', lambda _: pytest.fail('imported')
    )
    assert choose_engine('auto', 'auto') == 'openvino'


@pytest.mark.parametrize(
    ('engine', 'device', 'message'),
    [
        ('openvino', 'gpu', 'runs on the CPU'),
        ('onnx', 'cpu', "no engine 'onnx'"),
        ('auto', 'tpu', "no device 'tpu'"),
    ],
)
def test_contradictions(engine: str, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_engine(engine, device)


def test_options_out_of_range(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(1.0)
    with pytest.raises(UsageError, match='at least 1, not 0'):
        load_ensemble(bundle, threads=0)
    with pytest.raises(ModelError, match="there is no precision 'f16'"):
        load_ensemble(bundle, precision='f16')


def test_no_tensorflow_and_no_telemetry(make_bundle: Callable[..., Bundle]) -> None:
    """In a process of its own, a prediction imports neither."""
    program = """
import sys
import numpy as np
from shivacmb.models import load_bundle, load_ensemble
ensemble = load_ensemble(load_bundle(sys.argv[1]))
ensemble.predict(np.zeros((1, 6, 5, 4, 1), np.float32))
loaded = {name.partition('.')[0] for name in sys.modules}
assert not loaded & {'tensorflow', 'keras', 'tf_keras', 'torch', 'openvino_telemetry'}, loaded
"""
    subprocess.run(
        [sys.executable, '-c', program, str(make_bundle(1.0).path)], check=True, timeout=120
    )


def test_a_fold_without_form_needs_tensorflow_once(
    tmp_path: Path, make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json
    import zipfile

    from shivacmb.models.checksums import sha256_of

    bundle = make_bundle(1.0)
    source = bundle.fold_path(bundle.folds[0])
    with zipfile.ZipFile(source, 'w') as archive:
        archive.writestr('config.json', '{}')
    content = bundle.to_json()
    content['folds'] = [{'file': source.name, 'format': 'keras', 'sha256': sha256_of(source)}]
    (bundle.path / 'model.json').write_text(json.dumps(content))
    monkeypatch.setattr('shivacmb.models.convert.has_tensorflow', lambda: False)
    monkeypatch.delitem(sys.modules, 'tensorflow', raising=False)
    with pytest.raises(ModelError, match=r"pip install 'shivacmb\[tensorflow\]'"):
        load_ensemble(load_bundle(bundle.path))
