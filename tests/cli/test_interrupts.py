"""A signal ends the command, also where somebody swallows what it raises."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from shivacmb.cli import interrupts
from shivacmb.cli.engine import _Watch

SWALLOWS = """
import os, signal, sys, time
from shivacmb.cli.main import guarded

# tests may have been started with it ignored, as in the background of a script
signal.signal(signal.SIGINT, signal.default_int_handler)

def command():
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(30)
    except BaseException:
        pass
    return 0

sys.exit(guarded(command))
"""


@pytest.mark.parametrize(
    ('name', 'code', 'said'),
    [
        ('SIGTERM', 143, 'shivacmb: terminated; run the same command again to go on\n'),
        ('SIGINT', 130, 'shivacmb: interrupted; run the same command again to go on\n'),
    ],
)
def test_swallowed_signal_counts_at_the_end(name: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, '-c', SWALLOWS, name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize('state', ['start', 'end'])
def test_swallowed_signal_counts_at_the_next_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    seen = []
    plan = SimpleNamespace(node_name='scan_x', stem='x')
    watch = _Watch(
        [plan],  # type: ignore[list-item]
        tmp_path,
        lambda _, facts: seen.append(facts['state']),
        logging.getLogger('test'),
        keep_work=False,
    )
    node = SimpleNamespace(fullname='run.scan_x.write_derivatives')
    watch.status(node, state)
    monkeypatch.setattr(interrupts, '_received', [interrupts.Terminated])
    with pytest.raises(interrupts.Terminated):
        watch.status(node, state)
    assert seen == [state, state]
    assert watch.done == ({'x'} if state == 'end' else set())
