from __future__ import annotations

import json
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from shivacmb.exceptions import ModelError
from shivacmb.models import archives
from shivacmb.models.archives import unpack
from shivacmb.models.checksums import md5_of
from shivacmb.models.safety import code_in_config, require_safe

if TYPE_CHECKING:
    from pathlib import Path

_INPUT = {
    'module': 'keras.layers',
    'class_name': 'InputLayer',
    'config': {'batch_shape': [None, 4]},
    'registered_name': None,
}


def _layer(module: str | None, name: str, **config: Any) -> dict[str, Any]:
    return {'module': module, 'class_name': name, 'config': config, 'registered_name': None}


def _network(*layers: dict[str, Any]) -> dict[str, Any]:
    return {
        'module': 'keras',
        'class_name': 'Sequential',
        'config': {'layers': [_INPUT, *layers]},
        'registered_name': None,
    }


def _keras_file(path: Path, config: object) -> Path:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('config.json', json.dumps(config))
    return path


@pytest.mark.parametrize(
    'layer',
    [
        _layer('keras.layers', 'Conv3D', kernel_initializer=_layer('keras.initializers', 'Zeros')),
        _layer('keras.src.ops.numpy', 'Add', dtype='float32'),
        {'class_name': 'BatchNormalization', 'config': {'axis': [4]}},
        _layer('keras.layers', 'Dense', activation='relu'),
    ],
)
def test_building_blocks_pass(layer: dict[str, Any]) -> None:
    assert list(code_in_config(_network(layer))) == []


@pytest.mark.parametrize(
    ('layer', 'reason'),
    [
        (_layer('keras.layers', 'Lambda', function='x'), 'Lambda layer'),
        ({'class_name': 'Lambda', 'config': {}}, 'Lambda layer'),
        ({'class_name': 'TFOpLambda', 'config': {'function': 'io.write_file'}}, 'TFOpLambda'),
        (_layer('keras.layers', 'TFSMLayer', filepath='/x'), 'TFSMLayer'),
        (_layer('keras.layers', 'Dense', activation=_layer('os', 'system')), 'os.system'),
        (
            {'module': 'keras.utils', 'class_name': 'function', 'config': 'get_file'},
            'function keras.utils.get_file',
        ),
        (
            {'module': 'builtins', 'class_name': 'function', 'config': 'exec'},
            'function builtins.exec',
        ),
        ({'class_name': '__lambda__', 'config': {'code': 'x'}}, '__lambda__ layer'),
        (_layer('keras_evil', 'Dense'), 'keras_evil.Dense'),
        (_layer('keras.src.opsx', 'Dense'), 'keras.src.opsx.Dense'),
        (
            {'module': None, 'class_name': 'X', 'registered_name': 'pack>X', 'config': {}},
            'custom object pack>X',
        ),
    ],
)
def test_code_is_found_however_deep(tmp_path: Path, layer: dict[str, Any], reason: str) -> None:
    inner = _layer('keras.layers', 'TimeDistributed', layer=_network(layer))
    path = _keras_file(tmp_path / 'x.keras', _network(inner))
    with pytest.raises(ModelError, match=r'carries code that would run.*--trust-model') as caught:
        require_safe(path, 'keras')
    assert reason in str(caught.value)
    require_safe(path, 'keras', trust_model=True)


def test_a_file_of_two_formats_is_read_as_the_one_that_was_looked_into(tmp_path: Path) -> None:
    h5py = pytest.importorskip('h5py')
    path = tmp_path / 'x.keras'
    with h5py.File(path, 'w') as file:
        file.attrs['model_config'] = json.dumps(_network(_layer('keras.layers', 'Dense')))
    hidden = _keras_file(tmp_path / 'hidden', _network(_layer('os', 'system')))
    with path.open('ab') as stream:
        stream.write(hidden.read_bytes())
    with pytest.raises(ModelError, match=r"format 'h5'.* does not end in \.h5 or \.hdf5"):
        require_safe(path, 'h5')
    with pytest.raises(ModelError, match=r'os\.system'):
        require_safe(path, 'keras')
    path.rename(tmp_path / 'x.h5')
    require_safe(tmp_path / 'x.h5', 'h5')
    with pytest.raises(ModelError, match=r"format 'keras'.* does not end in \.keras"):
        require_safe(tmp_path / 'x.h5', 'keras')


def test_published_checksums_vouch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _keras_file(tmp_path / 'x.keras', _network(_layer('keras.layers', 'Lambda')))
    monkeypatch.setattr('shivacmb.models.safety.PUBLISHED_MD5', frozenset({md5_of(path)}))
    require_safe(path, 'keras')
    with path.open('ab') as stream:
        stream.write(b'\0')
    with pytest.raises(ModelError, match='carries code'):
        require_safe(path, 'keras')


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    path = tmp_path / 'x.keras'
    path.write_bytes(b'garbage')
    with pytest.raises(ModelError, match=r'x.keras> is not a readable .keras file'):
        require_safe(path, 'keras')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('other', '')
    with pytest.raises(ModelError, match=r'is not a readable \.keras file'):
        require_safe(path, 'keras')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('config.json', '{}')
        archive.writestr('../escape', '')
    with pytest.raises(ModelError, match='members that point out of the archive'):
        require_safe(path, 'keras')
    with pytest.raises(ModelError, match=r'is not a SavedModel: it has no saved_model.pb'):
        require_safe(tmp_path, 'savedmodel')


def _message(*fields: tuple[int, bytes]) -> bytes:
    """Length-delimited protobuf fields."""
    made = b''
    for number, content in fields:
        size, length = len(content), b''
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        made += bytes([number << 3 | 2]) + length + bytes([size]) + content
    return made


