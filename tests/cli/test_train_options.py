"""Options of the training that cannot be: a usage message, before any work."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from shivacmb.cli.tools import main
from shivacmb.cli.train import register, task_from
from shivacmb.models import find_bundle


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('--seed', '-1'),
        ('--seed', 'x'),
        ('--max-shift', '-1'),
        ('--max-rotation', '-3'),
        ('--max-rotation', 'nan'),
        ('--growth', '0'),
        ('--growth', 'inf'),
        ('--min-rate', 'nan'),
        ('--max-rate', '-1'),
        ('--decay', 'nan'),
        ('--max-minutes', 'nan'),
        ('--only-fold', '-1'),
    ],
)
def test_a_value_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(
            ['train', str(tmp_path), str(tmp_path), '-o', str(tmp_path / 'm'), f'{option}={value}']
        )
    assert left.value.code == 64
    said = capsys.readouterr().err
    assert f'argument {option}: expected' in said
    assert repr(value) in said


def test_masks_must_be_there_unless_the_scans_are_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def options(masks: Path, *more: str) -> list[str]:
        folders = [str(tmp_path / name) for name in ('raw', 'labels', 'm')]
        return ['train', *folders[:2], '-o', folders[2], *more, '-d', f'masks={masks}']

    gone = tmp_path / 'gone'
    assert main(options(gone)) == 64
    said = capsys.readouterr().err
    assert f'argument -d/--derivatives: no such folder: <{gone}> (expected NAME=PATH)' in said
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    assert task_from(parser.parse_args(options(tmp_path))).query.derivatives == {'masks': tmp_path}
    # the same options on another machine: the prepared scans are all that is asked for
    assert task_from(parser.parse_args(options(gone, '--from-pool'))).from_pool
    more = parser.parse_args(options(tmp_path, '-d', f'other={tmp_path}'))
    assert task_from(more).query.derivatives == {'other': tmp_path, 'masks': tmp_path}


def test_a_start_that_the_app_would_not_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(find_bundle('synth-cmb').path, tmp_path / 'thick')
    content = json.loads((folder / 'model.json').read_text())
    content['grid']['voxel_mm'] = [1.0, 1.0, 1.5]
    (folder / 'model.json').write_text(json.dumps(content))
    folders = [str(tmp_path / name) for name in ('raw', 'labels', 'm')]
    code = main(['train', *folders[:2], '-o', folders[2], '--init-from', str(folder)])
    assert code == 65
    assert 'only isotropic RAS grids are supported' in capsys.readouterr().err
