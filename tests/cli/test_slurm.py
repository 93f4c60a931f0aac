"""The script of an array job: what it says, and what it does under SLURM's signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import ScanRecord, find_scans, output_paths, write_record
from shivacmb.cli import plans, slurm_script
from shivacmb.cli.passed import as_words, parse_passed, settings_of
from shivacmb.cli.run import _needed, prepare
from shivacmb.cli.slurm_options import seconds
from shivacmb.models import find_bundle

HOST = socket.gethostname()
LABELS = tuple(f'{index:02d}' for index in range(1, 8))
Tools = Callable[..., subprocess.CompletedProcess[str]]


def make_dataset(root: Path, labels: tuple[str, ...] = LABELS) -> Path:
    root.mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for label in labels:
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{label}_T2starw.nii.gz').write_bytes(b'not opened')
    return root


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / 'bids')


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A virtual environment whose shivacmb writes down what it was told, and other programs."""
    folder = tmp_path / 'venv' / 'bin'
    folder.mkdir(parents=True)
    programs = {
        'shivacmb': 'printf "%s\\n" "$@" > "$SEEN"\n[ -z "$SLOW" ] || {\n'
        'trap "echo term; exit 143" TERM\necho up\nwhile :; do sleep 0.02; done\n}\n'
        'exit "${CODE:-0}"\n',
        'scontrol': 'echo "scontrol $*"\n',
        'sbatch': 'printf "%s " "$@" >> "$SEEN"; echo >> "$SEEN"\necho "42;cluster"\n',
        'apptainer': 'printf "%s\\n" "$@" > "$SEEN"\n',
        'docker': 'printf "%s\\n" "$@" > "$SEEN"\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(f'#!/bin/bash\n{text}')
        (folder / name).chmod(0o755)
    return folder.parent


class Script:
    """A printed script, and ways to run it."""

    def __init__(self, text: str, tmp_path: Path, fake: Path) -> None:
        self.text = text
        self.path = tmp_path / 'run.sbatch'
        self.path.write_text(text)
        self.seen = tmp_path / 'seen'
        self.tmp = tmp_path / 'node'
        self.tmp.mkdir(exist_ok=True)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith('SLURM')},
            'PATH': f'{fake / "bin"}:{os.environ["PATH"]}',
            'SEEN': str(self.seen),
            'TMPDIR': str(self.tmp),
            'SLOW': '',
        }

    def task(self, number: int, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ['bash', str(self.path), *args],
            env=self.environment | self.slurm(number) | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def slurm(self, number: int) -> dict[str, str]:
        return {
            'SLURM_ARRAY_TASK_ID': str(number),
            'SLURM_ARRAY_JOB_ID': '5',
            'SLURM_JOB_ID': '7',
            'SLURM_CPUS_PER_TASK': '3',
        }

    def labels(self) -> list[str]:
        words = self.seen.read_text().splitlines()
        start = words.index('--participant-label') + 1
        end = next((i for i, word in enumerate(words) if i >= start and word[0] == '-'), None)
        return words[start:end]


@pytest.fixture
def make(tools_main: Tools, tmp_path: Path, bids: Path, fake: Path, spot_bundle: Path) -> Any:
    def made(*options: Any, passed: tuple[Any, ...] = (), out: Path | None = None) -> Script:
        place = () if '--container' in options or '--conda' in options else ('--venv', fake)
        done = tools_main(
            'slurm', bids, out or tmp_path / 'out', *place, *options,
            '--', '--model', spot_bundle, *passed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Script(done.stdout, tmp_path, fake)

    return made


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


def header(script: Script) -> list[str]:
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
    process = subprocess.Popen(
        ['bash', str(script.path)],
        env=script.environment | script.slurm(0) | {'SLOW': '1'},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != 'up\n':
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert out.startswith('term\n')
    assert ('scontrol requeue 5_0' in out) is queued
    assert not list(script.tmp.iterdir())


def test_signal_to_both_keeps_the_exit_code(make: Any) -> None:
    """scancel signals the script and the app at once."""
    script = make()
    process = subprocess.Popen(
        ['bash', str(script.path)],
        env=script.environment | script.slurm(0) | {'SLOW': '1'},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != 'up\n':
        time.sleep(0.01)
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
    assert done.stdout == 'array job 42, then group job 42\n'
    array, group = script.seen.read_text().splitlines()
    assert array.split() == ['--parsable', str(script.path)]
    assert group.split() == [
        *('--parsable', '--dependency=afterany:42', '--array=0', '--job-name=cmb-group'),
        *('--time=01:00:00', '--mem=4G', '--cpus-per-task=1'),
        f'--output={tmp_path}/out/logs/slurm/group-%A.log',
        *(str(script.path), 'group'),
    ]
    script.task(0, 'group')
    assert script.seen.read_text().split() == [str(bids), str(tmp_path / 'out'), 'group']


def test_without_group_it_wants_sbatch(make: Any) -> None:
    script = make('--no-group')
    done = subprocess.run(
        ['bash', script.path], env=script.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr == f'submit this: sbatch {script.path}\n'


def test_names_with_odd_letters(make: Any, tmp_path: Path) -> None:
    out = tmp_path / "o 'u' $t; 5%"
    script = make(out=out)
    assert script.task(0).returncode == 0
    assert script.seen.read_text().splitlines()[1] == str(out)
    # sbatch takes %A for a number, and words apart at spaces
    assert f'--output="{str(out).replace("%", "%%")}/logs/slurm/%A_%a.log"' in header(script)


def finished_log(script: Script, text: str, number: int = 0, **env: str) -> str:
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


@pytest.mark.parametrize('runtime', ['apptainer', 'docker'])
def test_temporary_files_of_a_container_are_on_the_disk_of_the_node(
    make: Any, runtime: str
) -> None:
    """Under --containall /tmp is a memory disk of 64 MB, and TMPDIR of the host is unknown."""
    script = make('--container', 'docker://x', '--runtime', runtime)
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert words[words.index('--env') + 1] == 'TMPDIR=/tmp'
    assert words[words.index('--work-dir') + 1] == '/tmp'
    given = words[words.index('--workdir' if runtime == 'apptainer' else '--volume') + 1]
    assert Path(given.removesuffix(':/tmp')).parent == script.tmp
    assert '--tmpfs' not in words


def test_container_sees_what_it_needs(make: Any, tmp_path: Path, bids: Path) -> None:
    masks = tmp_path / 'masks'
    for label in LABELS:
        (masks / f'sub-{label}').mkdir(parents=True)
        (masks / f'sub-{label}' / 'mask.nii').write_bytes(b'')
    filters = tmp_path / 'filter.json'
    filters.write_text('{}')
    pattern = f'{masks}/sub-{{participant}}/mask.nii'
    script = make(
        '--container', 'docker://lab/shivacmb:1', '--gres', 'gpu:1', '--bind', '/opt/atlas',
        passed=('--brain-mask', pattern, '--bids-filter-file', filters),
    )  # fmt: skip
    (tmp_path / 'out' / 'logs' / 'slurm' / '5_0.log').touch()
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert words[:4] == ['run', '--cleanenv', '--containall', '--nv']
    assert 'SLURM_JOB_ID=7' in words
    assert f'SHIVACMB_TASK_LOG={tmp_path}/out/logs/slurm/5/0.log' in words
    binds = [words[i + 1] for i, word in enumerate(words) if word == '--bind']
    out = tmp_path / 'out'
    assert binds[:2] == [f'{bids}:{bids}:ro', f'{out}:{out}']
    assert f'{filters}:{filters}:ro' in binds
    assert f'{masks}:{masks}:ro' in binds
    assert '/opt/atlas:/opt/atlas:ro' in binds
    assert words[words.index('docker://lab/shivacmb:1') + 1] == str(bids)


REFUSED = {
    ('--', '--thresold', '0.5'): 'after --: unrecognized arguments: --thresold 0.5',
    ('--', '--threshold', '7'): 'after --: argument --threshold: expected a number above 0',
    ('--', '--participant-label', '01'): 'give --participant-label before --',
    ('--', '--dry-run'): 'run shivacmb --dry-run itself',
    ('--per-task', '1', '--max-tasks', '3'): '--per-task 1 makes 7 tasks, and --max-tasks is 3; '
    'take at least 3 per task',
    ('--time', '3'): '--time 3 leaves no time before the app is told to stop (--grace 120',
    ('--container', 'a', '--venv', '/v'): 'give one of --container, --venv and --conda',
    ('--bind', '/x'): '--bind is for --container',
    ('--venv', '/nowhere'): '--venv </nowhere> has no bin/shivacmb',
    ('--container', 'a', '--bind', '/x,y'): '</x,y> cannot be bound into a container',
}


@pytest.mark.parametrize('words', REFUSED)
def test_mistakes_are_found_before_submission(
    tools_main: Tools, bids: Path, tmp_path: Path, spot_bundle: Path, words: tuple[str, ...]
) -> None:
    last = () if '--' in words else ('--',)
    done = tools_main('slurm', bids, tmp_path / 'out', *words, *last, '--model', spot_bundle)
    assert (done.returncode, done.stdout) == (64, '')
    assert REFUSED[words] in done.stderr


@pytest.mark.parametrize(
    'words',
    [
        ('--time', 'soon'), ('--mem', 'much'), ('--partition', 'a b'), ('--cpus', '0'),
        ('--scratch', '$(rm x)'), ('--setup', 'a\nb'), ('--gres', '--x'),
    ],
)  # fmt: skip
def test_what_sbatch_would_refuse(tools_main: Tools, tmp_path: Path, words: Any) -> None:
    done = tools_main('slurm', tmp_path, tmp_path / 'out', *words)
    assert done.returncode == 64
    assert 'expected' in done.stderr


def finish(bids: Path, out: Path, bundle: Path, label: str, *words: str) -> None:
    """Write what a run with these options would have left of a participant."""
    settings = settings_of(
        parse_passed(bids, out, ['--model', str(bundle), '--device', 'cpu', *words])
    )
    model = find_bundle(settings.model)
    detection = plans.build_detection(settings, model)
    for scan in find_scans(bids, participants=[label]).scans:
        _, plan = prepare(settings, scan, detection, model)
        values = {'warnings': (), **plan.facts['record']}  # type: ignore[union-attr]
        for key in _needed(plan):  # type: ignore[arg-type]
            path = output_paths(out, scan)[key]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'')
        write_record(out, ScanRecord(**values))


def test_only_what_is_not_finished(
    tools_main: Tools, make: Any, bids: Path, tmp_path: Path, spot_bundle: Path
) -> None:
    out = tmp_path / 'out'
    for label in ('02', '05'):
        finish(bids, out, spot_bundle, label)
    script = make('--per-task', 9)
    script.task(0)
    assert script.labels() == ['01', '03', '04', '06', '07']
    make('--per-task', 9, '--all').task(0)
    assert script.labels() == list(LABELS)
    # finished, but with another threshold
    make('--per-task', 9, passed=('--threshold', '0.2')).task(0)
    assert script.labels() == list(LABELS)
    labels = tmp_path / 'todo.txt'
    labels.write_text('02\nsub-03\n')
    make('--participant-label', labels).task(0)
    assert script.labels() == ['03']
    done = tools_main(
        'slurm', bids, out, '--participant-label', '02', '05', '--', '--model', spot_bundle
    )
    assert (done.returncode, done.stdout) == (0, '')
    assert 'every scan is finished with these settings; nothing to submit' in done.stderr


def test_many_participants_share_tasks(
    tools_main: Tools, tmp_path: Path, spot_bundle: Path
) -> None:
    bids = make_dataset(tmp_path / 'many', tuple(f'{index:03d}' for index in range(50)))
    done = tools_main(
        'slurm', bids, tmp_path / 'out', '--max-tasks', 4, '--', '--model', spot_bundle
    )
    assert '\nper_task=13\n' in done.stdout
    assert '#SBATCH --array=0-3\n' in done.stdout
    assert done.stderr.endswith('50 scan(s) of 50 participant(s) in 4 task(s)\n')


def test_participants_without_a_scan_are_named(
    tools_main: Tools, bids: Path, tmp_path: Path, spot_bundle: Path
) -> None:
    (bids / 'sub-03' / 'anat' / 'sub-03_T2starw.nii.gz').unlink()
    done = tools_main(
        'slurm', bids, tmp_path / 'out', '--participant-label', '02', '03', '99',
        '--', '--model', spot_bundle,
    )  # fmt: skip
    assert done.returncode == 0
    assert 'left out: sub-03 has no usable scan' in done.stderr
    assert 'left out: sub-99 is not in the dataset' in done.stderr


@pytest.mark.parametrize(
    'words',
    [
        ['--threshold', '0.3', '-vv', '--no-zones', '--mem-gb', '6'],
        ['--session-label', '1', 'ses-2', '--modality', 'swi', '--model', 'no-such-folder'],
        ['--exclude_participant_label', '01', '--n-cpus', '2', '-q', '-w', 'here'],
    ],
)
def test_options_written_again_mean_the_same(words: list[str], tmp_path: Path) -> None:
    typed = parse_passed(tmp_path, tmp_path / 'out', words)
    again = [word for line in as_words(typed) for word in line]
    assert parse_passed(tmp_path, tmp_path / 'out', again) == typed


def test_derivatives_and_files_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('deriv', 'bundle'):
        (tmp_path / name).mkdir()
    words = ['-d', 'a=deriv', '-d', 'deriv', '--model', 'bundle', '--brain-mask', 'm/{stem}.nii']
    lines = as_words(parse_passed(tmp_path, tmp_path / 'out', words))
    assert sorted(map(json.dumps, lines)) == sorted(
        json.dumps(line)
        for line in (
            ['--derivatives', f'a={tmp_path}/deriv'],
            ['--derivatives', f'deriv={tmp_path}/deriv'],
            ['--model', f'{tmp_path}/bundle'],
            ['--brain-mask', f'{tmp_path}/m/{{stem}}.nii'],
        )
    )


@pytest.mark.parametrize(
    ('time_limit', 'expected'),
    [('5', 300), ('5:30', 330), ('1:00:05', 3605), ('1-2', 93600), ('1-2:30', 95400),
     ('2-0:0:1', 172801)],
)  # fmt: skip
def test_time_limits_in_seconds(time_limit: str, expected: int) -> None:
    assert seconds(time_limit) == expected


def test_container_knows_where_models_are(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SHIVACMB_MODELS', str(tmp_path / 'models'))
    script = make('--container', 'docker://x')
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert f'{tmp_path}/models:{tmp_path}/models:ro' in words
    assert words[words.index('--models-dir') + 1] == str(tmp_path / 'models')


def test_lists_in_files_are_read_here(make: Any, tmp_path: Path) -> None:
    out = tmp_path / 'leave-out.txt'
    out.write_text('01\n02\n')
    script = make('--per-task', 9, passed=('--exclude-participant-label', out))
    assert script.task(0).returncode == 0
    assert script.labels() == list(LABELS[2:])
    assert 'leave-out' not in script.text
