"""Every call that writes below OUT_DIR fails once, and from then on, as on a full disk."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

WRITES = ('open-write', 'write', 'mkdir', 'rename', 'fsync')
FEW = 8


@pytest.mark.timeout(7200)
@pytest.mark.parametrize('lasting', [False, True], ids=['once', 'from-then-on'])
def test_disk_full_at_each_write(
    lasting: bool,
    nursery: Any,
    shim: Any,
    tools: Any,
    pair: Path,
    one_done: Path,
    undisturbed: dict[str, str],
    honest: Any,
    chosen: Any,
    tmp_path: Path,
    record_property: Any,
) -> None:
    """Right code, one sentence, nothing that passes for finished; the same command mends it."""
    # logs/run-* and the times in them are long or short: the count may vary by a few
    out = tmp_path / 'counted'
    shutil.copytree(one_done, out)
    shim.watch(out, WRITES)
    assert nursery.participant(pair, out).code == 0
    calls = shim.calls(out)
    assert len(calls) > 50
    codes: Counter[int] = Counter()
    hits, problems = 0, []
    numbers = chosen(calls, FEW, seed=int(lasting))
    for at in numbers:
        out = tmp_path / f'out-{at}'
        shutil.copytree(one_done, out)
        shim.inject(out, at, kinds=WRITES, error=errno.ENOSPC, times=0 if lasting else 1)
        done = nursery.participant(pair, out)
        call = shim.state.last.decode().replace(str(out), 'OUT')
        hits += shim.state.hits > 0
        shim.clear()
        codes[done.code] += 1
        try:
            done.check()
            if done.code == 0:
                assert not lasting
                assert tools.results(out) == undisturbed
            else:
                # 1: this scan failed and the other one is finished
                assert done.code in (1, 73), done.err
            honest(tools, out, undisturbed, ['02'])
            again = nursery.participant(pair, out)
            assert again.code == 0, again.err
            assert tools.results(out) == undisturbed
        except AssertionError as error:
            problems.append(f'{at} {call} {done.code} {done.err}\n   {str(error)[:600]}')
        shutil.rmtree(out)
    record_property(
        f'faults: no space left, {"all calls from the n-th" if lasting else "n-th call"}',
        f'{hits} of {len(calls)} calls, exit codes {dict(codes)}',
    )
    assert not problems, f'{len(problems)}\n' + '\n'.join(problems)
