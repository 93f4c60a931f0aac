"""What needs TensorFlow: its engine, conversion, writing, exporting, and the legacy formats.

All in one file, so that TensorFlow is imported by one process only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shivacmb.exceptions import ModelError, OutputError, TemporaryError
from shivacmb.models import build_unet3d, load_bundle, load_ensemble, preset, write_bundle
from shivacmb.models.checksums import md5_of
from shivacmb.models.export import export_bundle
from shivacmb.models.install import add_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shivacmb.models import Bundle

pytestmark = pytest.mark.tensorflow

# 18 and 20 halve twice only with a crop, 24 without
SHAPE = (18, 20, 24)
FORMATS = ('keras', 'savedmodel', 'h5', 'legacy-h5')


def _metadata(name: str = 'tiny', **changes: Any) -> dict[str, Any]:
    recipe = preset('shiva-paper')
    recipe['grid']['shape'] = list(SHAPE)
    return {
        'name': name,
        'version': '0',
        'inputs': [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}],
        'architecture': {'family': 'unet3d', 'filters': 2, 'stages': 3},
        **recipe,
        **changes,
    }


def _network(seed: int, shape: tuple[int, int, int] = SHAPE, **changes: Any) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    network = build_unet3d(shape, filters=2, stages=3, **changes)
    rng = np.random.default_rng(seed)
    # running means and variances that are not 0 and 1, and outputs away from 0.5
    network.set_weights(
        [w + rng.normal(0, 0.1, w.shape).astype(np.float32) for w in network.get_weights()]
    )
    return network


@pytest.fixture(scope='module')
def networks() -> list[Any]:
    return [_network(seed) for seed in range(3)]


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory, networks: list[Any]) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp('models') / 'tiny', networks, _metadata())


@pytest.fixture(scope='module')
def scan() -> NDArray[np.float32]:
    return np.random.default_rng(9).random((1, *SHAPE, 1), dtype=np.float32)


@pytest.fixture(scope='module')
def expected(networks: list[Any], scan: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([network.predict_on_batch(scan) for network in networks])


def test_engines_agree(
    bundle: Bundle, scan: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    assert expected.std() > 0.01
    assert np.ptp(expected.mean(axis=(1, 2, 3, 4, 5))) > 0.001
    bundle.verify()
    for engine in ('openvino', 'tensorflow'):
        ensemble = load_ensemble(bundle, engine, 'cpu', threads=2)
        assert ensemble.describe()['engine'] == engine
        result = ensemble.predict(scan)
        assert result.shape == (3, *scan.shape)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_memory_that_runs_out_in_tensorflow(
    bundle: Bundle,
    scan: NDArray[np.float32],
    expected: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow

    from shivacmb.models import engine_tensorflow

    failures = [1]
    predict = engine_tensorflow.TensorFlowEngine.predict

    def sometimes(self: Any, image: NDArray[np.float32]) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise tensorflow.errors.ResourceExhaustedError(None, None, 'OOM when allocating')
        return predict(self, image)

    monkeypatch.setattr(engine_tensorflow.TensorFlowEngine, 'predict', sometimes)
    ensemble = load_ensemble(bundle, 'tensorflow', 'cpu')
    np.testing.assert_allclose(ensemble.predict(scan), expected, atol=1e-5)
    assert ensemble.describe()['note'] == 'memory ran out on the CPU; ran on the CPU, fold by fold'
    failures[0] = 5
    with pytest.raises(TemporaryError, match='memory ran out while predicting on the CPU'):
        ensemble.predict(scan)


@pytest.mark.parametrize('kind', FORMATS)
def test_formats_agree(
    tmp_path: Path,
    networks: list[Any],
    scan: NDArray[np.float32],
    expected: NDArray[np.float32],
    kind: str,
) -> None:
    if kind == 'savedmodel':
        path = tmp_path / 'network'
        networks[0].export(str(path), verbose=False)
    elif kind == 'legacy-h5':
        path = tmp_path / 'network.h5'
        _save_legacy(path, networks[0])
    else:
        path = tmp_path / f'network.{kind}'
        networks[0].save(str(path))
    made = write_bundle(tmp_path / 'made', [path], _metadata(), openvino=False)
    assert made.folds[0].format == kind.removeprefix('legacy-')
    for engine in ('openvino', 'tensorflow'):
        result = load_ensemble(made, engine, 'cpu').predict(scan)
        np.testing.assert_allclose(result[0], expected[0], atol=1e-5, err_msg=engine)


def _save_legacy(path: Path, network: Any, policy: str = 'mixed_float16') -> None:
    """Write the network as Keras 2 did: HDF5, mixed precision, other layer classes."""
    import keras
    import tf_keras

    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        made: dict[str, Any] = {}
        for layer in network.layers:
            config = {
                key: layer.get_config()[key]
                for key in (
                    *('filters', 'kernel_size', 'padding', 'use_bias', 'activation'),
                    *('pool_size', 'size', 'cropping'),
                )
                if key in layer.get_config()
            }
            if isinstance(layer, keras.layers.InputLayer):
                made[layer.name] = tf_keras.Input(layer.batch_shape[1:])
                continue
            tensors = layer.input if isinstance(layer.input, list) else [layer.input]
            origins = [made[tensor._keras_history.operation.name] for tensor in tensors]
            kind = getattr(tf_keras.layers, type(layer).__name__)
            own = (
                kind(**config, dtype='float32') if layer is network.layers[-1] else kind(**config)
            )
            made[layer.name] = own(origins if len(origins) > 1 else origins[0])
        legacy = tf_keras.Model(made[network.layers[0].name], made[network.layers[-1].name])
        legacy.set_weights(network.get_weights())
        legacy.save(str(path))
    finally:
        tf_keras.mixed_precision.set_global_policy('float32')
    assert policy in legacy.to_json()


def test_softmax_keeps_its_background(tmp_path: Path, scan: NDArray[np.float32]) -> None:
    network = _network(4, classes=2, activation='softmax')
    made = write_bundle(tmp_path / 'soft', [network], _metadata())
    result = load_ensemble(made).predict(scan)
    np.testing.assert_allclose(result.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(made.foreground(result), result[..., 1:])
    np.testing.assert_allclose(result[0], network.predict_on_batch(scan), atol=1e-5)


def test_a_network_trained_on_patches_is_rebuilt(
    tmp_path: Path, scan: NDArray[np.float32]
) -> None:
    patch = _network(0, (8, 8, 8))
    made = write_bundle(tmp_path / 'patch', [patch], _metadata())
    full = _network(0)
    full.set_weights(patch.get_weights())
    np.testing.assert_allclose(
        load_ensemble(made).predict(scan)[0], full.predict_on_batch(scan), atol=1e-5
    )
    with pytest.raises(ModelError, match='only networks of the family "unet3d"'):
        write_bundle(tmp_path / 'no', [patch], _metadata(architecture={}))
    with pytest.raises(ModelError, match='is not the network of its "architecture"'):
        write_bundle(
            tmp_path / 'no',
            [patch],
            _metadata(architecture={'family': 'unet3d', 'filters': 4, 'stages': 3}),
        )
    assert sorted(item.name for item in tmp_path.iterdir()) == ['patch']


def test_writing_refuses(tmp_path: Path, networks: list[Any], bundle: Bundle) -> None:
    with pytest.raises(OutputError, match='exists; remove it first'):
        write_bundle(bundle.path, networks, _metadata())
    with pytest.raises(ModelError, match='needs at least one fold'):
        write_bundle(tmp_path / 'x', [], _metadata())
    (tmp_path / 'w.txt').write_text('')
    with pytest.raises(ModelError, match=r'w.txt> is no fold'):
        write_bundle(tmp_path / 'x', [tmp_path / 'w.txt'], _metadata())


def test_lambda_layers_load_only_when_trusted(tmp_path: Path, scan: NDArray[np.float32]) -> None:
    import keras
    import tf_keras

    for library, suffix in ((keras, 'keras'), (keras, 'h5'), (tf_keras, 'h5')):
        path = tmp_path / f'{library.__name__}.{suffix}'
        inputs = library.layers.Input((*SHAPE, 1))
        halved = library.layers.Lambda(lambda x: x / 2, output_shape=(*SHAPE, 1))(inputs)
        library.Model(inputs, halved).save(str(path))
        name = f'{library.__name__}-{suffix}'
        made = write_bundle(tmp_path / name, [path], _metadata(), openvino=False)
        for engine in ('openvino', 'tensorflow'):
            with pytest.raises(ModelError, match='carries code that would run when it is loaded'):
                load_ensemble(made, engine, 'cpu')
            result = load_ensemble(made, engine, 'cpu', trust_model=True).predict(scan)
            np.testing.assert_allclose(result[0], scan / 2, atol=1e-6)


def test_the_cache_is_used_and_checked(
    networks: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shivacmb.models.convert as convert

    made = write_bundle(tmp_path / 'made', networks[:1], _metadata(), openvino=False)
    calls: list[int] = []
    real = convert.convert_apart
    monkeypatch.setattr(
        convert, 'convert_apart', lambda *a, **k: (calls.append(1), real(*a, **k))[1]
    )
    first = convert.openvino_form(made, made.folds[0])
    assert convert.openvino_form(made, made.folds[0]) == first
    assert len(calls) == 1
    # damage in the cache is found and mended
    first.with_suffix('.bin').write_bytes(b'')
    assert convert.openvino_form(made, made.folds[0]) == first
    assert len(calls) == 2
    assert first.with_suffix('.bin').stat().st_size > 0
    # an altered fold is found though its converted form is cached
    made.fold_path(made.folds[0]).write_bytes(b'x')
    with pytest.raises(ModelError, match=r'is not the file that its model\.json describes'):
        convert.openvino_form(made, made.folds[0])


def test_a_cache_that_cannot_be_written(
    networks: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scan: NDArray[np.float32],
) -> None:
    blocked = tmp_path / 'file'
    blocked.write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(blocked))
    made = write_bundle(tmp_path / 'made', networks[:1], _metadata(), openvino=False)
    load_ensemble(made).predict(scan)
    assert 'cannot keep converted networks' in caplog.text


def test_conversion_in_a_process_of_its_own(
    networks: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import shivacmb.models.convert as convert

    made = write_bundle(tmp_path / 'made', networks[:1], _metadata(), openvino=False)
    monkeypatch.delitem(sys.modules, 'tensorflow')
    stem = tmp_path / 'apart'
    source = made.fold_path(made.folds[0])
    convert.convert_apart(source, 'keras', (*SHAPE, 1), stem, trust_model=False)
    assert (tmp_path / 'apart.xml').is_file()
    source.write_bytes(b'x')
    with pytest.raises(ModelError, match=r'cannot convert .*: .*is not a readable .keras file'):
        convert.convert_apart(source, 'keras', (*SHAPE, 1), stem, trust_model=False)


def test_exports_come_back(
    bundle: Bundle,
    tmp_path: Path,
    scan: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> None:
    folder = export_bundle(bundle, 'shivai', tmp_path / 'out')
    for name, kind in (('model_info', 'savedmodel'), ('model_info_keras', 'keras')):
        content = json.loads((folder / f'{name}.json').read_text())
        assert content['target'] == 'CMB'
        assert content['modalities'] == ['swi']
        # SHiVAi looks below its folder of models, and hashes what it finds
        for entry in content['files']:
            assert md5_of(tmp_path / 'out' / entry['name']) == entry['md5']
        installed = add_model(folder / f'{name}.json', name=name, models_dir=tmp_path / 'in')
        assert {fold.format for fold in installed.folds} == {kind}
        assert installed.grid.shape == SHAPE
        result = load_ensemble(installed, 'openvino').predict(scan)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    _check_for_shivai(bundle, folder)
    plain = export_bundle(bundle, 'savedmodel', tmp_path / 'plain')
    assert sorted(item.name for item in plain.iterdir()) == [
        f'fold-{index}.savedmodel' for index in range(3)
    ]
    with pytest.raises(OutputError, match='exists; remove it first'):
        export_bundle(bundle, 'savedmodel', tmp_path / 'plain')
    with pytest.raises(ModelError, match="there is no export 'onnx'"):
        export_bundle(bundle, 'onnx', tmp_path)


def _check_for_shivai(bundle: Bundle, folder: Path) -> None:
    import sys

    import tensorflow as tf

    from shivacmb.models.safety import keras_config

    # what SHiVAi calls
    signature = tf.saved_model.load(str(folder / 'fold-0.savedmodel')).signatures
    assert len(signature['serving_default'].structured_input_signature[1]) == 1
    # Keras 3.6, which SHiVAi pins, has no "optional" inputs and no "renorm"
    before = json.dumps(keras_config(bundle.path / 'fold-0.keras'))
    after = json.dumps(keras_config(folder / 'fold-0.keras'))
    # nor does the newest Keras for Python 3.10 know it
    assert '"optional"' in before or sys.version_info < (3, 11)
    assert '"optional"' not in after
    assert '"renorm"' not in after
    assert '"use_bias": false' in after


def test_messages_without_tensorflow(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    with pytest.raises(ModelError, match=r'engine "tensorflow" needs tensorflow .*\[tensorflow\]'):
        load_ensemble(bundle, 'tensorflow', 'cpu')


def test_no_gpu_where_none_is(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('shivacmb.models.engine_tensorflow.visible_gpus', lambda _: [])
    # it says nothing about the scan, and another node may have one
    with pytest.raises(TemporaryError, match=r'TensorFlow sees no GPU on .+; check `nvidia-smi`'):
        load_ensemble(bundle, 'tensorflow', 'gpu')


def test_load_after_reading_back(bundle: Bundle) -> None:
    assert load_bundle(bundle.path) == bundle
