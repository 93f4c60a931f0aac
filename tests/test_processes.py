"""Files of other processes are left behind only where that is certain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shivacmb import processes
from shivacmb.bids import remove_stale, remove_stale_locks, replacing, scan_lock
from shivacmb.interfaces.staging import Staging, remove_stale_staging, staging_folder
from shivacmb.reports.files import write_whole
from shivacmb.simulate.files import remove_stale_stages, staging

SWEEP = """
import sys
from pathlib import Path
from shivacmb.bids import remove_stale, remove_stale_locks
from shivacmb.interfaces.staging import remove_stale_staging
from shivacmb.simulate.files import remove_stale_stages

out = Path(sys.argv[1])
remove_stale(out)
remove_stale_locks(out)
remove_stale_staging(out / 'logs' / '.staging')
remove_stale_stages(out)
"""


def all_of(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob('*') if not path.is_dir())


def sweep(out: Path) -> None:
    remove_stale(out)
    remove_stale_locks(out)
    remove_stale_staging(out / 'logs' / '.staging')
    remove_stale_stages(out)


def write_half(out: Path) -> None:
    """Leave what a killed process leaves of everything that is written."""
    with (
        replacing(out / 'image.nii.gz') as temporary,
        scan_lock(out, 'sub-01'),
        Staging(staging_folder(out / 'logs' / '.staging', 'sub-01')) as staged,
        staging(out, 'sub-02') as stage,
    ):
        temporary.write_text('half')
        (staged.folder / '000_image.nii.gz').write_text('half')
        (stage / 'image.nii.gz').write_text('half')
        os._exit(0)


def left_by_a_killed_process(out: Path) -> list[str]:
    child = os.fork()
    if child == 0:
        write_half(out)
    os.waitpid(child, 0)
    left = all_of(out)
    assert len(left) == 4
    return left


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left_by_a_killed_process(tmp_path)
    sweep(tmp_path)
    assert all_of(tmp_path) == []


def test_process_that_nobody_has_reaped_has_ended(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        write_half(tmp_path)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        os.kill(child, 0)  # its number is still taken
        assert processes.has_ended(processes.machine(), child)
        sweep(tmp_path)
        assert all_of(tmp_path) == []
    finally:
        os.waitpid(child, 0)
    assert processes.is_alive(os.getpid())
    assert processes.is_alive(os.getppid())


def test_process_of_another_container_is_not_taken_for_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by_a_killed_process(tmp_path)
    monkeypatch.setattr(processes, 'namespace', lambda: '1')
    sweep(tmp_path)
    assert all_of(tmp_path) == left


@pytest.mark.parametrize(('hours', 'gone'), [(23, False), (25, True), (-25, False)])
def test_what_another_machine_left_is_removed_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, *, gone: bool
) -> None:
    left = left_by_a_killed_process(tmp_path)
    monkeypatch.setattr(processes, 'namespace', lambda: '1')
    then = time.time() - hours * 3600
    for path in sorted(tmp_path.rglob('*'), reverse=True):
        os.utime(path, (then, then), follow_symlinks=False)
    # this machine's clock is of no consequence: that of the file system stamps files
    monkeypatch.setattr('time.time', lambda: 0.0)
    sweep(tmp_path)
    assert all_of(tmp_path) == ([] if gone else left)


def test_a_folder_in_which_one_file_is_new_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_a_killed_process(tmp_path)
    monkeypatch.setattr(processes, 'namespace', lambda: '1')
    for path in sorted(tmp_path.rglob('*'), reverse=True):
        if path.name != '000_image.nii.gz':
            os.utime(path, (0, 0), follow_symlinks=False)
    sweep(tmp_path)
    [kept] = all_of(tmp_path)
    assert kept.endswith('000_image.nii.gz')


def test_what_this_process_writes_is_never_too_old(tmp_path: Path) -> None:
    with replacing(tmp_path / 'image') as temporary:
        temporary.touch()
        os.utime(temporary, (0, 0))
        sweep(tmp_path)
        assert temporary.exists()


def test_nothing_is_old_where_the_clock_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_by_a_killed_process(tmp_path)
    monkeypatch.setattr(processes, 'namespace', lambda: '1')

    def refused(**_: object) -> None:
        raise OSError(30, 'Read-only file system')

    for path in tmp_path.rglob('*'):
        os.utime(path, (0, 0), follow_symlinks=False)
    monkeypatch.setattr('tempfile.TemporaryFile', refused)
    sweep(tmp_path)
    assert all_of(tmp_path) == left


@pytest.mark.parametrize('number', ['4026531836', ''])
def test_every_name_tells_the_numbering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr(processes, 'namespace', lambda: number)
    monkeypatch.setattr('socket.gethostname', lambda: 'node_1')
    where = f'node1.{number}' if number else 'node1'
    assert processes.machine() == where
    who = f'{where}-{os.getpid()}'
    seen = []
    monkeypatch.setattr(Path, 'write_bytes', lambda path, _: seen.append(path) or path.touch())
    write_whole(tmp_path / 'page.html', b'')
    with replacing(tmp_path / 'image') as temporary:
        temporary.touch()
    with staging(tmp_path, 'sub-01') as stage:
        pass
    for path in (*seen, temporary, stage):
        assert path.name.startswith(f'.tmp-{who}-')
    assert staging_folder(tmp_path, 'sub-01').name.endswith(f'@{who}')
    with scan_lock(tmp_path, 'sub-01'):
        [lock] = tmp_path.rglob('*.lock')
        assert str(lock.readlink()).split()[:2] == [where, str(os.getpid())]


def test_numbering_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, '_NAMESPACE', tmp_path / 'absent')
    assert processes.namespace() == ''


def test_another_container_of_this_machine_leaves_files_alone(tmp_path: Path) -> None:
    apart = ['unshare', '--map-root-user', '--pid', '--fork', '--mount-proc']
    if shutil.which('unshare') is None:
        pytest.skip('no unshare')
    if subprocess.run([*apart, 'true'], capture_output=True, check=False).returncode:
        pytest.skip('process namespaces are not permitted here')
    with (
        replacing(tmp_path / 'image.nii.gz') as temporary,
        scan_lock(tmp_path, 'sub-01'),
        Staging(staging_folder(tmp_path / 'logs' / '.staging', 'sub-01')) as staged,
        staging(tmp_path, 'sub-02') as stage,
    ):
        for path in (temporary, staged.folder / 'image', stage / 'image'):
            path.write_text('half')
        mine = all_of(tmp_path)
        assert len(mine) == 4
        subprocess.run([*apart, sys.executable, '-c', SWEEP, str(tmp_path)], check=True)
        assert all_of(tmp_path) == mine
