"""A file server that reports errors, or that stops answering, while inputs are read."""

from __future__ import annotations

import errno
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

READS = ('open-read', 'read', 'listdir', 'stat')
FEW = 8


@pytest.mark.timeout(7200)
def test_error_at_each_read(
    nursery: Any,
    shim: Any,
    tools: Any,
    pair: Path,
    undisturbed: dict[str, str],
    honest: Any,
    chosen: Any,
    tmp_path: Path,
    record_property: Any,
) -> None:
    """The scan fails with a reason, or the run ends in words; the other scan is finished."""
    where = pair / 'sub-01'
    shim.watch(where, READS)
    assert nursery.participant(pair, tmp_path / 'counted').code == 0
    calls = shim.calls(where)
    codes: Counter[int] = Counter()
    problems, hits = [], 0
    for at in chosen(calls, FEW):
        out = tmp_path / f'out-{at}'
        shim.inject(where, at, kinds=READS, error=errno.EIO)
        done = nursery.participant(pair, out)
        call = shim.state.last.decode()
        hits += shim.state.hits > 0
        shim.clear()
        codes[done.code] += 1
        try:
            done.check()
            if done.code == 0:
                assert tools.results(out) == undisturbed
            else:
                assert done.code == 1, done.err
                assert 'sub-01' in done.err
            honest(tools, out, undisturbed, ['02'])
            again = nursery.participant(pair, out)
            assert again.code == 0, again.err
            assert tools.results(out) == undisturbed
        except AssertionError as error:
            problems.append(f'{at} {call} {done.code} {done.err}\n   {str(error)[:600]}')
    record_property(
        'faults: file server, n-th call returns EIO',
        f'{hits} of {len(calls)} calls, exit codes {dict(codes)}',
    )
    assert not problems, '\n'.join(problems)


def test_error_does_not_take_a_finished_scan_away(
    nursery: Any, shim: Any, tools: Any, pair: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """The server fails for good when finished scans are asked for again, with other settings."""
    out = tmp_path / 'out'
    assert nursery.participant(pair, out).code == 0
    for arguments in ((), ('--overwrite',), ('--threshold', '0.6')):
        shim.inject(pair / 'sub-01' / 'anat', 1, kinds=('read',), error=errno.EIO, times=0)
        done = nursery.participant(pair, out, '--participant-label', '01', *arguments)
        shim.clear()
        done.check()
        assert done.code == (75 if arguments else 0), done.err
        assert not arguments or 'file server reports' in done.err
        assert tools.results(out) == undisturbed


@pytest.mark.parametrize('kind', ['open-read', 'read'])
def test_server_that_stalls_for_a_moment(
    nursery: Any, shim: Any, tools: Any, pair: Path, undisturbed: Any, tmp_path: Path, kind: str
) -> None:
    shim.inject(pair / 'sub-01' / 'anat', 1, kinds=(kind,), action='stall', milliseconds=2000)
    done = nursery.participant(pair, tmp_path / 'out')
    assert done.code == 0, done.err
    assert shim.state.hits == 1
    assert tools.results(tmp_path / 'out') == undisturbed


def test_server_that_does_not_come_back(
    app: Any, shim: Any, tools: Any, pair: Path, honest: Any, tmp_path: Path
) -> None:
    """The installed command gives up after SHIVACMB_STALL_SECONDS and ends."""
    out = tmp_path / 'out'
    image = pair / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz'
    shim.inject(image, 1, kinds=('read',), action='stall', milliseconds=300_000)
    began = time.monotonic()
    done = app.participant(
        pair, out, '--nprocs', '1', SHIVACMB_STALL_SECONDS='2', **shim.environment
    )
    assert time.monotonic() - began < 150
    assert done.returncode == 1, done.stderr
    assert f'nothing came from <{image}> for 2 s' in tools.sentence(done.stderr)
    rows = tools.scan_rows(out)
    assert {stem: row['status'] for stem, row in rows.items()} == {
        'sub-01': 'failed',
        'sub-02': 'ok',
    }
