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
            'and half as much of themselves. What lies within 8 mm of the pineal gland was not '
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
    assert main([*given, '--threshold', threshold, '--min-parenchyma', '0.6']) == 0
    text = capsys.readouterr().out
    # a sentence of its own: the one before it is about the pineal gland
    said = 'tissue. What was counted was outlined down to a probability of 0.3. Each lesion was '
    assert (said in text) == told


@pytest.mark.parametrize(
    ('method', 'program', 'cited', 'reference'),
    [
        ('bet', 'bet', 'BET (Smith 2002)', 'Smith SM. Fast robust automated brain extraction. '),
        ('synthstrip', 'mri_synthstrip', '(Hoopes et al. 2022)', 'Hoopes A, et al. SynthStrip: '),
        ('hd-bet', 'hd-bet', '(Isensee et al. 2019)', 'Isensee F, et al. Automated brain extr'),
    ],
)
def test_programs_of_masks_are_cited_and_listed(
    tmp_path: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, method: str, program: str, cited: str, reference: str,
) -> None:  # fmt: skip
    (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    given = [str(tmp_path), str(tmp_path / 'derivatives' / 'out'), 'participant', '--mask', method]
    given += ['--model', str(spot_bundle), '--boilerplate-only', '--skip-bids-validation']
    assert main(given) == 0
    text, references = capsys.readouterr().out.split('# References')
    assert cited in text
    assert f'- {reference}' in references
    # given masks are made by none of them
    assert main([*given, '--brain-mask', '/m/{stem}.nii']) == 0
    text = capsys.readouterr().out
    assert cited not in text
    assert reference not in text


@pytest.mark.parametrize('masked', [True, False])
def test_what_lies_outside_the_brain_is_told(
    tmp_path: Path, make_spot_bundle: Any, capsys: pytest.CaptureFixture[str], *, masked: bool
) -> None:
    folder = make_spot_bundle(tmp_path / 'model')
    described = json.loads((folder / 'model.json').read_text())
    described['intensity']['masked'] = masked
    (folder / 'model.json').write_text(json.dumps(described))
    given = [str(tmp_path), str(tmp_path / 'derivatives' / 'out'), 'participant']
    given += ['--model', str(folder), '--boilerplate-only', '--skip-bids-validation']
    assert main(given) == 0
    text = capsys.readouterr().out
    assert (', and what lies outside the mask was set to 0. Prob' in text) == masked
