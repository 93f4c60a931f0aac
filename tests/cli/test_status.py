"""How far scans are, from what runs leave behind."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import ScanRecord, find_scans, output_paths, write_record
from shivacmb.bids.records import write_absence
from shivacmb.cli import runs, slurm_queue, states
from shivacmb.cli.interrupts import Terminated
from shivacmb.cli.run import _make_run_dir
from shivacmb.exceptions import OutputError

Tools = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ('SLURM_JOB_ID', 'SLURM_ARRAY_JOB_ID', 'SLURM_ARRAY_TASK_ID'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'out'


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return a table that stands for SLURM's queue."""
    table: dict[str, str] = {}
    monkeypatch.setattr(
        slurm_queue, 'jobs_in_queue', lambda jobs: {j: table[j] for j in jobs if j in table}
    )
    monkeypatch.setattr(slurm_queue, 'endings', lambda jobs: {})
    monkeypatch.setattr(slurm_queue, 'count_tasks', lambda arrays: {})
    return table


def record(out: Path, label: str, *, ok: bool = True, session: str | None = None) -> None:
    stem = f'sub-{label}' if session is None else f'sub-{label}_ses-{session}'
    made = ScanRecord(
        participant=label,
        session=session,
        stem=stem,
        filename=f'anat/{stem}_desc-CMB_dseg.json',
        status='ok' if ok else 'failed',
        reason=None if ok else 'the image is constant',
        contrast='T2starw',
        cmb_count=3 if ok else None,
    )
    write_record(out, made)
    if ok:
        path = output_paths(out, made)['dseg']
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


def run(out: Path, name: str, *scans: str, lines: tuple[str, ...] = (), **values: Any) -> Path:
    """Write the log of a run that did not run here, unless told otherwise."""
    start = {
        'host': 'elsewhere', 'pid': 1, 'namespace': 'pid:[1]', 'ticks': 5, 'job': None,
        'task': None, 'scans': list(scans), **values,
    }  # fmt: skip
    folder = out / 'logs' / f'run-{name}'
    folder.mkdir(parents=True)
    text = [f'run started {json.dumps(start)}', *lines]
    path = folder / 'run.log'
    path.write_text(''.join(f'2026-01-01 10:00:00,000 {line}\n' for line in text))
    return path


def silent(path: Path) -> None:
    os.utime(path, (1, 1))


def by_scan(out: Path) -> dict[str, tuple[str, str]]:
    return {item.scan: (item.state, item.reason) for item in states.scan_states(out)}


def test_records_tell_done_and_failed(out: Path, queue: Any) -> None:
    record(out, '01')
    record(out, '02', ok=False)
    record(out, '03', session='a')
    assert by_scan(out) == {
        'sub-01': ('done', ''),
        'sub-02': ('failed', 'the image is constant'),
        'sub-03_ses-a': ('done', ''),
    }
    [done, _, with_session] = states.scan_states(out)
    assert (done.microbleeds, done.session) == (3, None)
    assert (with_session.participant, with_session.session) == ('03', 'a')


def test_labels_with_a_plus(out: Path, queue: Any, tools_main: Tools) -> None:
    record(out, '01+a', ok=False, session='x+1')
    silent(run(out, '1', 'sub-02+b_run-1'))
    assert by_scan(out).keys() == {'sub-01+a_ses-x+1', 'sub-02+b_run-1'}
    assert [(item.participant, item.session) for item in states.scan_states(out)] == [
        ('01+a', 'x+1'), ('02+b', None),
    ]  # fmt: skip
    assert tools_main('status', out, '--format', 'list').stdout == '01+a\n02+b\n'


