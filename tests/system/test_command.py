"""What the commands answer without processing anything, and single files without BIDS."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system


@pytest.mark.parametrize('program', ['shivacmb', 'shivacmb-tools'])
@pytest.mark.parametrize('option', ['--version', '--help'])
def test_answers_without_heavy_imports(app: Any, program: str, option: str) -> None:
    """What would make the answer slow is known by name, whatever else the machine is doing."""
    done = app.run(option, program=program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    if option == '--version':
        assert re.fullmatch(r'shivacmb \d+\.\d+\S*\n', done.stdout)
    else:
        assert 'For research use only' in ' '.join(done.stdout.split())
    profiled = app.run(option, program=program, PYTHONPROFILEIMPORTTIME='1')
    imported = {line.rpartition('|')[2].strip() for line in profiled.stderr.splitlines()}
    assert 'shivacmb.cli.parser' in imported
    heavy = {'numpy', 'nibabel', 'scipy', 'pandas', 'nipype', 'openvino', 'tensorflow', 'bids'}
    assert not heavy & imported


def test_version_needs_no_network(app: Any) -> None:
    if shutil.which('unshare') is None:
        pytest.skip('no unshare')
    probe = subprocess.run(['unshare', '-rn', 'true'], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip('network namespaces are not permitted here')
    done = subprocess.run(
        ['unshare', '-rn', *app.command('--version')],
        env=app.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith('shivacmb ')


def test_unknown_level(app: Any, tools: Any) -> None:
    done = app.run(app.root, app.root / 'out', 'subject')
    assert done.returncode == 17
    assert tools.sentence(done.stderr) == (
        "shivacmb: unknown analysis level 'subject'; expected one of participant, group"
    )


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ((), 'required: bids_dir, out_dir, {participant,group}'),
        (('b', 'o', 'participant', '--treshold', '0.5'), 'unrecognized arguments: --treshold'),
        (('b', 'o', 'participant', '--threshold', '2'), "at most 1, got '2'"),
        (('b', 'o', 'participant', '--nprocs', '0'), "at least 1, got '0'"),
        (('b', 'o', 'participant', '--config-file', 'absent.toml'), 'no such file: <absent.toml>'),
        (('b', 'o', 'participant', '-d', 'masks=absent'), 'no such folder: <absent>'),
        (('b', 'o', 'participant', '--mask', 'guess'), "invalid choice: 'guess'"),
    ],
)
def test_usage(app: Any, arguments: tuple[str, ...], words: str) -> None:
    done = app.run(*arguments)
    assert done.returncode == 64
    assert words in done.stderr
    assert 'See shivacmb --help.' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--toolkit', 'fsl'), '--toolkit fsl: '),
        (('--mask', 'synthstrip'), 'the program mri_synthstrip is not on PATH'),
        (('--mask', 'hd-bet'), 'the program hd-bet is not on PATH'),
        (('--keep-work',), '--keep-work needs --work-dir'),
        (('--brain-mask', '/masks/{patient}.nii'), 'only {participant}, {session}, {stem}'),
    ],
)
def test_requests_that_cannot_be_met(
    app: Any, tools: Any, tmp_path: Path, arguments: Any, words: str
) -> None:
    root = tools.dataset(tmp_path / 'bids')
    tools.place(root, 'sub-01_T2starw')
    done = app.participant(root, tmp_path / 'out', *arguments, PATH='/usr/bin:/bin')
    assert done.returncode == 64, done.stderr
    assert words in tools.sentence(done.stderr)


def test_boilerplate_only(app: Any, tools: Any, tmp_path: Path) -> None:
    root = tools.dataset(tmp_path / 'bids')
    done = app.participant(root, tmp_path / 'out', '--boilerplate-only', '--threshold', '0.55')
    assert done.returncode == 0, done.stderr
    for words in ('# Methods', 'binarised at 0.55', '96 x 96 x 96 voxels', 'spots 1.0', 'CC0'):
        assert words in done.stdout
    assert not (tmp_path / 'out').exists()


def test_one_image_without_bids(app: Any, tools: Any, tmp_path: Path) -> None:
    image = tmp_path / 'my scan (2).nii.gz'
    tools.head().to_filename(image)
    out = tmp_path / 'out'
    done = app.run(
        'scan', image, '-o', out, '--model', app.bundle, '--nprocs', '1', program='shivacmb-tools'
    )
    assert done.returncode == 0, done.stderr
    assert '3 microbleed(s), class 1-3, ' in done.stdout
    assert 'For research use only.' in done.stdout
    record = json.loads((out / 'my scan (2)_record.json').read_text())
    assert (record['status'], record['cmb_count']) == ('ok', 3)
    assert len(tools.rows(out / 'my scan (2)_desc-CMB_dseg.tsv')) == 3
    tools.check_whole(out)
    assert app.temporary == []


def test_one_image_with_its_mask(app: Any, tools: Any, tmp_path: Path) -> None:
    import nibabel as nib
    import numpy as np

    head = tools.head()
    head.to_filename(tmp_path / 'scan.nii')
    inside = np.asarray(head.dataobj) > 0
    inside[:60] = False  # two of three spots lie in the other half
    nib.Nifti1Image(inside.astype(np.uint8), head.affine).to_filename(tmp_path / 'mask.nii')
    done = app.run(
        'scan', tmp_path / 'scan.nii', '-m', tmp_path / 'mask.nii', '-o', tmp_path / 'out',
        '--model', app.bundle, program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / 'out' / 'scan_record.json').read_text())
    assert record['brain_mask'] == 'given'
    assert record['cmb_count'] == 1


def test_one_broken_image(app: Any, tools: Any, tmp_path: Path) -> None:
    (tmp_path / 'scan.nii.gz').write_bytes(b'')
    done = app.run(
        'scan', tmp_path / 'scan.nii.gz', '-o', tmp_path / 'out', '--model', app.bundle,
        program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 65
    assert 'is empty (0 bytes)' in tools.sentence(done.stderr)
    assert [path for path in (tmp_path / 'out').rglob('*') if path.is_file()] == []


def test_an_image_of_labels_is_named(app: Any, tools: Any, tmp_path: Path) -> None:
    import nibabel as nib
    import numpy as np

    head = tools.head()
    labels = np.zeros(head.shape, np.uint8)
    labels[50:53, 50:53, 25:27] = 1
    nib.Nifti1Image(labels, head.affine).to_filename(tmp_path / 'labels.nii.gz')
    inside = (np.asarray(head.dataobj) > 0).astype(np.uint8)
    nib.Nifti1Image(inside, head.affine).to_filename(tmp_path / 'mask.nii.gz')
    done = app.run(
        'scan', tmp_path / 'labels.nii.gz', '-m', tmp_path / 'mask.nii.gz',
        '-o', tmp_path / 'out', '--model', app.bundle, program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 65
    assert tools.sentence(done.stderr).startswith(
        f'shivacmb: <{tmp_path}/labels.nii.gz>: The 99th percentile inside the brain mask is 0, '
    )


@pytest.mark.parametrize('how', ['participant', 'scan'])
def test_a_gpu_that_is_not_there_ends_a_run_before_it_begins(
    app: Any, tools: Any, tmp_path: Path, how: str
) -> None:
    bids = tools.dataset(tmp_path / 'bids')
    image = tools.place(bids, 'sub-01_T2starw')
    out = tmp_path / 'out'
    program = 'shivacmb-tools' if how == 'scan' else 'shivacmb'
    words = ('scan', image, '-o', out) if how == 'scan' else (bids, out, 'participant')
    done = app.run(
        *words, '--model', app.bundle, '--device', 'gpu', program=program, CUDA_VISIBLE_DEVICES=''
    )
    assert done.returncode == 75, done.stderr
    assert 'there is no GPU on ' in done.stderr
    assert 'check `nvidia-smi`' in done.stderr
    assert 'or use --device cpu' in done.stderr
    # no scan is said to have failed: nothing is wrong with it
    assert not [path for path in out.rglob('*') if 'sub-01' in path.name]
