"""Memory is kept for the next array."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from shivacmb.simulate.allocation import keep_freed_memory

PROGRAM = """
import sys
import numpy as np
from shivacmb.simulate.allocation import keep_freed_memory

def resident_mb():
    with open('/proc/self/statm') as stream:
        return int(stream.read().split()[1]) * 4096 / 1e6

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
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, how], capture_output=True, text=True, check=True
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
