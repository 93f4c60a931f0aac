"""The script of an array job: what it says, and what it does under SLURM's signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli import slurm_script

HOST = socket.gethostname()
#: Participants of ``bids``.
LABELS = tuple(f'{index:02d}' for index in range(1, 8))
Tools = Callable[..., subprocess.CompletedProcess[str]]


OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'plain': ((), ()),
    'one-each': (('--per-task', '1', '--throttle', '2', '--no-group', '--requeue', '0'), ()),
    'site': (
        ('-p', 'long', '-A', 'proj', '--qos', 'low', '-t', '1-12', '--mem', '16G', '-c', '8'),
        ('--threshold', '0.3', '--no-zones', '-vv', '--modality', 't2s'),
    ),
    'gpu': (('--gres', 'gpu:a100:1', '--container', 'docker://x/y:1', '--setup', 'ml gpu'), ()),
    'docker': (('--container', 'x/y:1', '--runtime', 'docker', '--bind', '/opt/x y'), ()),
    'podman': (('--container', 'x/y:1', '--runtime', 'podman', '--gres', 'gpu:1'), ()),
    'conda': (('--conda', 'cmb', '--sbatch=--constraint=avx2', '--no-group'), ()),
    'own-work': ((), ('--work-dir', '/w/a b', '--brain-mask', '/m/{participant}.nii')),
}


@pytest.mark.parametrize('name', OPTIONS)
def test_scripts_are_clean(make: Any, tmp_path: Path, name: str) -> None:
    options, passed = OPTIONS[name]
    if name == 'own-work':
        (tmp_path / 'out').mkdir()
    script = make(*options, passed=passed)
    subprocess.run(['bash', '-n', str(script.path)], check=True)
    if shutil.which('shellcheck') is None:
        pytest.skip('shellcheck is not installed')
    done = subprocess.run(
        ['shellcheck', str(script.path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, '')


def header(script: Any) -> list[str]:
    return [
        line.removeprefix('#SBATCH ')
        for line in script.text.splitlines()
        if line.startswith('#SBATCH')
    ]


def test_head_of_the_script(make: Any, tmp_path: Path) -> None:
    script = make(
        '--per-task', 2, '-p', 'gpu', '-A', 'lab', '--qos', 'low', '--mem', '16G', '-c', 8,
        '--gres', 'gpu:1', '--throttle', 3, '--sbatch', 'constraint=avx2', '--requeue', 0,
    )  # fmt: skip
    assert header(script) == [
        '--job-name=shivacmb',
        '--array=0-3%3',
        '--partition=gpu',
        '--account=lab',
        '--qos=low',
        # 10 minutes and 2 for each of 2 scans, in full tens
        '--time=00:20:00',
        '--ntasks=1',
        '--cpus-per-task=8',
        '--mem=16G',
        '--gres=gpu:1',
        f'--output={tmp_path}/out/logs/slurm/%A_%a.log',
        '--open-mode=append',
        '--signal=B:USR1@120',
        '--no-requeue',
        '--constraint=avx2',
    ]
    assert (tmp_path / 'out' / 'logs' / 'slurm').is_dir()
    assert '--device gpu' in script.text
    assert '--gres=none' in script.text
    assert '--device cpu' in make().text


@pytest.mark.parametrize('listed', [False, True])
def test_each_participant_is_in_one_task(make: Any, tmp_path: Path, *, listed: bool) -> None:
    extra = ('--list', tmp_path / 'todo list.txt') if listed else ()
    script = make('--per-task', 3, *extra)
    seen = []
    for number in range(3):
        done = script.task(number)
        assert done.returncode == 0, done.stderr
        seen.append(script.labels())
    assert seen == [['01', '02', '03'], ['04', '05', '06'], ['07']]
    assert ('END' in script.text) is not listed


def test_what_a_task_runs(make: Any, tmp_path: Path, bids: Path, spot_bundle: Path) -> None:
    script = make('--per-task', 7, passed=('--threshold', '0.3', '--min-size=5'))
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    work = words.pop()
    assert words == [
        *(str(bids), str(tmp_path / 'out'), 'participant', '--participant-label', *LABELS),
        *('--model', str(spot_bundle), '--device', 'cpu', '--threshold', '0.3'),
        *('--min-size', '5', '--nprocs', '3', '--work-dir'),
    ]
    # on the node's own disk, and gone by now
    assert Path(work).parent == script.tmp
    assert not list(script.tmp.iterdir())


@pytest.mark.parametrize('code', [0, 1, 65, 137])
def test_exit_code_is_that_of_the_app(make: Any, code: int) -> None:
    done = make().task(0, CODE=str(code))
    assert done.returncode == code
    assert f'exit code {code}\n' in done.stdout
    assert 'scontrol' not in done.stdout


@pytest.mark.parametrize(
    ('restarts', 'options', 'queued'),
    [('', (), True), ('1', (), True), ('2', (), False), ('', ('--requeue', '0'), False)],
)
def test_try_later_is_queued_again(
    make: Any, restarts: str, options: tuple[str, ...], *, queued: bool
) -> None:
    env = {'SLURM_RESTART_COUNT': restarts} if restarts else {}
    done = make(*options).task(0, CODE='75', **env)
    assert done.returncode == 75
    assert ('scontrol requeue 5_0' in done.stdout) is queued


@pytest.mark.parametrize(('number', 'queued'), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_signals_reach_the_app(make: Any, number: signal.Signals, *, queued: bool) -> None:
    script = make()
    process = script.start()
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out.startswith('term\n')
    assert ('scontrol requeue 5_0' in out) is queued
    assert not list(script.tmp.iterdir())


@pytest.mark.parametrize('runtime', ['docker', 'podman'])
def test_a_container_that_is_no_child_of_the_task_ends_with_it(make: Any, runtime: str) -> None:
    script = make('--container', 'x/y:1', '--runtime', runtime)
    process = script.start()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert 'exit code 143\n' in out
    words = script.seen.read_text().splitlines()
    name = words[words.index('--name') + 1]
    assert re.fullmatch(r'shivacmb-\w{8}', name)
    told = Path(f'{script.seen}.told').read_text().splitlines()
    assert told == [f'kill --signal TERM {name}', f'stop --time 10 {name}']


def test_signal_to_both_keeps_the_exit_code(make: Any) -> None:
    """scancel signals the script and the app at once."""
    script = make()
    process = script.start(start_new_session=True)
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert 'exit code 143\n' in out


def test_group_job_follows_the_array(make: Any, tmp_path: Path, bids: Path) -> None:
    script = make('--job-name', 'cmb')
    environment = script.environment
    done = subprocess.run(
        ['bash', script.path], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == 'array job 42\nthen group job 42\n'
    array, group = script.seen.read_text().splitlines()
    assert array.split() == ['--parsable', str(script.path)]
    assert group.split() == [
        *('--parsable', '--dependency=afterany:42', '--array=0', '--job-name=cmb-group'),
        # no longer than a task, so that the partition takes it
        *('--time=00:30:00', '--mem=4G', '--cpus-per-task=1'),
        f'--output={tmp_path}/out/logs/slurm/group-%A.log',
        '--signal=B:USR1@120',
        *(str(script.path), 'group'),
    ]
    script.task(0, 'group')
    assert script.seen.read_text().split() == [str(bids), str(tmp_path / 'out'), 'group']


@pytest.mark.parametrize(
    ('words', 'expected'),
    [(('-t', '2-0'), '01:00:00'), (('-t', '20'), '20'), (('--group-time', '5:00:00'), '5:00:00')],
)
def test_time_of_the_group_job(make: Any, words: tuple[str, ...], expected: str) -> None:
    assert f'--time={expected} --mem=4G --cpus-per-task=1' in make(*words).text


def test_group_job_is_not_told_to_stop_as_it_starts(make: Any) -> None:
    script = make('-t', '4:00:00', '--grace', 3600)
    assert '--signal=B:USR1@3600' in header(script)
    # half of its hour, less the minute that SLURM may be early
    assert '--signal=B:USR1@1740 \\\n' in script.text


def test_array_is_named_though_the_group_job_is_refused(make: Any, fake: Path) -> None:
    script = make()
    (fake / 'bin' / 'sbatch').write_text(
        '#!/bin/bash\n'
        '[[ $* != *group ]] || { echo "Requested time limit is invalid" >&2; exit 1; }\n'
        'echo 42\n'
    )
    done = subprocess.run(
        ['bash', script.path], env=script.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, 'array job 42\n')
    assert done.stderr == (
        'Requested time limit is invalid\nthe array is submitted, the group job is not: '
        'run the group level when job 42 has ended\n'
    )


def test_task_without_scratch_says_whose_it_was(make: Any) -> None:
    script = make('--scratch', '/nowhere/$NOT_SET_ANYWHERE', '--per-task', 2)
    done = script.task(1)
    assert done.returncode == 73
    assert done.stdout == f'task 1 on {HOST}: 03 04\nexit code 73\n'
    assert 'NOT_SET_ANYWHERE' in done.stderr


def test_submission_without_sbatch_is_one_sentence(make: Any, tmp_path: Path) -> None:
    (tmp_path / 'bin').mkdir()
    for name in ('mkdir', 'bash'):
        (tmp_path / 'bin' / name).symlink_to(shutil.which(name) or '')
    script = make()
    done = subprocess.run(
        ['bash', script.path], env={'PATH': str(tmp_path / 'bin')}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 127
    assert done.stderr == 'there is no sbatch here: submit this on a machine of the cluster\n'


def test_lines_of_a_site_come_before_a_container_is_stopped(make: Any) -> None:
    script = make(
        '--container', 'x', '--runtime', 'podman', '--setup', 'echo set up >> "$SEEN.told"'
    )
    process = script.start()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    told = Path(f'{script.seen}.told').read_text().splitlines()
    assert [line.partition(' ')[0] for line in told] == ['set', 'set', 'kill', 'set', 'stop']


def test_lines_of_a_site_may_use_variables_that_are_not_set(make: Any) -> None:
    script = make('--setup', 'export LOADED="$NOT_SET_ANYWHERE"')
    done = script.task(0)
    assert done.returncode == 0, done.stderr


def test_without_group_it_wants_sbatch(make: Any) -> None:
    script = make('--no-group')
    done = subprocess.run(
        ['bash', script.path], env=script.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr == f'submit this: sbatch {script.path}\n'


def test_names_with_odd_letters(make: Any, tmp_path: Path) -> None:
    out = tmp_path / 'o \'u\' $t; #5%"2"'
    script = make(out=out)
    assert script.task(0).returncode == 0
    assert script.seen.read_text().splitlines()[1] == str(out)
    # sbatch takes %A for a number, words apart at spaces, and # for a comment
    quoted = str(out).replace('%', '%%').replace('"', '\\"')
    assert f'--output="{quoted}/logs/slurm/%A_%a.log"' in header(script)
    assert f'--output="{tmp_path}/a#b/logs' in make(out=tmp_path / 'a#b').text


@pytest.mark.parametrize('name', ['a\nb', 'a\\b', 'a\udce9b'])
def test_names_that_a_script_cannot_hold(
    tools_main: Tools, tmp_path: Path, bids: Path, spot_bundle: Path, name: str
) -> None:
    done = tools_main('slurm', bids, tmp_path / name, '--', '--model', spot_bundle)
    assert (done.returncode, done.stdout) == (64, '')
    assert 'cannot stand in the script; rename it, or give a link to it' in done.stderr


def finished_log(script: Any, text: str, number: int = 0, **env: str) -> str:
    """Run a task whose output goes to a file that SLURM opened; return where it ended up."""
    made = script.path.parent / 'out' / 'logs' / 'slurm' / f'5_{number}.log'
    with made.open('a') as stream:
        done = subprocess.run(
            ['bash', str(script.path)],
            env=script.environment | script.slurm(number) | env,
            stdout=stream,
            stderr=stream,
            timeout=60,
            check=False,
        )
        # SLURM itself has a last word
        stream.write(text)
    assert done.returncode in (0, 75)
    assert not made.exists()
    [found] = script.path.parent.glob(f'out/logs/slurm/5/**/{number}.log')
    return str(found)


def test_output_of_a_task_moves_to_a_folder_of_its_array(make: Any, tmp_path: Path) -> None:
    script = make('--per-task', 1)
    found = finished_log(script, 'first end\n', CODE='75')
    assert found == f'{tmp_path}/out/logs/slurm/5/0.log'
    again = finished_log(script, 'second end\n', SLURM_RESTART_COUNT='1')
    assert again == found
    lines = Path(found).read_text().splitlines()
    assert [line for line in lines if line.startswith(('task', 'exit')) or 'end' in line] == [
        *(f'task 0 on {HOST}: 01', 'exit code 75', 'first end'),
        *(f'task 0 on {HOST}: 01', 'exit code 0', 'second end'),
    ]


def test_large_array_has_a_folder_per_thousand(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_script, 'LOGS_PER_FOLDER', 3)
    script = make('--per-task', 1)
    for number in range(7):
        finished_log(script, '', number)
    logs = tmp_path / 'out' / 'logs' / 'slurm' / '5'
    assert sorted(str(path.relative_to(logs)) for path in logs.rglob('*.log')) == [
        *('0/0.log', '0/1.log', '0/2.log', '1/3.log', '1/4.log', '1/5.log', '2/6.log'),
    ]


def test_output_elsewhere_is_left_there(make: Any, tmp_path: Path) -> None:
    script = make()
    done = script.task(0)
    assert done.returncode == 0
    assert list((tmp_path / 'out' / 'logs' / 'slurm').iterdir()) == []


def test_options_of_one_letter(make: Any) -> None:
    script = make('--sbatch', '-C haswell', '--sbatch', 'exclusive')
    assert {'-C haswell', '--exclusive'} <= set(header(script))


def test_plugin_in_a_file_of_settings_is_refused(
    tools_main: Tools, tmp_path: Path, bids: Path
) -> None:
    (tmp_path / 'plugin.yml').write_text('plugin: SLURM\n')
    config = tmp_path / 'settings.toml'
    config.write_text(f'[settings]\nuse_plugin = "{tmp_path}/plugin.yml"\n')
    done = tools_main('slurm', bids, tmp_path / 'out', '--', '--config-file', config)
    assert done.returncode == 64
    assert 'use_plugin: a task would submit jobs; use either the array or' in done.stderr


def test_lists_in_files_are_read_here(make: Any, tmp_path: Path) -> None:
    out = tmp_path / 'leave-out.txt'
    out.write_text('01\n02\n')
    script = make('--per-task', 9, passed=('--exclude-participant-label', out))
    assert script.task(0).returncode == 0
    assert script.labels() == list(LABELS[2:])
    assert 'leave-out' not in script.text
