"""The options of ``shivacmb-tools slurm``."""

from __future__ import annotations

import argparse
import re
from typing import Any

from shivacmb.cli import types
from shivacmb.cli.slurm_script import RUNTIMES, SCRATCH

#: A start costs as much as a scan or two; tasks of some minutes suit schedulers.
PER_TASK = 10
#: SLURM's own limit (MaxArraySize) is 1001 unless the site raised it.
MAX_TASKS = 1000


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand to an ``argparse`` subparsers object, and return its parser."""
    parser = commands.add_parser(
        'slurm',
        help='print the script of a SLURM array job',
        usage='shivacmb-tools slurm BIDS_DIR OUT_DIR [options] [-- SHIVACMB_OPTIONS] > run.sbatch',
        description='Print a batch script for SLURM: an array job over the participants that are '
        'not finished, then a job for the group level. Read it, edit it, submit it with '
        "'bash run.sbatch'. Options of shivacmb go after -- and are checked here.",
    )
    parser.add_argument('bids_dir', type=types.folder, metavar='BIDS_DIR', help='the dataset')
    parser.add_argument('out_dir', type=types.folder, metavar='OUT_DIR', help='the derivatives')
    _add_selection(parser)
    _add_resources(parser)
    _add_place(parser)
    _add_script(parser)
    return parser  # type: ignore[no-any-return]


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which participants')
    group.add_argument(
        '--participant-label',
        nargs='+',
        default=[],
        metavar='LABEL',
        help='labels, or a text file with one per line, such as status --format list prints',
    )
    group.add_argument(
        '--all',
        action='store_true',
        help='take finished participants too (their tasks pass over what is finished)',
    )
    group.add_argument(
        '--per-task',
        type=types.positive_int,
        metavar='N',
        help=f'participants per task (default: {PER_TASK}, more where there were too many tasks)',
    )
    group.add_argument(
        '--max-tasks',
        type=types.positive_int,
        default=MAX_TASKS,
        metavar='N',
        help=f"tasks that the site's MaxArraySize allows (default: {MAX_TASKS})",
    )


def _add_resources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what SLURM is asked for, in sbatch's words")
    group.add_argument('-p', '--partition', type=slurm_word, metavar='NAME')
    group.add_argument('-A', '--account', type=slurm_word, metavar='NAME')
    group.add_argument('--qos', type=slurm_word, metavar='NAME')
    group.add_argument(
        '-t',
        '--time',
        type=slurm_time,
        metavar='TIME',
        help='time limit of a task, e.g. 2:00:00 (default: from the number of scans)',
    )
    group.add_argument(
        '--mem',
        type=slurm_memory,
        default='8G',
        metavar='SIZE',
        help='memory of a task (default: 8G)',
    )
    group.add_argument(
        '-c',
        '--cpus',
        type=types.positive_int,
        default=4,
        metavar='N',
        help='processors of a task (default: 4)',
    )
    group.add_argument(
        '--gres',
        type=slurm_word,
        metavar='GRES',
        help='e.g. gpu:1; shivacmb is then run with --device gpu, else with --device cpu, unless '
        '--device is given after --',
    )
    group.add_argument(
        '--throttle', type=types.positive_int, metavar='N', help='tasks at once (array %%N)'
    )
    group.add_argument(
        '--grace',
        type=types.positive_int,
        default=120,
        metavar='SECONDS',
        help='how long before the time limit the app is told to stop (default: 120)',
    )
    group.add_argument(
        '--requeue',
        type=types.seed,
        default=2,
        metavar='N',
        help='how often a task is queued again when its time runs out or the app ends with 75, '
        '"try later" (default: 2; 0: never)',
    )
    group.add_argument(
        '--sbatch',
        action='append',
        default=[],
        type=sbatch_option,
        metavar='OPTION',
        help='a further line, without dashes, e.g. constraint=avx2; may be repeated',
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('where shivacmb is (default: in this Python environment)')
    group.add_argument('--container', metavar='IMAGE', help='image file, or name of an image')
    group.add_argument(
        '--runtime', choices=RUNTIMES, default='apptainer', help='program that runs it'
    )
    group.add_argument(
        '--bind',
        action='append',
        default=[],
        type=types.folder,
        metavar='DIR',
        help='a further folder that the container may read; may be repeated',
    )
    group.add_argument('--venv', type=types.folder, metavar='DIR', help='virtual environment')
    group.add_argument('--conda', type=slurm_word, metavar='NAME', help='conda environment')
    group.add_argument(
        '--setup',
        action='append',
        default=[],
        type=slurm_line,
        metavar='LINE',
        help="a line of shell that comes first, e.g. 'module load apptainer'; may be repeated",
    )


def _add_script(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('the script')
    group.add_argument('--job-name', type=slurm_word, default='shivacmb', metavar='NAME')
    group.add_argument(
        '--log-dir',
        type=types.folder,
        metavar='DIR',
        help='where the output of tasks goes; is made now (default: OUT_DIR/logs/slurm)',
    )
    group.add_argument(
        '--scratch',
        type=shell_path,
        default=SCRATCH,
        metavar='DIR',
        help="where nodes put intermediate files; may name variables: '/scratch/$USER' (default: "
        '$SLURM_TMPDIR, $TMPDIR or /tmp)',
    )
    group.add_argument(
        '--list',
        type=types.folder,
        metavar='FILE',
        help='write the participants to this new file, which the tasks read, instead of the '
        'script',
    )
    group.add_argument('--no-group', action='store_true', help='leave out the group job')
    group.add_argument(
        '--group-time',
        type=slurm_time,
        metavar='TIME',
        help='time limit of the group job (default: that of a task, at most 1:00:00)',
    )
    group.add_argument(
        '--group-mem',
        type=slurm_memory,
        default='4G',
        metavar='SIZE',
        help='memory of the group job (default: 4G)',
    )


def slurm_word(value: str) -> str:
    """One word of sbatch's."""
    if not re.fullmatch(r'[A-Za-z0-9_.,:=+@%/\[\]()&|*-]+', value) or value.startswith('-'):
        raise argparse.ArgumentTypeError(f'expected a word without spaces, got {value!r}')
    return value


