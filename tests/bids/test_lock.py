"""The lock of a scan."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shivacmb.bids import lock, remove_stale, remove_stale_locks, scan_lock
from shivacmb.exceptions import OutputError, TemporaryError
from shivacmb.processes import machine


def add_one(out: Path, times: int) -> None:
    """Read, wait, write: loses counts unless nobody else is in between."""
    counter = out / 'counter.json'
    for _ in range(times):
        with scan_lock(out, 'sub-01'):
            value = json.loads(counter.read_text())
            time.sleep(0.002)
            counter.write_text(json.dumps(value + 1))


def test_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / 'counter.json').write_text('0')
    context = multiprocessing.get_context('fork')
    workers = [context.Process(target=add_one, args=(tmp_path, 15)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert json.loads((tmp_path / 'counter.json').read_text()) == 60
    assert [path.name for path in tmp_path.iterdir() if path.name != 'logs'] == ['counter.json']
    assert list((tmp_path / 'logs').iterdir()) == []


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                          capture_output=True, text=True, check=True)  # fmt: skip
    path = lock.lock_path(tmp_path, 'sub-01')
    path.parent.mkdir(parents=True)
    path.write_text(f'{machine()} {dead.stdout.strip()} 0011')
    with scan_lock(tmp_path, 'sub-01'):
        assert str(path.readlink()).split()[1] == str(os.getpid())
    path.parent.mkdir(parents=True)
    path.write_text(f'{machine()} {dead.stdout.strip()} 0011')
    other = path.with_name('sub-02.lock')
    other.write_text('elsewhere 1 0011')
    remove_stale_locks(tmp_path)
    assert not path.exists()
    assert other.exists()


@pytest.mark.parametrize('content', ['elsewhere 1 0011', ''])
def test_lock_of_another_machine_is_waited_for_and_then_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(lock, 'LEFT_BEHIND_S', 0.5)
    path = lock.lock_path(tmp_path, 'sub-01')
    path.parent.mkdir(parents=True)
    path.write_text(content)
    os.utime(path, (4e9, 4e9))  # its clock is of no consequence
    began = time.monotonic()
    with scan_lock(tmp_path, 'sub-01'):
        assert time.monotonic() - began >= 0.5


def test_process_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, 'LEFT_BEHIND_S', 0.2)
    path = lock.lock_path(tmp_path, 'sub-01')
    path.parent.mkdir(parents=True)
    path.write_text(f'{machine()} {os.getpid()} 0011')
    with (
        pytest.raises(TemporaryError, match=rf'process {os.getpid()} of this machine'),
        scan_lock(tmp_path, 'sub-01'),
    ):
        pass
    assert path.exists()


@pytest.mark.parametrize('links', [None, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP])
def test_file_systems_with_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: int | None
) -> None:
    def refused(*_: object) -> None:
        raise OSError(links, os.strerror(links))

    if links is not None:
        monkeypatch.setattr(Path, 'symlink_to', refused)
    path = lock.lock_path(tmp_path, 'sub-01')
    monkeypatch.setattr(lock, 'LEFT_BEHIND_S', 0.2)
    with scan_lock(tmp_path, 'sub-01'):
        assert path.is_symlink() == (links is None)
        remove_stale_locks(tmp_path)
        with pytest.raises(TemporaryError), scan_lock(tmp_path, 'sub-01'):
            pass
        assert os.path.lexists(path)
    assert not os.path.lexists(path)
    child = os.fork()
    if child == 0:
        with scan_lock(tmp_path, 'sub-01'):
            os._exit(0)
    os.waitpid(child, 0)
    assert os.path.lexists(path)
    remove_stale_locks(tmp_path)
    assert not os.path.lexists(path)


def test_file_server_whose_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks again, and is told that the link is there."""
    make = Path.symlink_to

    def twice(path: Path, target: str) -> None:
        make(path, target)
        make(path, target)

    monkeypatch.setattr(Path, 'symlink_to', twice)
    began = time.monotonic()
    with scan_lock(tmp_path, 'sub-01'):
        assert time.monotonic() - began < lock.LEFT_BEHIND_S / 2
    assert not list(tmp_path.rglob('*.lock'))


@pytest.mark.parametrize('name', ['sub-01.lock', f'.tmp-elsewhere-1-{"0" * 8}-sub-01.lock'])
def test_what_nobody_owns_goes_after_a_day(tmp_path: Path, name: str) -> None:
    path = lock.lock_path(tmp_path, 'sub-01').with_name(name)
    path.parent.mkdir(parents=True)
    path.touch()
    remove_stale_locks(tmp_path)
    remove_stale(path.parent)
    assert path.exists()
    os.utime(path, (0, 0))
    remove_stale_locks(tmp_path)
    remove_stale(path.parent)
    assert not path.exists()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'logs').write_text('in the way')
    with pytest.raises(OutputError, match='cannot write'), scan_lock(tmp_path, 'sub-01'):
        pass
