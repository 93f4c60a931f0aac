"""An array job on a real SLURM: one scan is corrupt, one task is killed, one node is drained."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def beside(name: str) -> Any:
    """Import a module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


slurm_cluster = beside('slurm_cluster')

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        slurm_cluster.why_not() is not None, reason=f'no SLURM: {slurm_cluster.why_not()}'
    ),
]

LABELS = ('01', '02', '03', '04', '05', '06')
CORRUPT, KILLED = '05', '02'
NODES = 3
DEADLINE_S = 400
OPTIONS = ('--device', 'cpu')


@pytest.fixture(scope='module')
def cluster(app: Any) -> Iterator[Any]:
    with slurm_cluster.running_cluster(nodes=NODES) as running:
        app.env.update(running.environment)
        yield running


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('slurm') / 'bids')
    for seed, label in enumerate(LABELS):
        tools.place(root, f'sub-{label}_T2starw', tools.head(seed=seed, voxel_mm=(1.5, 1.5, 2.0)))
    (root / f'sub-{CORRUPT}' / 'anat' / f'sub-{CORRUPT}_T2starw.nii.gz').write_bytes(b'no image')
    return root


@pytest.fixture(scope='module')
def serial(app: Any, tools: Any, bids: Path) -> Path:
    """What one run in one go writes."""
    out = app.root / 'serial'
    done = app.participant(bids, out, *OPTIONS)
    assert done.returncode == 1, done.stderr
    assert app.run(bids, out, 'group').returncode == 0
    return out


