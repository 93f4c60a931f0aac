from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shivacmb.cli.models import EXPORTS, PRESETS, register
from shivacmb.exceptions import ModelError
from shivacmb.models import PRESET_NAMES
from shivacmb.models.checksums import sha256_of
from shivacmb.models.openvino_runtime import import_openvino


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(['models', *arguments])
    code: int = args.handler(args)
    return code


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle of one OpenVINO network, and keep the user's own models out."""
    monkeypatch.setenv('SHIVACMB_MODELS', str(tmp_path / 'models'))
    monkeypatch.setattr('shivacmb.models.install.require_safe', lambda *_, **__: None)
    monkeypatch.setattr('shivacmb.models.locate.SHIPPED', tmp_path / 'none')
    folder = tmp_path / 'source'
    folder.mkdir()
    (folder / 'fold-0.keras').write_bytes(b'fold')
    openvino = import_openvino()
    scan = openvino.opset13.parameter([1, 2, 2, 2, 1], openvino.Type.f32)
    model = openvino.Model(
        [openvino.opset13.multiply(scan, np.full((1, 1, 1, 1, 1), 0.5, np.float32))], [scan], 'm'
    )
    openvino.save_model(model, str(folder / 'fold-0.xml'), compress_to_fp16=False)
    content: dict[str, Any] = {
        'name': 'half',
        'version': '3',
        'license': 'CC0-1.0',
        'inputs': [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}],
        'grid': {'shape': [2, 2, 2]},
        'folds': [
            {
                'file': 'fold-0.keras',
                'format': 'keras',
                'sha256': sha256_of(folder / 'fold-0.keras'),
                'openvino': {
                    'file': 'fold-0.xml',
                    'sha256': sha256_of(folder / 'fold-0.xml'),
                    'weights_sha256': sha256_of(folder / 'fold-0.bin'),
                },
            }
        ],
    }
    (folder / 'model.json').write_text(json.dumps(content))
    return folder


def test_the_life_of_a_model(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run('list') == 0
    assert 'no models are installed' in capsys.readouterr().out
    assert run('add', str(source)) == 0
    out = capsys.readouterr().out
    assert "installed 'half'" in out
    assert 'CC0-1.0' in out
    assert sha256_of(source / 'fold-0.keras') in out
    assert run('list') == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:5] == ['half', '3', 'CMB', '1', 'CC0-1.0']
    assert run('show', 'half') == 0
    assert '2x2x2 voxels of 1x1x1 mm, RAS' in capsys.readouterr().out
    assert run('show', '--json', 'half') == 0
    assert json.loads(capsys.readouterr().out)['name'] == 'half'
    assert run('verify') == 0
    assert 'all files are as described (1 fold(s))' in capsys.readouterr().out
    assert run('remove', 'half') == 0
    assert run('list') == 0
    assert 'no models are installed' in capsys.readouterr().out


def test_verify_names_what_is_altered(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run('add', str(source))
    shutil.copytree(source, tmp_path / 'models' / 'good')
    (tmp_path / 'models' / 'half' / 'fold-0.bin').write_bytes(b'x')
    assert run('verify') == 65
    captured = capsys.readouterr()
    assert 'good: all files' in captured.out
    assert 'fold-0.bin> of model' in captured.err


def test_a_broken_model_does_not_hide_the_others(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run('add', str(source), '--models-dir', str(tmp_path / 'dir'))
    (tmp_path / 'dir' / 'bad').mkdir()
    (tmp_path / 'dir' / 'bad' / 'model.json').write_text('{')
    capsys.readouterr()
    assert run('list', '--models-dir', str(tmp_path / 'dir')) == 65
    captured = capsys.readouterr()
    assert 'half' in captured.out
    assert 'is not valid JSON' in captured.err


def test_what_cannot_be_read_does_not_hide_the_others(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run('add', str(source))
    for name in ('a-private', 'b-disk'):
        shutil.copytree(source, tmp_path / 'models' / name)
    is_file, opened = Path.is_file, Path.open

    def no_right(path: Path) -> bool:
        if path.parent.name == 'a-private':
            raise PermissionError(13, 'Permission denied', str(path))
        return is_file(path)

    def no_disk(path: Path, *mode: Any, **options: Any) -> Any:
        if path.parent.name == 'b-disk' and path.suffix == '.bin':
            raise OSError(5, 'Input/output error', str(path))
        return opened(path, *mode, **options)

    monkeypatch.setattr(Path, 'is_file', no_right)
    monkeypatch.setattr(Path, 'open', no_disk)
    capsys.readouterr()
    assert run('show', 'half') == 0
    assert run('list') == 65
    captured = capsys.readouterr()
    assert 'a-private: cannot read <' in captured.err
    assert 'model.json>: Permission denied; check its rights' in captured.err
    assert run('verify') == 65
    captured = capsys.readouterr()
    assert 'half: all files are as described' in captured.out
    assert 'a-private/model.json>: Permission denied' in captured.err
    assert "fold-0.bin> of model 'half': Input/output error; check its rights" in captured.err
    with pytest.raises(ModelError, match='Permission denied'):
        run('show', 'a-private')


def test_show_prints_training_and_metrics(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((source / 'model.json').read_text())
    content['training'] = {
        'data': 'ten scans',
        'shape': [2, 3],
        'axes': [[], [0, 1]],
        'recipe': {'steps': 4},
    }
    content['metrics'] = {'unseen': {'f1': 0.5, 'scans': 8}, 'folds': [{'f1': 1}], 'none': {}}
    (source / 'model.json').write_text(json.dumps(content))
    assert run('show', str(source)) == 0
    out = capsys.readouterr().out
    assert out.endswith(
        'training\n'
        '  data    ten scans\n'
        '  shape   2, 3\n'
        '  axes    [], [0, 1]\n'
        '  recipe\n'
        '    steps  4\n'
        'metrics\n'
        '  unseen\n'
        '    f1     0.5\n'
        '    scans  8\n'
        '  folds\n'
        '    0\n'
        '      f1  1\n'
        '  none    {}\n'
    )


def test_errors_reach_the_caller(source: Path) -> None:
    with pytest.raises(ModelError, match="there is no model 'x'"):
        run('show', 'x')


def test_an_export_that_fails_leaves_no_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ModelError('reading it needs tensorflow')

    monkeypatch.setattr('shivacmb.models.export.require_safe', lambda *_, **__: None)
    monkeypatch.setattr('shivacmb.models.export.load_network', fails)
    (tmp_path / 'mine').mkdir()
    for folder in ('new/below', 'mine/below', 'mine'):
        with pytest.raises(ModelError, match='needs tensorflow'):
            run('export', str(source), '--to', 'savedmodel', '-o', str(tmp_path / folder))
        assert not (tmp_path / 'new').exists()
        assert not list((tmp_path / 'mine').iterdir())


@pytest.mark.parametrize('arguments', [['add'], ['export', 'x', '--to', 'onnx', '-o', 'y'], []])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        run(*arguments)


def test_choices_are_those_of_the_library() -> None:
    from shivacmb.models.export import EXPORTS as KNOWN

    assert PRESETS == PRESET_NAMES
    assert EXPORTS == KNOWN


def test_the_parser_is_light() -> None:
    program = (
        'import sys, argparse; from shivacmb.cli.models import register; '
        'register(argparse.ArgumentParser().add_subparsers()); '
        'assert not {"numpy", "openvino", "tensorflow"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=300)
