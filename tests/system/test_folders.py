"""Datasets and output folders that cannot be used."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('folders') / 'bids')
    tools.place(root, 'sub-01_T2starw')
    return root


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """Return a mounter for tests; skips where mounting is not permitted."""
    mounted: list[Path] = []

    def do(folder: Path, *arguments: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        program = shutil.which('mount')
        if os.geteuid() != 0 or program is None:
            pytest.skip('mounting needs root')
        done = subprocess.run(
            [program, *arguments, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f'mounting is not permitted here: {done.stderr.strip()}')
        mounted.append(folder)
        return folder

    yield do
    for folder in reversed(mounted):
        subprocess.run(['umount', str(folder)], check=True)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def refused(done: Any, code: int, tools: Any, *words: str) -> None:
    assert done.returncode == code, done.stderr
    said = tools.sentence(done.stderr)
    for word in words:
        assert word in said
    assert done.stdout == ''


def test_missing_dataset(app: Any, tools: Any) -> None:
    done = app.participant(app.root / 'absent', app.root / 'out')
    refused(done, 16, tools, 'no such dataset', 'absent>', 'bind its folder')
    assert not (app.root / 'out').exists()


def test_missing_description(app: Any, tools: Any, tmp_path: Path) -> None:
    root = tools.dataset(tmp_path / 'bids', description=False)
    tools.place(root, 'sub-01_T2starw')
    done = app.participant(root, tmp_path / 'out')
    refused(done, 16, tools, 'dataset_description.json> is missing', '--skip-bids-validation')
    assert not (tmp_path / 'out').exists()
    again = app.participant(root, tmp_path / 'out', '--skip-bids-validation', '--dry-run')
    assert again.returncode == 0, again.stderr


def test_no_participants(app: Any, tools: Any, tmp_path: Path) -> None:
    done = app.participant(tools.dataset(tmp_path / 'bids'), tmp_path / 'out')
    refused(done, 16, tools, 'no sub-* folder', 'give the root')


def test_absent_participant(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    done = app.participant(bids, tmp_path / 'out', '--participant-label', '99')
    assert done.returncode == 66
    assert tools.sentence(done.stderr) == f'shivacmb: no sub-99 in <{bids}>'
    # no table without a row
    assert not done.stdout.strip()
    shown = app.participant(bids, tmp_path / 'out', '--dry-run', '--participant-label', '99')
    assert shown.returncode == 66
    assert f'no sub-99 in <{bids}>' in shown.stdout
    assert 'without a usable scan' not in shown.stdout


def test_absent_participant_beside_one_that_is_there(
    app: Any, tools: Any, bids: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    done = app.participant(bids, out, '--participant-label', 'sub-01', '99')
    assert done.returncode == 66
    assert f'no sub-99 in <{bids}>' in tools.sentence(done.stderr)
    assert tools.scan_rows(out)['sub-01']['status'] == 'ok'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('--session-label', '7'), ('--session-label', 'relax')),
        (('--modality', 'swi'), ('contrast T2starw', '--modality')),
        (('--exclude-participant-label', '01'), ('removes all',)),
    ],
)
def test_filters_that_select_nothing(
    app: Any, tools: Any, bids: Path, tmp_path: Path, arguments: Any, words: Any
) -> None:
    refused(app.participant(bids, tmp_path / 'out', *arguments), 18, tools, *words)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('where', ['.', 'results', 'sub-01', '..'])
def test_output_that_would_mix_with_raw_data(app: Any, tools: Any, bids: Path, where: str) -> None:
    before = listing(bids)
    out = bids if where == '.' else bids / where
    refused(app.participant(bids, out), 64, tools, 'OUT_DIR', 'choose', str(bids))
    assert listing(bids) == before


def test_link_to_the_dataset_as_output(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to(bids)
    refused(app.participant(bids, tmp_path / 'link'), 64, tools, 'OUT_DIR is BIDS_DIR')


@pytest.mark.parametrize(
    'description',
    [
        '{"Name": "raw", "BIDSVersion": "1.10.0", "DatasetType": "raw"}',
        '{"Name": "masks", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}',
        'not JSON',
    ],
)
def test_output_in_the_dataset_of_another_program(
    app: Any, tools: Any, bids: Path, tmp_path: Path, description: str
) -> None:
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'dataset_description.json').write_text(description)
    for extra in ((), ('--dry-run',)):
        done = app.participant(bids, other, *extra)
        refused(done, 64, tools, 'that shivacmb did not make', 'are swapped')
    assert listing(other) == ['dataset_description.json']
    assert (other / 'dataset_description.json').read_text() == description


def test_work_folder_inside_the_dataset(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    done = app.participant(bids, tmp_path / 'out', '-w', bids / 'work')
    refused(done, 64, tools, 'work folder', 'choose another')


def test_output_in_derivatives_is_accepted(app: Any, tools: Any, tmp_path: Path) -> None:
    root = tools.dataset(tmp_path / 'bids')
    tools.place(root, 'sub-01_T2starw')
    out = root / 'derivatives' / 'shivacmb'
    done = app.participant(root, out, '-q')
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ''
    assert tools.scan_rows(out)['sub-01']['cmb_count'] == '3'


def test_file_in_place_of_the_output(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    (tmp_path / 'out').write_text('mine')
    done = app.participant(bids, tmp_path / 'out')
    refused(done, 73, tools, 'cannot write to OUT_DIR', 'choose a folder')
    assert (tmp_path / 'out').read_text() == 'mine'


def test_read_only_output(app: Any, tools: Any, bids: Path, tmp_path: Path, mount: Any) -> None:
    out = mount(tmp_path / 'out', '-t', 'tmpfs', '-o', 'ro', 'tmpfs')
    refused(app.participant(bids, out), 73, tools, f'cannot write to OUT_DIR <{out}>', 'Read-only')


def test_read_only_dataset(app: Any, tools: Any, bids: Path, tmp_path: Path, mount: Any) -> None:
    source = mount(tmp_path / 'bids', '-o', 'bind,ro', str(bids))
    with contextlib.suppress(OSError):
        (source / 'probe').touch()
        pytest.skip('this kernel does not make bind mounts read-only in one step')
    done = app.participant(source, tmp_path / 'out')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('size', ['64k', '400k', '900k'])
def test_full_disk(
    app: Any, tools: Any, bids: Path, tmp_path: Path, mount: Any, size: str
) -> None:
    """The disk fills while the first files, the images, or the pictures are written."""
    out = mount(tmp_path / 'out', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs')
    done = app.participant(bids, out)
    assert done.returncode == 73, done.stderr
    assert 'Traceback' not in done.stderr
    assert 'No space left on device' in done.stderr
    tools.check_whole(out)
    record = out / 'logs' / 'sub-01' / 'sub-01.json'
    assert not record.exists() or '"status": "failed"' in record.read_text()
    assert app.temporary == []


def test_full_disk_for_temporary_files(
    own_app: Any, tools: Any, bids: Path, tmp_path: Path, mount: Any
) -> None:
    small = mount(tmp_path / 'small', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs')
    done = own_app.participant(bids, tmp_path / 'out', TMPDIR=str(small))
    assert done.returncode == 73, done.stderr
    assert 'No space left on device' in tools.sentence(done.stderr)
    tools.check_whole(tmp_path / 'out')
    assert list(small.iterdir()) == []