def wait_for(ready: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (result := ready()):
        assert time.monotonic() < end, f'{what} did not come'
        time.sleep(0.2)
    return result


def idle(cluster: Any) -> None:
    wait_for(lambda: not cluster.call('squeue', '-h').strip(), 'the end of all jobs')


def run_notes(out: Path) -> dict[str, Any]:
    """First line of the log of each run, by the participant it is about."""
    notes = {}
    for path in out.glob('logs/**/run-*/run.log'):
        text = path.read_text().partition('\n')[0].partition('run started ')[2]
        if text:
            note = json.loads(text)
            notes[note['scans'][0].removeprefix('sub-')] = note
    return notes


def tables(tools: Any, out: Path) -> dict[str, str]:
    """Checksums of all results; logs of tasks tell of one run."""
    return {
        name: checksum
        for name, checksum in tools.results(out).items()
        if not name.startswith('logs/slurm/')
    }


def submit(app: Any, cluster: Any, bids: Path, out: Path, *options: Any) -> str:
    """Print a script, submit it as a user would, and return the number of the array job."""
    done = app.run(
        'slurm', bids, out, '--per-task', 1, '--cpus', 1, '--mem', '2G', *options,
        '--', *app.quick, *OPTIONS, program='shivacmb-tools',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = app.root / 'run.sbatch'
    script.write_text(done.stdout)
    if shutil.which('shellcheck'):
        subprocess.run(['shellcheck', script], check=True)
    command = ['sbatch', '--parsable'] if '--no-group' in options else ['bash']
    said = subprocess.run(
        [*command, script], env=app.environment(), capture_output=True, text=True, check=True
    )
    return said.stdout.removeprefix('array job ').split()[0]


def exit_codes(cluster: Any, array: str, out: Path) -> dict[str, str]:
    """What SLURM says of each task, by participant; it keeps that for some minutes."""
    codes = {}
    for block in cluster.call('scontrol', 'show', 'job', array).split('\n\n'):
        words = dict(word.partition('=')[::2] for word in block.split())
        if 'ArrayTaskId' in words:
            log = out / 'logs' / 'slurm' / array / f'{words["ArrayTaskId"]}.log'
            codes[log.read_text().split('\n')[0].rpartition(': ')[2]] = words['ExitCode']
    return codes


def test_array_killed_drained_and_submitted_again(
    app: Any, tools: Any, cluster: Any, bids: Path, serial: Path
) -> None:
    out = app.root / 'array'
    array = submit(app, cluster, bids, out)
    # sub-02 dies as under the out-of-memory killer, while its node and another one work
    victim = wait_for(lambda: run_notes(out).get(KILLED), 'the start of the victim')
    # it waits until then: on a slow machine its scan was done before anybody had looked
    os.kill(victim['pid'], signal.SIGSTOP)
    cluster.call('scontrol', 'update', 'nodename=node3', 'state=drain', 'reason=test')
    state = app.run(
        'status', out, '--bids-dir', bids, '--format', 'json', program='shivacmb-tools'
    )
    seen = {item['scan']: item for item in json.loads(state.stdout)['scans']}
    assert seen[f'sub-{KILLED}']['state'] == 'running'
    assert 'still wait; submit again' in state.stderr
    os.kill(victim['pid'], signal.SIGKILL)
    idle(cluster)

    codes = exit_codes(cluster, array, out)
    assert codes == {
        **dict.fromkeys(LABELS, '0:0'), CORRUPT: '65:0', KILLED: '137:0',
    }  # fmt: skip
    assert 'DRAIN' in cluster.call('scontrol', 'show', 'node', 'node3').upper()
    state = app.run(
        'status', out, '--bids-dir', bids, '--format', 'json', program='shivacmb-tools'
    )
    assert state.returncode == 1
    report = json.loads(state.stdout)
    assert report['counts'] == {
        'done': 4, 'running': 0, 'failed': 1, 'stopped': 1, 'not-started': 0,
    }  # fmt: skip
    reasons = {item['participant']: item['reason'] for item in report['scans']}
    assert 'is not a NIfTI file' in reasons[CORRUPT]
    assert 'ended without a word: killed' in reasons[KILLED]
    assert f'see <{out}/logs/slurm/{array}/' in reasons[KILLED]
    # nothing is left where SLURM first put the output of tasks
    left = {path.name for path in (out / 'logs' / 'slurm').iterdir()}
    assert {name for name in left if not name.startswith('group-')} == {array}
    # the group job has run over what there was
    rows = tools.rows(out / 'participants.tsv')
    assert {row['participant_id'] for row in rows} == {f'sub-{x}' for x in LABELS} - {
        f'sub-{KILLED}'
    }

    state = app.run(
        'status', out, '--bids-dir', bids, '--format', 'list', program='shivacmb-tools'
    )
    assert state.stdout == f'{KILLED}\n{CORRUPT}\n'
    todo = app.root / 'todo.txt'
    todo.write_text(state.stdout)
    again = submit(app, cluster, bids, out, '--participant-label', todo)
    idle(cluster)
    assert exit_codes(cluster, again, out) == {KILLED: '0:0', CORRUPT: '65:0'}
    tools.check_whole(out)
    assert tables(tools, out) == tables(tools, serial)


def test_try_later_and_out_of_time(app: Any, cluster: Any, bids: Path) -> None:
    """A task that ends with 75, or is near its time limit, is queued again, and not for ever.

    One that is cancelled is not.
    """
    fake = app.root / 'venv' / 'bin' / 'shivacmb'
    fake.parent.mkdir(parents=True)
    fake.write_text(
        '#!/bin/bash\n'
        'trap "echo told to stop; exit 143" TERM\n'
        'case "$SLURM_ARRAY_TASK_ID-${SLURM_RESTART_COUNT:-0}" in\n'
        '0-0) exit 75 ;;\n'
        '1-*) exit 75 ;;\n'
        '2-0) scancel --batch --signal=USR1 "${SLURM_ARRAY_JOB_ID}_2" ;;\n'
        '3-0) scancel "${SLURM_ARRAY_JOB_ID}_3" ;;\n'
        '*) exit 0 ;;\n'
        'esac\n'
        # scancel signals one process after the other: a sleep that ends first must not end this
        'while :; do sleep 0.2; done\n'
    )
    fake.chmod(0o755)
    out = app.root / 'requeued'
    array = submit(
        app, cluster, bids, out, '--requeue', 1, '--no-group', '--venv', fake.parent.parent,
        '--participant-label', '01', '02', '03', '04',
    )  # fmt: skip
    idle(cluster)
    logs = [(out / 'logs' / 'slurm' / array / f'{task}.log').read_text() for task in range(4)]
    codes = [[line for line in log.splitlines() if line.startswith('exit')] for log in logs]
    assert codes == [
        ['exit code 75', 'exit code 0'],
        ['exit code 75', 'exit code 75'],
        ['exit code 143', 'exit code 0'],
        ['exit code 143'],
    ]
    # SLURM itself wrote on into the file that the task had moved
    assert 'CANCELLED' in logs[3]
    assert 'told to stop before the time limit' in logs[2]


def test_tasks_get_a_card_and_the_group_job_none(app: Any, cluster: Any, bids: Path) -> None:
    fake = app.root / 'cards' / 'bin' / 'shivacmb'
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/bash\necho "$3 sees card ${CUDA_VISIBLE_DEVICES-none}"\n')
    fake.chmod(0o755)
    out = app.root / 'on-cards'
    array = submit(
        app, cluster, bids, out, '--gres', 'gpu:1', '--venv', fake.parent.parent,
        '--participant-label', '01', '02',
    )  # fmt: skip
    idle(cluster)
    logs = out / 'logs' / 'slurm'
    for task in range(2):
        assert 'participant sees card 0' in (logs / array / f'{task}.log').read_text()
    (group,) = logs.glob('group-*.log')
    assert 'group sees card none' in group.read_text()


def test_plugin_of_nipype(app: Any, tools: Any, cluster: Any, bids: Path, serial: Path) -> None:
    """Each node a job of its own: slow, but the same tables."""
    plugin = app.root / 'plugin.yml'
    plugin.write_text('plugin: SLURM\nplugin_args:\n  sbatch_args: --mem=2000 --time=10\n')
    out, work = app.root / 'plugin', app.root / 'shared'
    done = app.participant(
        bids, out, *OPTIONS, '--participant-label', '01', CORRUPT,
        '--use-plugin', plugin, '--work-dir', work,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f'sub-{CORRUPT} failed' in done.stderr
    expected = tables(tools, serial)
    for label in ('01', CORRUPT):
        names = [name for name in expected if f'sub-{label}' in name]
        assert names
        found = tables(tools, out)
        assert {name: found.get(name) for name in names} == {
            name: expected[name] for name in names
        }