def test_results_that_were_removed_are_not_done(out: Path, queue: Any) -> None:
    record(out, '01')
    (out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.nii.gz').unlink()
    assert by_scan(out) == {'sub-01': ('not-started', 'its results were removed')}


def test_a_run_of_this_machine_is_asked_itself(out: Path, queue: Any) -> None:
    folder = out / 'logs' / 'run-1'
    folder.mkdir(parents=True)
    with runs.noted(folder, ['sub-01', 'sub-02']):
        with (folder / 'run.log').open('a') as log:
            log.write('2026-01-01 10:00:00,000 sub-01 predict end 3.00 s\n')
        found = by_scan(out)
        where = f'in run-1 on {socket.gethostname()}'
        assert found['sub-01'] == ('running', f'{where}, last step done: predict')
        assert found['sub-02'] == ('running', where)
        # its number belongs to another process by now
        text = (folder / 'run.log').read_text()
        [note] = runs.read_runs(out)
        (folder / 'run.log').write_text(text.replace(f'"ticks": {note.ticks}', '"ticks": 1'))
        assert by_scan(out)['sub-02'][0] == 'stopped'


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (Terminated(), 'was told to end: time limit or scancel'),
        (KeyboardInterrupt(), 'was interrupted'),
        (OSError('disk\nis full'), 'ended: OSError disk'),
        (None, 'ended before it was reached'),
    ],
)
def test_how_a_run_ended(out: Path, queue: Any, error: BaseException | None, words: str) -> None:
    folder = out / 'logs' / 'run-1'
    folder.mkdir(parents=True)
    with contextlib.suppress(BaseException), runs.noted(folder, ['sub-01']):
        if error is not None:
            raise error
    [(state, reason)] = by_scan(out).values()
    assert state == 'stopped'
    assert words in reason


