"""SIGKILL at random moments, and at each call that writes; the same command then goes on."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

WRITES = ('open-write', 'write', 'mkdir', 'rename', 'fsync')
FEW, ALL = 3, 20
FEW_CALLS = 8
GONE_S = 120


@pytest.mark.timeout(7200)
def test_killed_at_random_moments(
    own_app: Any, tools: Any, pair: Path, ended: Any, full: bool, record_property: Any
) -> None:
    """The installed command, serial and with a pool; moments spread over its whole life."""
    began = time.monotonic()
    reference = own_app.root / 'reference'
    assert own_app.participant(pair, reference).returncode == 0
    life = time.monotonic() - began
    undisturbed = tools.results(reference)
    random_ = random.Random(20261121)
    stages: Counter[str] = Counter()
    count = ALL if full else FEW
    for number in range(count):
        out = own_app.root / f'out-{number}'
        processes = str(1 + number % 2)
        # one moment out of each of `count` equal parts of a run's life
        moment = (number + random_.random()) / count * life
        running = tools.start(
            own_app, pair, out, 'participant', *own_app.quick, '--nprocs', processes
        )
        ended.append(running)
        time.sleep(moment)
        running.process.send_signal(signal.SIGKILL)
        running.process.communicate()
        assert running.wait_gone(GONE_S) == [], 'processes are left behind'
        records = len(list(out.glob('logs/sub-*/sub-*.json')))
        stages[f'{records} of 2 finished' if out.exists() else 'before OUT_DIR'] += 1
        again = own_app.participant(pair, out, '--nprocs', processes)
        assert again.returncode == 0, again.stderr
        assert tools.results(out) == undisturbed, f'killed after {moment:.2f} s'
        tools.check_whole(out)
        shutil.rmtree(out)
    record_property('faults: SIGKILL at random moments', f'{count}, {dict(stages)}')


@pytest.mark.timeout(7200)
def test_killed_at_each_write(
    nursery: Any,
    shim: Any,
    tools: Any,
    pair: Path,
    one_done: Path,
    undisturbed: dict[str, str],
    chosen: Any,
    tmp_path: Path,
    record_property: Any,
) -> None:
    """Also where a finished scan is being replaced: a table never names what is not there."""
    out = tmp_path / 'counted'
    shutil.copytree(one_done, out)
    shim.watch(out, WRITES)
    assert nursery.participant(pair, out, '--overwrite').code == 0
    calls = shim.calls(out)
    numbers = chosen(calls, FEW_CALLS, seed=3)
    for at in numbers:
        out = tmp_path / f'out-{at}'
        shutil.copytree(one_done, out)
        shim.inject(out, at, kinds=WRITES, action='kill')
        done = nursery.participant(pair, out, '--overwrite')
        call = shim.state.last.decode()
        assert done.code == -signal.SIGKILL
        shim.clear()
        for stem, row in tools.scan_rows(out).items():
            record = out / 'logs' / stem / f'{stem}.json'
            label_map = out / stem / row['filename']
            assert label_map.exists() or not record.exists(), call
        again = nursery.participant(pair, out)
        assert again.code == 0, again.err
        assert tools.results(out) == undisturbed, call
        tools.check_whole(out)
        shutil.rmtree(out)
    record_property('faults: SIGKILL at the n-th write', f'{len(numbers)} of {len(calls)} calls')
