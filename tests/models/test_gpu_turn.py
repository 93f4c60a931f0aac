"""Turns on a graphics card."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shivacmb.exceptions import TemporaryError, UsageError
from shivacmb.models import gpu_turn as module
from shivacmb.models.gpu_turn import card_of_this_process, gpu_turn, lock_path, wait_seconds

#: Adds 1 to a number in a file, slowly, so that two who do it at once lose a step.
COUNTER = """
import sys, time
from pathlib import Path
from shivacmb.models.gpu_turn import gpu_turn
path = Path(sys.argv[1])
for _ in range(20):
    with gpu_turn('gpu', 'card'):
        number = int(path.read_text())
        time.sleep(0.002)
        path.write_text(str(number + 1))
"""
HOLDER = """
import sys, time
from shivacmb.models.gpu_turn import gpu_turn
with gpu_turn('gpu', 'card'):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'locks').mkdir()
    monkeypatch.setenv('SHIVACMB_GPU_LOCKS', str(tmp_path / 'locks'))


@pytest.fixture
def holder() -> subprocess.Popen[str]:
    """Return a process that has the card and does not give it back."""
    process = subprocess.Popen([sys.executable, '-c', HOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.wait()


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / 'counter'
    counter.write_text('0')
    command = [sys.executable, '-c', COUNTER, str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == '60'


def test_who_waits_too_long_is_told(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SHIVACMB_GPU_WAIT', '0.2')
    start = time.monotonic()
    with (
        pytest.raises(
            TemporaryError, match=r'not free for 0\.2 s: other runs on it hold <.*lock>'
        ),
        gpu_turn('gpu', 'card'),
    ):
        pytest.fail('two hold the card')
    assert time.monotonic() - start < 10
    # another card and the processor are free
    with gpu_turn('gpu', 'other card'), gpu_turn('cpu', 'card'):
        pass


def test_a_killed_holder_gives_the_card_back(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SHIVACMB_GPU_WAIT', '10')
    holder.kill()
    holder.wait()
    with gpu_turn('gpu', 'card'):
        pass


def test_what_lies_in_the_way_does_not_stop_a_run(tmp_path: Path) -> None:
    target = tmp_path / 'of someone else'
    lock_path('link').symlink_to(target)
    os.mkfifo(lock_path('pipe'))
    for card in ('link', 'pipe'):
        with gpu_turn('gpu', card):
            pass
    assert not target.exists()


def test_waiting_time_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait_seconds() == 600
    monkeypatch.setenv('SHIVACMB_GPU_WAIT', '7.5')
    assert wait_seconds() == 7.5
    for wrong in ('soon', '-1', 'nan'):
        monkeypatch.setenv('SHIVACMB_GPU_WAIT', wrong)
        with pytest.raises(UsageError, match=f'SHIVACMB_GPU_WAIT must be .* not {wrong!r}'):
            wait_seconds()


class _Driver:
    """libcuda as seen through ctypes, for a process whose device 0 is card 7."""

    def __init__(self, started: int = 0) -> None:
        self.started = started

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.started

    def cuDeviceGet(self, _: object, ordinal: int) -> int:  # noqa: N802
        assert ordinal == 0
        return 0

    def cuDeviceGetUuid(self, pointer: object, _: object) -> int:  # noqa: N802
        pointer._obj[:] = [7] * 16  # type: ignore[attr-defined]
        return 0


def test_the_driver_names_the_card_not_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, 'CDLL', lambda _: _Driver())
    # both are the same card, whatever number the job sees it under
    for number in ('0', '3'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', number)
        assert card_of_this_process() == '07' * 16
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'MIG-1f2e,MIG-ffff')
    assert card_of_this_process() == 'MIG-1f2e'
    # a driver that does not start, and none at all
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-5,GPU-6')
    monkeypatch.setattr(ctypes, 'CDLL', lambda _: _Driver(started=100))
    assert card_of_this_process() == 'GPU-5'
    monkeypatch.undo()
    assert module._uuid_from_driver('libnothing.so') == ''


def test_the_lock_is_where_all_jobs_of_the_machine_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock_path('a').parent == tmp_path / 'locks'
    monkeypatch.delenv('SHIVACMB_GPU_LOCKS')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    assert lock_path('a').parent == Path('/tmp')
    assert lock_path('a') != lock_path('b')