def test_a_run_without_last_words(out: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = run(out, '1', 'sub-01', job='12', task='9_3')
    monkeypatch.setattr(slurm_queue, 'endings', lambda jobs: {'12': 'OUT_OF_MEMORY'})
    assert by_scan(out) == {
        'sub-01': (
            'stopped',
            'SLURM job 9_3 ended without a word: killed, out of memory or time, or its node '
            'failed; SLURM says OUT_OF_MEMORY',
        )
    }
    queue['12'] = 'RUNNING'
    assert by_scan(out) == {'sub-01': ('running', 'in SLURM job 9_3')}
    queue['12'] = 'PENDING'
    assert by_scan(out) == {'sub-01': ('running', 'waits in the queue again (SLURM job 9_3)')}
    # nobody can be asked: what wrote a moment ago is taken to live
    monkeypatch.setattr(slurm_queue, 'jobs_in_queue', lambda jobs: None)
    assert by_scan(out)['sub-01'][0] == 'running'
    silent(log)
    assert by_scan(out)['sub-01'][0] == 'stopped'


def test_output_of_the_task_is_named(
    out: Path, queue: Any, tools_main: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = out / 'logs' / 'run-1'
    folder.mkdir(parents=True)
    monkeypatch.setenv('SHIVACMB_TASK_LOG', '/logs/slurm/9/3.log')
    with contextlib.suppress(Terminated), runs.noted(folder, ['sub-01']):
        raise Terminated
    monkeypatch.delenv('SHIVACMB_TASK_LOG')
    [(_, reason)] = by_scan(out).values()
    assert reason.endswith('time limit or scancel; see </logs/slurm/9/3.log>')
    [row] = json.loads(tools_main('status', out, '--format', 'json').stdout)['scans']
    assert row['log'] == '/logs/slurm/9/3.log'


def test_runs_of_array_tasks_lie_together(
    out: Path, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs.array_task() is None
    monkeypatch.setenv('SLURM_ARRAY_JOB_ID', '88')
    monkeypatch.setenv('SLURM_ARRAY_TASK_ID', '1234')
    folder = _make_run_dir(out, {'01', '02'})
    assert folder.parent == out / 'logs' / 'array-88-1'
    with runs.noted(folder, ['sub-01', 'sub-02']):
        assert [state for state, _ in by_scan(out).values()] == ['running', 'running']


def test_the_last_run_counts(out: Path, queue: Any) -> None:
    silent(run(out, '1', 'sub-01', 'sub-02', job='1'))
    run(out, '2', 'sub-02', job='2')
    queue['2'] = 'RUNNING'
    assert [state for state, _ in by_scan(out).values()] == ['stopped', 'running']
    # a scan that failed before and is being done again
    record(out, '02', ok=False)
    assert by_scan(out)['sub-02'][0] == 'running'
    queue.clear()
    assert by_scan(out)['sub-02'] == ('failed', 'the image is constant')


def test_logs_beside_the_records_are_found(out: Path, queue: Any) -> None:
    silent(run(out, '1', 'sub-01', job='1'))
    (out / 'logs' / 'sub-01').mkdir()
    (out / 'logs' / 'run-1').rename(out / 'logs' / 'sub-01' / 'run-1')
    run(out, '0', 'sub-01', job='2')
    queue['2'] = 'RUNNING'
    # the later run counts, wherever its log lies
    assert by_scan(out)['sub-01'][0] == 'stopped'


def test_no_room_for_the_log(out: Path) -> None:
    with (
        pytest.raises(OutputError, match=r'cannot write <.*run.log> .*free space'),
        runs.noted(out / 'nowhere', ['sub-01']),
    ):
        pass


def test_a_scan_is_done_while_its_run_goes_on(out: Path, queue: Any) -> None:
    record(out, '01')
    run(
        out, '1', 'sub-01', 'sub-02', job='1',
        lines=('sub-01 write_derivatives end 1.00 s', 'sub-02 check_image end 1.00 s'),
    )  # fmt: skip
    queue['1'] = 'RUNNING'
    assert by_scan(out) == {
        'sub-01': ('done', ''),
        'sub-02': ('running', 'in SLURM job 1, last step done: check_image'),
    }


@pytest.mark.parametrize(
    'text', ['', 'no log at all\n', '2026 1 run started {"scans": 3}\n', '\0\xff run started {\n']
)
def test_logs_that_are_none(out: Path, queue: Any, text: str) -> None:
    record(out, '01')
    path = run(out, '1', 'sub-02')
    path.write_text(text, encoding='latin-1')
    assert by_scan(out) == {'sub-01': ('done', '')}


def dataset(root: Path, *labels: str) -> Path:
    root.mkdir()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for label in labels:
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        for name in ('T2starw', 'T1w'):
            (folder / f'sub-{label}_{name}.nii.gz').write_bytes(b'')
    return root


def test_dataset_tells_what_has_not_started(
    tools_main: Tools, out: Path, queue: Any, tmp_path: Path
) -> None:
    bids = dataset(tmp_path / 'bids', '01', '02', '03')
    record(out, '01')
    done = tools_main('status', out)
    assert done.returncode == 0
    done = tools_main('status', out, '--bids-dir', bids)
    assert done.returncode == 75
    assert done.stdout == (
        '       1 done\n       0 running\n       0 failed\n       0 stopped\n'
        '       2 not-started\n       3 scans in all\n\n'
        'not-started:\n  sub-02: no run has taken it on\n  sub-03: no run has taken it on\n\n'
        'To submit again: 2 participant(s) (--format list)\n'
    )
    done = tools_main(
        'status', out, '--bids-dir', bids, '--format', 'list', '--', '--participant-label', '02'
    )
    assert (done.returncode, done.stdout) == (75, '02\n')


def task_log(out: Path, job: str, task: str, text: str, *, below: str = '') -> Path:
    path = out / 'logs' / 'slurm' / job / below / f'{task}.log'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_task_that_ended_before_the_app_began_is_told(
    tools_main: Tools, tmp_path: Path, out: Path, queue: Any, make_head: Any
) -> None:
    bids = tmp_path / 'bids'
    for label in ('01', '02', '03', '04', '05', '06'):
        path = bids / f'sub-{label}' / 'anat' / f'sub-{label}_T2starw.nii.gz'
        path.parent.mkdir(parents=True)
        make_head().to_filename(path)
    (bids / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    record(out, '01')
    task_log(out, '9', '0', 'task 0 on n1: 01 02 06\nx: command not found\nexit code 127\n')
    noise = 'much that the app said\n' * 2000
    log = task_log(out, '12', '1', f'task 1 on n2: 02\n{noise}exit code 1\n', below='0')
    again = 'to be queued again, for time 1 of 2\n'
    task_log(out, '12', '3', f'task 3 on n2: 03\nno GPU\nexit code 75\n{again}', below='0')
    refused = 'SLURM refused to queue it again\n'
    task_log(out, '12', '4', f'task 4 on n2: 04\nexit code 75\n{again}{refused}', below='0')
    task_log(out, '12', '5', 'task 5 on n2: 05\n', below='0')
    found = {item.participant: item for item in states.scan_states(out, find_scans(bids))}
    assert found['01'].state == 'done'
    assert found['02'].state == 'stopped'
    assert found['02'].reason == (
        f'SLURM task 12_1 ended with exit code 1 before it took the scan on; see <{log}>'
    )
    assert (found['02'].job, found['02'].log) == ('12_1', str(log))
    assert found['03'].state == 'not-started'
    assert found['03'].reason.startswith(
        'SLURM task 12_3 ended with exit code 75 before it took the scan on, and was to be queued'
    )
    assert found['04'].state == 'stopped'
    assert (found['05'].state, found['05'].reason) == ('not-started', 'no run has taken it on')
    assert found['06'].reason.startswith('SLURM task 9_0 ended with exit code 127')
    (out / 'logs' / 'slurm').rename(tmp_path / 'logs')
    done = tools_main('status', out, '--bids-dir', bids, '--log-dir', tmp_path / 'logs')
    assert done.returncode == 1
    assert 'sub-06: SLURM task 9_0 ended with exit code 127' in done.stdout
    done = tools_main('status', out, '--bids-dir', bids, '--', '--threshold', '0.3')
    assert 'counts as done with any settings (--threshold not looked at)' in done.stderr
    # the derivatives given for the dataset
    (out / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (out / 'sub-01').mkdir(exist_ok=True)
    done = tools_main('status', out, '--bids-dir', out)
    assert done.returncode == 66
    assert f'no scan in the dataset <{out}>; give the BIDS_DIR that was processed' in done.stderr


def test_formats(tools_main: Tools, out: Path, queue: Any) -> None:
    record(out, '01')
    record(out, '02', ok=False)
    silent(run(out, '1', 'sub-03_ses-b', job='7', task='5_1'))
    done = tools_main('status', out, '--format', 'tsv')
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout), delimiter='\t'))
    assert [row['state'] for row in rows] == ['done', 'failed', 'stopped']
    assert rows[0]['microbleeds'] == '3'
    assert rows[2]['session'] == 'b'
    assert rows[2]['job'] == '5_1'
    assert rows[1]['session'] == 'n/a'
    content = json.loads(tools_main('status', out, '--format', 'json').stdout)
    assert content['counts'] == {
        'done': 1, 'running': 0, 'failed': 1, 'stopped': 1, 'not-started': 0,
    }  # fmt: skip
    assert content['to_resubmit'] == ['02', '03']
    assert tools_main('status', out, '--format', 'list').stdout == '02\n03\n'
    only = tools_main('status', out, '--format', 'list', '--state', 'stopped')
    assert (only.returncode, only.stdout) == (1, '03\n')


def test_long_lists_are_cut(tools_main: Tools, out: Path, queue: Any) -> None:
    for index in range(25):
        record(out, f'{index:02d}', ok=False)
    done = tools_main('status', out)
    assert done.stdout.count('the image is constant') == 20
    assert 'and 5 more (--format tsv --state failed)' in done.stdout


def test_tasks_that_wait_are_named(
    tools_main: Tools, out: Path, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(run(out, '1', 'sub-01', job='7', task='5_1'))
    monkeypatch.setattr(slurm_queue, 'count_tasks', lambda arrays: dict.fromkeys(arrays, 12))
    done = tools_main('status', out, '--format', 'list')
    assert done.stderr == (
        'shivacmb: 12 task(s) of SLURM job 5 still wait; submit again when it has ended\n'
    )
    assert done.stdout == '01\n'


def test_tasks_that_came_to_no_scan_are_told_of(tools_main: Tools, tmp_path: Path) -> None:
    """Where containers cannot be started at all, say."""
    logs = tmp_path / 'logs' / 'slurm'
    logs.mkdir(parents=True)
    # made with the script, before anything was submitted
    done = tools_main('status', tmp_path)
    assert (done.returncode, f'no scan in <{tmp_path}>' in done.stderr) == (66, True)
    (logs / '1').mkdir()
    (logs / '1' / '0.log').write_text('task 0 on node1: 01\nexit code 125\n')
    done = tools_main('status', tmp_path)
    assert done.returncode == 66
    assert f'none of the SLURM tasks for <{tmp_path}> got as far as a scan' in done.stderr
    assert f'logs are in <{logs}>. Add --bids-dir' in done.stderr
    logs.rename(tmp_path / 'elsewhere')
    done = tools_main('status', tmp_path, '--log-dir', tmp_path / 'elsewhere')
    assert f'logs are in <{tmp_path}/elsewhere>. Add' in done.stderr
    done = tools_main('status', tmp_path, '--log-dir', logs)
    assert f'no such folder: <{logs}>; give the --log-dir of the script' in done.stderr


@pytest.mark.parametrize(
    ('words', 'code', 'message'),
    [
        (('nowhere',), 66, 'no such folder: <'),
        (('.',), 66, 'no scan in <'),
        (('.', '--', '--modality', 'swi'), 64, 'options after -- need --bids-dir'),
        (('.', '--format', 'xml'), 64, 'invalid choice'),
    ],
)
def test_nothing_to_tell(
    tools_main: Tools,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = tools_main('status', *words)
    assert done.returncode == code
    assert message in done.stderr


def test_absent_participants_do_not_count(out: Path, queue: Any) -> None:
    record(out, '01')
    write_absence(out, '02', 'no usable scan')
    assert list(by_scan(out)) == ['sub-01']


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put programs of SLURM's on PATH."""
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)

    return write


def test_queue_is_read(program: Any) -> None:
    program('squeue', 'echo "12 RUNNING"; echo "13 PENDING"')
    assert slurm_queue.jobs_in_queue(['12', '13', '14']) == {'12': 'RUNNING', '13': 'PENDING'}
    program('squeue', 'echo 5; echo 5; echo 6')
    assert slurm_queue.count_tasks(['5', '6', '7']) == {'5': 2, '6': 1}
    program('sacct', 'echo "12|CANCELLED by 1000"')
    assert slurm_queue.endings(['12']) == {'12': 'CANCELLED by 1000'}


def test_queue_that_does_not_answer(program: Any) -> None:
    program('squeue', 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert slurm_queue.jobs_in_queue(['12']) == {}
    program('squeue', 'echo "Unable to contact slurm controller" >&2; exit 1')
    assert slurm_queue.jobs_in_queue(['12']) is None
    program('sacct', 'echo "Slurm accounting storage is disabled" >&2; exit 1')
    assert slurm_queue.endings(['12']) == {}


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    assert slurm_queue.jobs_in_queue(['12']) is None
    assert slurm_queue.endings(['12']) == {}
    assert slurm_queue.count_tasks(['12']) == {}


@pytest.mark.parametrize('state', ['COMPLETING', 'CONFIGURING', 'RUNNING', 'REQUEUE_HOLD'])
def test_a_task_that_is_queued_again_has_not_stopped(out: Path, queue: Any, state: str) -> None:
    silent(run(out, '1', 'sub-01', lines=('run ended Terminated',), job='7', task='5_1'))
    assert by_scan(out)['sub-01'][0] == 'stopped'
    queue['7'] = state
    assert by_scan(out)['sub-01'] == (
        'running', f'was told to end, and its job is {state} (SLURM job 5_1)',
    )  # fmt: skip


def test_preferences_of_the_user_hide_no_job(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SQUEUE_STATES', 'PD')
    program('squeue', 'echo "12 ${SQUEUE_STATES-all}"')
    assert slurm_queue.jobs_in_queue(['12']) == {'12': 'all'}


def test_participants_whose_records_cannot_be_read_are_named(
    tools_main: Tools, out: Path, queue: Any
) -> None:
    record(out, '01')
    record(out, '02')
    path = out / 'logs' / 'sub-02' / 'sub-02.json'
    path.unlink()
    path.mkdir()
    done = tools_main('status', out, '--format', 'json')
    assert done.returncode == 75
    assert json.loads(done.stdout)['counts']['done'] == 1
    assert done.stderr.startswith(f'shivacmb: nothing is told of sub-02: cannot read <{path}>')
    (out / 'logs' / 'sub-01' / 'sub-01.json').unlink()
    assert tools_main('status', out).returncode == 75
