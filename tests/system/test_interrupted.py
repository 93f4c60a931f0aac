"""Runs that are killed, and runs that meet in one output folder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

LABELS = ('01', '02', '03')
#: Ten times what an idle machine needs: a stop for what hangs, no measure of speed.
DEADLINE_S = 300
GONE_S = 60


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('interrupted') / 'bids')
    for seed, label in enumerate(LABELS):
        tools.place(root, f'sub-{label}_T2starw', tools.head(seed=seed, voxel_mm=(2.0, 2.0, 2.0)))
    return root


@pytest.fixture(scope='module')
def undisturbed(app: Any, tools: Any, bids: Path) -> dict[str, str]:
    """Checksums of what a run in one go writes."""
    out = app.root / 'undisturbed'
    done = app.participant(bids, out)
    assert done.returncode == 0, done.stderr
    return tools.results(out)


def wait_for(condition: Any, running: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert running.process.poll() is None, running.process.communicate()
        assert time.monotonic() < deadline, 'the moment to disturb the run did not come'
        time.sleep(0.01)


def first_record(out: Path) -> Any:
    return lambda: list(out.glob('logs/sub-*/sub-*.json'))


def being_written(out: Path) -> Any:
    return lambda: list(out.glob('logs/.staging/*/*.nii.gz'))


def working(app: Any) -> Any:
    return lambda: list(app.tmp.glob('shivacmb-work-*/**/network_input.npy'))


MOMENTS = {'writing': being_written, 'one-done': first_record}


@pytest.mark.parametrize(
    ('how', 'nprocs', 'moment'),
    [
        (signal.SIGTERM, '1', 'one-done'),
        (signal.SIGTERM, '2', 'writing'),
        (signal.SIGKILL, '1', 'writing'),
        (signal.SIGKILL, '2', 'one-done'),
    ],
    ids=['term-serial', 'term-pool', 'kill-serial', 'kill-pool'],
)
def test_killed_and_run_again(
    own_app: Any,
    tools: Any,
    bids: Path,
    undisturbed: dict[str, str],
    ended: Any,
    how: signal.Signals,
    nprocs: str,
    moment: str,
) -> None:
    out = own_app.root / 'out'
    running = tools.start(own_app, bids, out, 'participant', *own_app.quick, '--nprocs', nprocs)
    ended.append(running)
    wait_for(MOMENTS[moment](out), running)
    if how == signal.SIGTERM and nprocs == '2':
        os.killpg(running.process.pid, how)  # as clusters do
    else:
        running.process.send_signal(how)
    _, said = running.process.communicate(timeout=DEADLINE_S)
    if how == signal.SIGTERM:
        assert running.process.returncode == 143, said
        assert said == 'shivacmb: terminated; run the same command again to go on\n'
    else:
        assert running.process.returncode == -signal.SIGKILL
    assert running.wait_gone(GONE_S) == [], 'processes are left behind'
    wait_until_empty(own_app)
    for path in out.rglob('*'):
        if path.suffix in ('.tsv', '.json', '.html', '.png', '.gz') and '.staging' not in str(
            path
        ):
            assert path.name.startswith('.tmp') or path.stat().st_size > 0, path

    again = own_app.participant(bids, out, '--nprocs', nprocs)
    assert again.returncode == 0, again.stderr
    assert tools.results(out) == undisturbed
    tools.check_whole(out)
    assert own_app.temporary == []


def wait_until_empty(app: Any) -> None:
    """The watchdog of a killed run tidies up within a moment."""
    deadline = time.monotonic() + GONE_S
    while app.temporary and time.monotonic() < deadline:
        time.sleep(0.1)
    assert app.temporary == []


@pytest.mark.parametrize('nprocs', ['1', '2'])
def test_interrupt_from_the_keyboard(
    own_app: Any, tools: Any, bids: Path, ended: Any, nprocs: str
) -> None:
    out = own_app.root / 'out'
    running = tools.start(own_app, bids, out, 'participant', *own_app.quick, '--nprocs', nprocs)
    ended.append(running)
    wait_for(working(own_app), running)
    # a terminal sends it to every process of the command
    os.killpg(running.process.pid, signal.SIGINT)
    _, said = running.process.communicate(timeout=DEADLINE_S)
    assert running.process.returncode == 130, said
    assert said == 'shivacmb: interrupted; run the same command again to go on\n'
    assert running.wait_gone(GONE_S) == []
    assert own_app.temporary == []


def kill_service(running: Any) -> bool:
    """Kill the process that holds the networks, as the kernel does when memory runs out."""
    for pid in running.others():
        with contextlib.suppress(OSError):
            words = Path(f'/proc/{pid}/cmdline').read_bytes().split(b'\0')
            if b'shivacmb.models.service' in words:
                os.kill(pid, signal.SIGKILL)
                return True
    return False


@pytest.mark.parametrize('again', [False, True], ids=['once', 'again-and-again'])
def test_prediction_process_that_dies(
    own_app: Any, tools: Any, bids: Path, undisturbed: Any, ended: Any, *, again: bool
) -> None:
    """Started anew a few times; after that the scans fail with code 75, and can be run again."""
    out = own_app.root / 'out'
    running = tools.start(own_app, bids, out, 'participant', *own_app.quick, '--nprocs', '1')
    ended.append(running)
    wait_for(lambda: kill_service(running), running)
    while again and running.process.poll() is None:
        kill_service(running)
        time.sleep(0.01)
    _, said = running.process.communicate(timeout=DEADLINE_S)
    assert 'Traceback' not in said
    assert running.process.returncode == (75 if again else 0), said
    assert ('prediction process ended unexpectedly' in said) == again
    if again:
        last = own_app.participant(bids, out)
        assert last.returncode == 0, last.stderr
    assert tools.results(out) == undisturbed
    assert own_app.temporary == []


def test_worker_that_dies(
    own_app: Any, tools: Any, bids: Path, undisturbed: dict[str, str], ended: Any
) -> None:
    """What it took with it runs again: the run ends as if nothing had happened."""
    out = own_app.root / 'out'
    running = tools.start(own_app, bids, out, 'participant', *own_app.quick, '--nprocs', '2')
    ended.append(running)
    wait_for(working(own_app), running)
    program = Path(f'/proc/{running.process.pid}/cmdline').read_bytes()
    workers = [
        pid
        for pid in running.others()
        if pid != running.process.pid and Path(f'/proc/{pid}/cmdline').read_bytes() == program
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, said = running.process.communicate(timeout=DEADLINE_S)
    assert running.process.returncode == 0, said
    assert 'Traceback' not in said
    assert running.wait_gone(GONE_S) == []
    assert tools.results(out) == undisturbed
    tools.check_whole(out)
    assert own_app.temporary == []


def test_two_runs_at_once(
    own_app: Any, tools: Any, bids: Path, undisturbed: dict[str, str], ended: Any
) -> None:
    """The same command twice: both end well, and the outputs are those of one run."""
    out = own_app.root / 'out'
    both = [tools.start(own_app, bids, out, 'participant', *own_app.quick) for _ in range(2)]
    ended.extend(both)
    for running in both:
        _, said = running.process.communicate(timeout=DEADLINE_S)
        assert running.process.returncode == 0, said
    assert tools.results(out) == undisturbed
    tools.check_whole(out)
    assert own_app.temporary == []


def test_array_tasks_at_once(
    own_app: Any, tools: Any, bids: Path, undisturbed: dict[str, str], ended: Any
) -> None:
    """One participant each, started together; group while they run reads what is there."""
    out = own_app.root / 'out'
    tasks = [
        tools.start(
            own_app, bids, out, 'participant', *own_app.quick,
            '--participant-label', label, '--nprocs', '1',
        )
        for label in LABELS
    ]  # fmt: skip
    ended.extend(tasks)
    wait_for(first_record(out), tasks[0])
    gathered = own_app.run(bids, out, 'group')
    assert gathered.returncode == 0, gathered.stderr
    assert 1 <= len(tools.rows(out / 'group_desc-CMB_counts.tsv')) <= len(LABELS)
    for running in tasks:
        _, said = running.process.communicate(timeout=DEADLINE_S)
        assert running.process.returncode == 0, said
    again = own_app.run(bids, out, 'group')
    assert again.returncode == 0, again.stderr
    assert len(tools.rows(out / 'group_desc-CMB_counts.tsv')) == len(LABELS)
    written = tools.results(out)
    assert {name: written[name] for name in undisturbed} == undisturbed
