"""Which participants an array job gets, and which options are refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import ScanRecord, find_scans, output_paths, write_record
from shivacmb.cli import plans
from shivacmb.cli.passed import as_words, parse_passed, settings_of
from shivacmb.cli.run import _needed, prepare
from shivacmb.cli.slurm_options import seconds
from shivacmb.models import find_bundle

#: Participants of ``bids``.
LABELS = tuple(f'{index:02d}' for index in range(1, 8))
Tools = Callable[..., subprocess.CompletedProcess[str]]


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
    ('--sbatch', 'array=1-3'): 'argument --sbatch: the script itself says array',
    ('--sbatch=--time=5',): 'the script itself says time; give --time',
    ('--sbatch', 'mem 5G'): 'the script itself says mem; give --mem',
    ('--sbatch', 'mem-per-gpu=5G'): 'the script itself says mem-per-gpu; give --mem',
    ('--sbatch', 'cpus-per-task=2'): 'the script itself says cpus-per-task; give --cpus',
    ('--sbatch=-t 5',): 'the script itself says time; give --time',
    ('--sbatch', 'gpus-per-node=1'): 'the script itself says gpus-per-node; give --gres gpu:N',
    ('--group-time', '2'): 'the group job has 2 only; give --group-time more than 2 minutes',
    ('--time', '1'): '--time 1 leaves no time before the app is told to stop',
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


@pytest.mark.parametrize('command', ['slurm', 'status'])
def test_forgotten_dashes_are_explained(tools_main: Tools, tmp_path: Path, command: str) -> None:
    words = (tmp_path, tmp_path / 'out') if command == 'slurm' else (tmp_path,)
    done = tools_main(command, *words, '--threshold', '0.3')
    assert done.returncode == 64
    assert (
        'unrecognized arguments: --threshold 0.3; options of shivacmb go after --' in done.stderr
    )


def test_nobody_to_submit(
    tools_main: Tools, bids: Path, tmp_path: Path, spot_bundle: Path
) -> None:
    empty = tmp_path / 'todo.txt'
    empty.write_text('')
    words = ('--', '--model', spot_bundle)
    done = tools_main('slurm', bids, tmp_path / 'out', '--participant-label', empty, *words)
    assert (done.returncode, done.stdout) == (0, '')
    assert '--participant-label names nobody; nothing to submit' in done.stderr
    done = tools_main('slurm', bids, tmp_path / 'out', '--participant-label', '99', *words)
    assert (done.returncode, done.stdout) == (66, '')
    assert 'left out: sub-99 is not in the dataset' in done.stderr
    assert f'no scan to process in <{bids}>' in done.stderr


def test_a_list_of_another_script_is_kept(
    tools_main: Tools, bids: Path, tmp_path: Path, spot_bundle: Path
) -> None:
    listed = tmp_path / 'l.txt'
    words = ('slurm', bids, tmp_path / 'out', '--list', listed)
    last = ('--', '--model', spot_bundle)
    assert tools_main(*words, *last).returncode == 0
    before = listed.read_text()
    assert before.split() == list(LABELS)
    assert tools_main(*words, *last).returncode == 0
    done = tools_main(*words, '--participant-label', '04', *last)
    assert (done.returncode, done.stdout) == (64, '')
    assert f'--list <{listed}> exists and holds something else' in done.stderr
    assert listed.read_text() == before


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
    tools_main: Tools, make_dataset: Any, tmp_path: Path, spot_bundle: Path
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