def _nodes(field: int, *operations: str) -> list[tuple[int, bytes]]:
    return [(field, _message((1, b'node'), (2, name.encode()))) for name in operations]


def _function(name: str, *operations: str, calls: str = '') -> tuple[int, bytes]:
    attribute = _message((1, b'f'), (2, _message((10, _message((1, calls.encode()))))))
    call = [(3, _message((2, b'PartitionedCall'), (5, attribute)))] if calls else []
    return 1, _message((1, _message((1, name.encode()))), *_nodes(3, *operations), *call)


def _savedmodel(
    folder: Path,
    *functions: tuple[int, bytes],
    graph: tuple[str, ...] = ('VarHandleOp', 'StatefulPartitionedCall'),
    objects: bytes | None = b'serve',
    graphs: int = 1,
) -> Path:
    folder.mkdir(exist_ok=True)
    definition = _message(*_nodes(1, *graph), (2, _message(*functions)))
    known = [] if objects is None else [(7, _message((1, objects)))]
    meta = _message((1, _message((5, b'serve'))), (2, definition), *known)
    schema = b'\x08\x01'
    (folder / 'saved_model.pb').write_bytes(schema + _message(*[(2, meta)] * graphs))
    return folder


NETWORK = _function('call', 'ReadVariableOp', 'Conv3D', 'BiasAdd', 'Relu', 'Sigmoid')
SAVER = _function('traced_save', 'StringJoin', 'ShardedFilename', 'SaveV2', 'MergeV2Checkpoints')


def test_a_graph_of_what_networks_need_passes(tmp_path: Path) -> None:
    require_safe(_savedmodel(tmp_path, NETWORK, SAVER), 'savedmodel')


@pytest.mark.parametrize(
    ('functions', 'changes', 'operation'),
    [
        ([_function('call', 'Conv3D', 'WriteFile')], {}, 'WriteFile'),
        ([_function('call', 'Conv3D', 'EagerPyFunc')], {}, 'EagerPyFunc'),
        ([_function('call', 'Conv3D', 'OfNextYear')], {}, 'OfNextYear'),
        ([_function('call', 'call')], {}, 'call'),
        ([NETWORK], {'graph': ('PrintV2',)}, 'PrintV2'),
        ([NETWORK, SAVER], {'graph': ('RestoreV2',)}, 'RestoreV2'),
        # the functions that write variables are for nobody but those who save a model
        ([_function('call', 'Conv3D', calls='traced_save'), SAVER], {}, 'SaveV2'),
        ([NETWORK, SAVER], {'objects': b'serve traced_save'}, 'SaveV2'),
        ([NETWORK, SAVER], {'objects': None}, 'SaveV2'),
        ([NETWORK, SAVER], {'graphs': 2}, 'SaveV2'),
        ([NETWORK, _function('traced_save', 'SaveV2', 'WriteFile')], {}, 'SaveV2, .*WriteFile'),
    ],
)
def test_a_graph_with_another_operation_loads_only_when_trusted(
    tmp_path: Path, functions: list[tuple[int, bytes]], changes: dict[str, Any], operation: str
) -> None:
    path = _savedmodel(tmp_path, *functions, **changes)
    with pytest.raises(ModelError, match=f'TensorFlow operation {operation}.*--trust-model'):
        require_safe(path, 'savedmodel')
    require_safe(path, 'savedmodel', trust_model=True)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'it holds no graph'),
        (b'\x12\x05ab', 'it ends within a field at byte 2'),
        (b'\x13', 'wire type 3 at byte 1'),
        (b'\x12' + b'\xff' * 12, 'no number at byte 11'),
    ],
)
def test_a_savedmodel_that_is_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / 'saved_model.pb').write_bytes(content)
    with pytest.raises(
        ModelError, match=f'saved_model.pb> is not a readable SavedModel: {message}'
    ):
        require_safe(tmp_path, 'savedmodel')


def _zip(path: Path, name: str, content: bytes = b'x', mode: int = 0) -> Path:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        member.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(member, content)
    return path


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    target = tmp_path / 'out'
    target.mkdir()
    unpack(_zip(tmp_path / 'x.zip', 'a/b', b'content'), target)
    assert (target / 'a' / 'b').read_bytes() == b'content'


@pytest.mark.parametrize(
    ('name', 'content', 'mode', 'message'),
    [
        ('../x', b'', 0, 'points out of it'),
        ('/tmp/x', b'', 0, 'points out of it'),
        ('x', b'/etc/passwd', stat.S_IFLNK | 0o777, 'a link or a special file'),
        ('x', b'\0' * 10_000_000, 0, 'would unpack to 1 files of 10 MB'),
    ],
)
def test_a_hostile_archive_leaves_nothing(
    tmp_path: Path, name: str, content: bytes, mode: int, message: str
) -> None:
    target = tmp_path / 'out' / 'in'
    target.mkdir(parents=True)
    with pytest.raises(ModelError, match=message):
        unpack(_zip(tmp_path / 'x.zip', name, content, mode), target)
    assert list((tmp_path / 'out').rglob('*')) == [target]


def test_an_archive_too_large_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / 'out'
    target.mkdir()
    path = _zip(tmp_path / 'x.zip', 'a', bytes(range(256)) * 4)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    (tmp_path / 'bad.zip').write_bytes(content)
    with pytest.raises(ModelError, match=r'(is not a readable zip file|cannot unpack)'):
        unpack(tmp_path / 'bad.zip', target)
    (tmp_path / 'no.zip').write_bytes(b'PK')
    with pytest.raises(ModelError, match='is not a readable zip file'):
        unpack(tmp_path / 'no.zip', target)
    monkeypatch.setattr(archives, 'MAX_BYTES', 100)
    with pytest.raises(ModelError, match='that is no model'):
        unpack(path, target)
