"""The methods text says what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli.main import main


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ([], 'masked by the background of skull-stripped scans, and the built-in network for'),
        (['--mask', 'background'], 'masked by the background of the skull-stripped scans. '),
        (['--brain-mask', '/m/{stem}.nii'], 'by precomputed masks; scans without one were left'),
        (['--mask', 'builtin', '-d', 'x={tmp}'], 'by precomputed masks; scans without one were'),
    ],
)
def test_how_brains_were_masked(
    tmp_path: Path,
    spot_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    (tmp_path / 'dataset_description.json').write_text(
        json.dumps({'Name': 'test', 'BIDSVersion': '1.10.0'})
    )
    options = [option.replace('{tmp}', str(tmp_path)) for option in options]
    given = [str(tmp_path), str(tmp_path / 'derivatives' / 'out'), 'participant']
    code = main([*given, '--model', str(spot_bundle), '--boilerplate-only', *options])
    text = capsys.readouterr().out
    assert code == 0
    assert words in text
    assert ('built-in network. Images' in text or 'for the others' in text) == (not options)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ([], 'of at least 3 voxels were counted. '),
        (['--min-parenchyma', '0'], 'of at least 3 voxels were counted. '),
        (
            ['--min-parenchyma', '0.6'],
            'brain tissue (at least 60 % in T2*-GRE, 60 % in SWI; after Greenberg et al. 2009), '
            'and half as much of themselves; what lies within 8 mm of the pineal gland was not '
            'taken for brain tissue.',
        ),
    ],
)
def test_what_had_to_surround_a_lesion(
    tmp_path: Path,
    spot_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    given = [str(tmp_path), str(tmp_path / 'derivatives' / 'out'), 'participant']
    given += ['--model', str(spot_bundle), '--boilerplate-only', '--skip-bids-validation']
    assert main([*given, *options]) == 0
    text = capsys.readouterr().out
    assert words in text
    assert ('Lancet Neurol 2009;8:165-174' in text) == ('Greenberg' in words)
    assert main([*given, '--no-zones', '--min-parenchyma', '0.6']) == 64
    assert 'shivacmb: --min-parenchyma needs the zones; leave out --no-zones' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(('threshold', 'told'), [('0.5', True), ('0.3', False)])
def test_outlines_are_told_where_they_are_drawn(
    tmp_path: Path, make_spot_bundle: Any, capsys: pytest.CaptureFixture[str], threshold: str,
    *, told: bool,
) -> None:  # fmt: skip
    post = {'threshold': 0.6, 'outline_threshold': 0.3}
    folder = make_spot_bundle(tmp_path / 'model', postprocess=post)
    given = [str(tmp_path), str(tmp_path / 'derivatives' / 'out'), 'participant']
    given += ['--model', str(folder), '--boilerplate-only', '--skip-bids-validation']
    assert main([*given, '--threshold', threshold]) == 0
    text = capsys.readouterr().out
    assert (', and outlined down to a probability of 0.3. ' in text) == told
