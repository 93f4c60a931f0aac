"""The FSL toolkit, with programs of the same names that do the same with this package's functions.

They write down how they were called: what real FSL makes of these command lines is compared voxel
for voxel in tests/imaging/test_fsl_golden.py.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

FAKES = {
    'fslreorient2std': """
from shivacmb.imaging import reorient_to_std
reorient_to_std(nib.load(sys.argv[1])).to_filename(sys.argv[2])
""",
    'flirt': """
from shivacmb.imaging import resample_isotropic
value = dict(zip(sys.argv, sys.argv[1:]))
image = resample_isotropic(nib.load(value['-in']), float(value['-applyisoxfm']))
image.to_filename(value['-out'])
open(value['-omat'], 'w').write(open(value['-init']).read())
""",
    'bet': """
import numpy as np
image = nib.load(sys.argv[1])
mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
nib.Nifti1Image(mask, image.affine).to_filename(sys.argv[2].replace('.nii', '_mask.nii'))
image.to_filename(sys.argv[2])
""",
}


@pytest.fixture(scope='module')
def fsl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder like $FSLDIR; ``calls`` gets a line for each call."""
    root = tmp_path_factory.mktemp('fsl')
    (root / 'bin').mkdir()
    (root / 'etc').mkdir()
    (root / 'etc' / 'fslversion').write_text('6.0.0-stand-in\n')
    for name, body in FAKES.items():
        path = root / 'bin' / name
        path.write_text(
            f'#!{sys.executable}\nimport json, os, sys\nimport nibabel as nib\n'
            f'with open({str(root / "calls")!r}, "a") as log:\n'
            f'    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + chr(10))\n{body}'
        )
        path.chmod(0o755)
    return root


def on_path(fsl: Path, app: Any) -> dict[str, str]:
    return {'FSLDIR': str(fsl), 'PATH': f'{fsl / "bin"}:{app.environment()["PATH"]}'}


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('fsl-data') / 'bids')
    # stored right to left and feet first, so that reorienting has something to do
    image = tools.head()
    tools.place(root, 'sub-01_T2starw', image.slicer[::-1, ::-1, ::-1])
    return root


@pytest.fixture(scope='module')
def outs(app: Any, bids: Path, fsl: Path) -> dict[str, Path]:
    """Run with FSL, found by itself, and with the built-in equivalent."""
    outs = {}
    for toolkit in ('auto', 'native'):
        outs[toolkit] = app.root / toolkit
        done = app.default(
            bids, outs[toolkit], '--toolkit', toolkit, '--mask', 'bet', **on_path(fsl, app)
        )
        assert done.returncode == 0, done.stderr
    return outs


def calls(fsl: Path) -> list[list[str]]:
    return [json.loads(line) for line in (fsl / 'calls').read_text().splitlines()]


def test_command_lines(outs: Any, fsl: Path) -> None:
    from shivacmb.workflows.preproc import IDENTITY

    reorient, flirt, bet, bet_of_native = calls(fsl)
    assert [reorient[0], *(Path(word).name for word in reorient[1:])] == [
        'fslreorient2std', 'checked.nii', 'checked_reoriented.nii',
    ]  # fmt: skip
    assert flirt[0] == 'flirt'
    value = dict(itertools.pairwise(flirt))
    assert value['-in'] == value['-ref'] == reorient[2]
    assert value['-applyisoxfm'] in ('1', '1.000000')
    assert value['-init'] == str(IDENTITY)
    assert '-noresampblur' in flirt
    assert set(flirt[1:]) - set(value.values()) | {
        '-in', '-ref', '-out', '-omat', '-applyisoxfm', '-init', '-noresampblur',
    } == {word for word in flirt if word.startswith('-')}  # fmt: skip
    assert bet[:2] == ['bet', value['-out']]
    assert bet[3:] == ['-m']
    assert bet_of_native[0] == 'bet'


def test_matrix_is_the_identity() -> None:
    import numpy as np

    from shivacmb.workflows.preproc import IDENTITY

    np.testing.assert_array_equal(np.loadtxt(IDENTITY), np.eye(4))


def test_same_results_as_the_native_toolkit(outs: Any, tools: Any) -> None:
    both = {name: tools.results(out) for name, out in outs.items()}
    images = {name for name in both['native'] if name.endswith(('.nii.gz', 'dseg.tsv'))}
    assert len(images) == 10
    for name in images:
        assert both['auto'][name] == both['native'][name], name


def test_record_says_which_toolkit(outs: Any, tools: Any) -> None:
    assert tools.scan_rows(outs['auto'])['sub-01']['toolkit'] == 'fsl'
    assert tools.scan_rows(outs['native'])['sub-01']['toolkit'] == 'native'
    sidecar = json.loads((outs['auto'] / 'sub-01/anat/sub-01_desc-CMB_dseg.json').read_text())
    assert '6.0.0-stand-in' in json.dumps(sidecar['Software'])
    (citation,) = (outs['auto'] / 'logs').glob('CITATION-*.md')
    assert 'fslreorient2std and FLIRT' in citation.read_text()


def test_program_that_fails(app: Any, tools: Any, bids: Path, fsl: Path, tmp_path: Path) -> None:
    """The scan fails with what the program said."""
    flirt = tmp_path / 'flirt'
    flirt.write_text('#!/bin/sh\necho "Image Exception : #22 :: ERROR: no memory" >&2\nexit 1\n')
    flirt.chmod(0o755)
    env = on_path(fsl, app)
    env['PATH'] = f'{tmp_path}:{env["PATH"]}'
    done = app.participant(bids, tmp_path / 'out', '--toolkit', 'fsl', **env)
    assert done.returncode == 65
    assert tools.sentence(done.stderr) == (
        'shivacmb: sub-01 failed: flirt failed: Image Exception : #22 :: ERROR: no memory; check '
        'its installation, or choose another --toolkit or --mask'
    )
    row = tools.scan_rows(tmp_path / 'out')['sub-01']
    assert row['status'] == 'failed'
    assert 'Image Exception' in row['reason']
