"""``shivacmb-tools simulate`` and ``detectability``, typed as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.system

#: Coarse voxels without vessels: the quickest subject there is.
QUICK = ('--voxel-size', '2', '2', '4', '--mimics', '0', '--contrasts', 'T2starw,swi',
         '--lesions', '3-6', '--seed', '11', '--radius', '2-3', '--chi', '1-2')  # fmt: skip


def checksums(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def problems(folder: Path) -> list[dict[str, Any]]:
    """Errors that the validator sees in a dataset and the derivatives in it."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name('bids-validator-deno')), str(folder), '-r', '--json'],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    report = json.loads(done.stdout)
    issues = report['issues']['issues']
    for inner in report.get('derivativesSummary', {}).values():
        issues += inner['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']


@pytest.mark.parametrize(
    ('options', 'code', 'message'),
    [
        (['--contrasts', 'T2starw,FLAIR'], 64, 'expected some of T2starw,phase,swi,Chimap,T2w'),
        (['--contrasts', ','], 64, 'expected some of'),
        (['--subjects', '0'], 64, 'at least 1'),
        (['--seed', '-1'], 64, 'at least 0'),
        (['--lesions', '9-2'], 64, 'a range such as 2-8'),
        (['--lesions', '5-500'], 64, 'lesions 5-500'),
        (['--radius', 'big'], 64, 'a range such as 0.5-2'),
        (['--radius', '2-90'], 64, 'radius in mm 2-90'),
        (['--chi', '0-1'], 64, 'susceptibility in ppm 0-1'),
        (['--lesion-free', '1.5'], 64, 'from 0 to 1'),
        (['--mimics', 'many'], 64, 'from 0 to 3'),
        (['--voxel-size', '1', '1', '99'], 64, 'voxel size (mm) 99 is not between 0.3 and 6'),
        (['--voxel-size', '1', '1'], 64, 'expected 3 arguments'),
        (['--field', '-3'], 64, 'field (T) -3'),
        (['--echo-time', '20', '10'], 64, 'echo times must rise'),
        (['--snr', 'nan'], 64, 'signal to noise nan'),
        (['--participant-label', '01'], 64, '--participant-label needs --into'),
        (['--into', '/no/such/dataset'], 16, '/no/such/dataset'),
        (['--into', '/no/such/dataset', '--subjects', '3'], 64, '--subjects means nothing'),
        (['--into', '/no/such/dataset', '--mimics', '0'], 64, '--mimics means nothing'),
        (['--modality', 'swi'], 64, '--modality needs --into'),
        (['--phase-sign', '-'], 64, '--phase-sign needs --into'),
        (['--lesions', '3', '--lesion-free', '0.5'], 64, '--lesion-free means nothing with --les'),
        (['--into', '/no/such/dataset', '--nprocs', '2'], 64, '--nprocs means nothing'),
        (['--into', '/no/such/dataset', '--echo-time', '9', '20'], 64, 'takes one value with'),
        (['--into', '/no/such/dataset', '--chi', '0-1'], 64, 'susceptibility in ppm 0-1'),
        (['--into', '/no/such/dataset', '--radius', '0'], 64, 'radius in mm 0-0'),
    ],
)  # fmt: skip
def test_bad_options_end_in_one_sentence(
    tools_main: Any, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    out = tmp_path / 'out'
    done = tools_main('simulate', out, *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not out.exists()


def test_a_folder_of_something_else_is_left_alone(app: Any, tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('years of work')
    done = app.run('simulate', tmp_path, '--subjects', '1', program='shivacmb-tools')
    assert done.returncode == 64
    assert 'is not empty; give a new folder' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_a_folder_that_cannot_be_made_is_named(app: Any, tmp_path: Path) -> None:
    locked = tmp_path / 'locked'
    locked.mkdir(mode=0o500)
    # root may write everywhere but where the kernel lists processes
    target = (Path('/proc') if os.geteuid() == 0 else locked) / 'shivacmb-out'
    done = app.run('simulate', target, '--subjects', '1', program='shivacmb-tools')
    assert done.returncode == 73, done.stderr
    assert f'<{target}' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_a_dataset_is_valid_resumes_and_repeats(
    app: Any, tools: Any, tmp_path: Path, ended: list[Any]
) -> None:
    out = tmp_path / 'out'
    # killed on the way: nothing half-written is taken for a subject
    running = tools.start(
        app, 'simulate', out, '--subjects', '2', *QUICK, program='shivacmb-tools'
    )
    ended.append(running)
    deadline = time.monotonic() + 390
    while not (out / 'sub-001').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    assert (out / 'sub-001').is_dir()
    first = checksums(out / 'sub-001')

    done = app.run('simulate', out, '--subjects', '2', *QUICK, program='shivacmb-tools')
    assert done.returncode == 0, done.stderr
    assert '1 subject(s) simulated, 1 were there' in done.stdout
    assert checksums(out / 'sub-001') == first
    assert not list(out.glob('.tmp-*'))
    assert problems(out) == []
    for table in out.rglob('*.tsv'):
        described = json.loads(table.with_suffix('.json').read_text())
        assert set(table.read_text().split('\n')[0].split('\t')) <= set(described), table
    people = tools.rows(out / 'participants.tsv')
    assert [row['participant_id'] for row in people] == ['sub-001', 'sub-002']
    for row in people:
        folder = out / 'derivatives' / 'truth' / row['participant_id'] / 'anat'
        stem = row['participant_id']
        table = tools.rows(folder / f'{stem}_desc-CMB_dseg.tsv')
        assert len(table) == int(row['lesions'])
        assert sum(line['visible'] == 'true' for line in table) == int(row['visible_lesions'])
        labels = nib.load(folder / f'{stem}_desc-CMB_dseg.nii.gz')
        image = nib.load(out / stem / 'anat' / f'{stem}_T2starw.nii.gz')
        np.testing.assert_allclose(labels.affine, image.affine)
        seen = {int(line['index']) for line in table if line['visible'] == 'true'}
        assert set(np.unique(np.asarray(labels.dataobj))) - {0} == seen

    # in two processes, from nothing: the same bytes
    twin = tmp_path / 'twin'
    done = app.run(
        'simulate', twin, '--subjects', '2', '--nprocs', '2', *QUICK, program='shivacmb-tools'
    )
    assert done.returncode == 0, done.stderr
    assert checksums(twin) == checksums(out)

    # the same folder with another seed
    done = app.run('simulate', out, '--subjects', '2', '--seed', '12', program='shivacmb-tools')
    assert done.returncode == 64
    assert 'other settings' in done.stderr


@pytest.fixture(scope='module')
def scans(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms without lesions; the head without a skull is its own mask."""
    root = tools.dataset(tmp_path_factory.mktemp('own') / 'bids')
    for name in ('01', '02'):
        tools.place(
            root, f'sub-{name}_T2starw', tools.head(spots=(), seed=int(name)),
            EchoTime=0.02, MagneticFieldStrength=3,
        )  # fmt: skip
    return root


def test_lesions_are_implanted_and_then_found(
    app: Any, tools: Any, scans: Path, tmp_path: Path
) -> None:
    before = checksums(scans)
    out = tmp_path / 'out'
    done = app.run(
        'simulate', out, '--into', scans, '--lesions', '4', '--radius', '4-4.5', '--chi', '2-2.4',
        program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '2 scan(s) written' in done.stdout
    assert checksums(scans) == before
    assert problems(out) == []
    found = app.participant(out, tmp_path / 'found')
    assert found.returncode == 0, found.stderr
    for name in ('sub-01', 'sub-02'):
        truth = tools.rows(out / f'derivatives/truth/{name}/anat/{name}_desc-CMB_dseg.tsv')
        table = tools.rows(tmp_path / f'found/{name}/anat/{name}_desc-CMB_dseg.tsv')
        assert len(truth) == 4
        spots = np.array([[float(row[axis]) for axis in 'xyz'] for row in table])
        for row in truth:
            centre = [float(row[axis]) for axis in 'xyz']
            assert np.linalg.norm(spots - centre, axis=1).min() < 4


def test_a_resumed_run_in_which_one_scan_fails_ends_with_1(
    app: Any, tools: Any, tmp_path: Path
) -> None:
    root, out = tools.dataset(tmp_path / 'bids'), tmp_path / 'out'
    for name in ('01', '02'):
        tools.place(
            root, f'sub-{name}_T2starw', tools.head(spots=(), seed=int(name)),
            EchoTime=0.02, MagneticFieldStrength=3,
        )  # fmt: skip
    (path,) = (root / 'sub-02' / 'anat').glob('*.nii*')
    path.write_bytes(b'no image')
    options = ('simulate', out, '--into', root, '--lesions', '1')
    for text in ('1 scan(s) written', '0 scan(s) written'):
        done = app.run(*options, program='shivacmb-tools')
        assert done.returncode == 1, done.stderr
        assert text in done.stdout
    assert '1 were there, 1 failed' in done.stdout
    # alone, the failure has its own code
    done = app.run(
        'simulate', tmp_path / 'alone', '--into', root, '--lesions', '1',
        '--participant-label', '02', program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 65, done.stderr


def test_detectability_rises_with_size(app: Any, tools: Any, scans: Path, tmp_path: Path) -> None:
    before = checksums(scans)
    out = tmp_path / 'out'
    options = ('detectability', scans, '-o', out, '--model', app.bundle, '--radii', '0.3', '2.2',
               '--chi', '2', '--repeats', '2')  # fmt: skip
    done = app.run(*options, program='shivacmb-tools')
    assert done.returncode == 0, done.stderr
    assert checksums(scans) == before
    rows = tools.rows(out / 'detectability.tsv')
    assert [int(row['implanted']) for row in rows] == [4, 4]
    assert int(rows[0]['found']) < int(rows[1]['found'])
    assert float(rows[1]['ci_low']) < float(rows[1]['sensitivity'])
    assert rows[0]['protocol'] == 'T2starw 3 T, TE 20 ms, 1x1x2 mm'
    (plot,) = out.glob('*.png')
    assert plot.read_bytes()[:4] == b'\x89PNG'
    # finished scans are not tried again
    written = {path: path.stat().st_mtime_ns for path in (out / 'scans').iterdir()}
    assert len(written) == 2
    assert app.run(*options, program='shivacmb-tools').returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (out / 'scans').iterdir()} == written
    assert tools.rows(out / 'detectability.tsv') == rows
    # another rule is another detector
    ruled = app.run(*options, '--min-parenchyma', '0.5', program='shivacmb-tools')
    assert ruled.returncode == 0, ruled.stderr
    assert '0.5 of tissue around' in ruled.stdout
    assert all(path.stat().st_mtime_ns > written[path] for path in (out / 'scans').iterdir())


@pytest.mark.parametrize(
    ('options', 'code', 'message'),
    [
        (['--radii', '2', '1'], 64, 'smallest first'),
        (['--chi', '99'], 64, 'susceptibility in ppm'),
        (['--repeats', '0'], 64, 'at least 1'),
        (['--min-parenchyma', '2'], 64, '--min-parenchyma'),
        (['--model', 'no-such-model'], 65, 'no-such-model'),
        (['--field', '99'], 64, 'a field of 99 T'),
        (['--participant-label', '77'], 66, 'no T2*-GRE or SWI scan'),
    ],
)
def test_bad_grids_end_in_one_sentence(
    app: Any,
    tools_main: Any,
    scans: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    model = [] if '--model' in options else ['--model', str(app.bundle)]
    done = tools_main('detectability', scans, '-o', tmp_path / 'out', *model, *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