def slurm_time(value: str) -> str:
    """Time limit as sbatch takes it."""
    forms = r'\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}'
    if not re.fullmatch(forms, value):
        raise argparse.ArgumentTypeError(
            f'expected minutes, hours:minutes:seconds or days-hours, got {value!r}'
        )
    return value


def seconds(time: str) -> int:
    """Seconds of a time limit: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = time.rpartition('-')
    parts = [int(part) for part in rest.split(':')]
    if dash:
        hours, minutes, secs = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, secs = parts
    else:
        hours, minutes, secs = 0, *(*parts, 0)[:2]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + secs


def slurm_memory(value: str) -> str:
    """Memory as sbatch takes it."""
    if not re.fullmatch(r'\d+[KMGT]?', value, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f'expected memory such as 8G or 8000M, got {value!r}')
    return value


def slurm_line(value: str) -> str:
    """One line, not empty."""
    if not value.strip() or '\n' in value or '\r' in value:
        raise argparse.ArgumentTypeError(f'expected one line, got {value!r}')
    return value


#: What the script says itself, and our option for it where there is one.
_SAID = {
    **dict.fromkeys(('array', 'output', 'error', 'open-mode', 'signal', 'ntasks', 'dependency')),
    # sbatch takes one of these three
    **dict.fromkeys(('mem', 'mem-per-cpu', 'mem-per-gpu'), '--mem'),
    'time': '--time', 'cpus-per-task': '--cpus', 'gres': '--gres',
    'partition': '--partition', 'account': '--account', 'qos': '--qos',
    'job-name': '--job-name', 'requeue': '--requeue N', 'no-requeue': '--requeue 0',
    # the group job is to have none, and a container must know of it
    **dict.fromkeys(('gpus', 'gpus-per-node', 'gpus-per-task', 'gpus-per-socket'), '--gres gpu:N'),
}  # fmt: skip
_LETTERS = {
    'a': 'array', 'o': 'output', 'e': 'error', 'n': 'ntasks', 'd': 'dependency', 't': 'time',
    'c': 'cpus-per-task', 'p': 'partition', 'A': 'account', 'q': 'qos', 'J': 'job-name',
    'G': 'gpus',
}  # fmt: skip


def sbatch_option(value: str) -> str:
    """One option of sbatch's that the script does not say itself, with its dashes."""
    line = slurm_line(value).strip().lstrip('-')
    name = re.split(r'[=\s]', line)[0]
    meant = _LETTERS.get(name, name)
    if meant in _SAID:
        remedy = f'; give {_SAID[meant]}' if _SAID[meant] else ''
        raise argparse.ArgumentTypeError(f'the script itself says {meant}{remedy}')
    return f'-{line}' if len(name) == 1 else f'--{line}'


def wants_gpu(gres: str | None) -> bool:
    """Tell whether generic resources, as sbatch takes them, have a GPU or a part of one."""
    kinds = (part.partition(':')[0] for part in (gres or '').split(','))
    return any(kind in ('gpu', 'shard', 'mps') for kind in kinds)


def shell_path(value: str) -> str:
    """Path in which the shell may fill in variables, and do nothing else."""
    if not re.fullmatch(r'[A-Za-z0-9_./${}:@%+=~ -]+', value):
        raise argparse.ArgumentTypeError(
            f'expected a path, at most with $VARIABLES, got {value!r}'
        )
    return value
