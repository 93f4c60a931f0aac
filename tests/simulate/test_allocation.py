"""Memory is kept for the next array."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shivacmb.cli.tools import main
from shivacmb.simulate import allocation, bids_dataset
from shivacmb.simulate.allocation import keep_freed_memory
from shivacmb.train import pool

PROGRAM = """
import os, sys
import numpy as np
from shivacmb.simulate.allocation import keep_freed_memory

def resident_mb():
    with open('/proc/self/statm') as stream:
        return int(stream.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

if sys.argv[1] == 'keep':
    assert keep_freed_memory()
before = resident_mb()
array = np.ones(200_000_000, np.uint8)
assert resident_mb() > before + 190
del array
print(resident_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
@pytest.mark.parametrize(('how', 'kept'), [('keep', True), ('as usual', False)])
def test_a_freed_array_stays_with_the_process(how: str, *, kept: bool) -> None:
    plain = {
        name: value for name, value in os.environ.items()
        if not name.startswith('MALLOC_') and name != 'GLIBC_TUNABLES'
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, how], env=plain, capture_output=True, text=True, check=True
    )
    assert (float(done.stdout) > 190) == kept


@pytest.mark.parametrize('library', [object(), None])
def test_other_systems_go_on_without(
    monkeypatch: pytest.MonkeyPatch, library: object | None
) -> None:
    def load(_: object) -> object:
        if library is None:
            raise OSError
        return library

    monkeypatch.setattr(ctypes, 'CDLL', load)
    assert keep_freed_memory() is False


def test_whoever_simulates_keeps_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(allocation, 'keep_freed_memory', lambda: calls.append('command'))
    monkeypatch.setattr(bids_dataset, 'keep_freed_memory', lambda: calls.append('process'))
    monkeypatch.setattr(pool, 'keep_freed_memory', lambda: calls.append('pool'))
    monkeypatch.setattr(bids_dataset, 'make_dataset', lambda *_, **__: [])
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    monkeypatch.setattr(os, 'nice', lambda _: 0)
    assert main(['simulate', str(tmp_path / 'out'), '--subjects', '1']) == 0
    bids_dataset._start_worker()
    pool._fill([])
    assert calls == ['command', 'process', 'pool']
