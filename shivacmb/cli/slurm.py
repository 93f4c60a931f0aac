"""``shivacmb-tools slurm BIDS_DIR OUT_DIR``: print the script of a SLURM array job."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.cli import types
from shivacmb.cli.main import check_folders, say
from shivacmb.cli.passed import as_words, parse_passed, settings_of
from shivacmb.cli.slurm_script import RUNTIMES, SCRATCH, Job, Place, Resources, check_bind, render
from shivacmb.exceptions import ModelError, OutputError, UsageError

if TYPE_CHECKING:
    from shivacmb.bids import Scan
    from shivacmb.cli.settings import Settings

#: A start costs as much as a scan or two; tasks of some minutes suit schedulers.
PER_TASK = 10
#: SLURM's own limit (MaxArraySize) is 1001 unless the site raised it.
MAX_TASKS = 1000
# A scan takes some ten seconds on four processors; busy nodes and file servers take their share
MINUTES_TO_START, MINUTES_PER_SCAN = 10, 2
# What makes no sense in a task, and what the script says itself
_NOT_PASSED = {
    'participant_label': 'give --participant-label before --, so that it can be shared out',
    'dry_run': 'run shivacmb --dry-run itself to see what would be done',
    'reports_only': 'run shivacmb --reports-only itself, after the array',
    'boilerplate_only': 'run shivacmb --boilerplate-only itself',
    'use_plugin': 'a task would submit jobs; use either the array or --use-plugin',
}


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
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
    parser.set_defaults(handler=run)


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
        '--mem', type=slurm_memory, default='8G', metavar='SIZE', help='of a task (default: 8G)'
    )
    group.add_argument(
        '-c', '--cpus', type=types.positive_int, default=4, metavar='N', help='(default: 4)'
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
        type=slurm_line,
        metavar='OPTION',
        help='a further line, e.g. constraint=avx2; may be repeated',
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('where shivacmb is (default: in this Python environment)')
    group.add_argument('--container', metavar='IMAGE', help='image file, or name of an image')
    group.add_argument('--runtime', choices=RUNTIMES, default='apptainer', help='of the container')
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
        help='write the participants to this file, which the tasks read, instead of the script',
    )
    group.add_argument('--no-group', action='store_true', help='leave out the group job')
    group.add_argument('--group-time', type=slurm_time, default='01:00:00', metavar='TIME')
    group.add_argument('--group-mem', type=slurm_memory, default='4G', metavar='SIZE')


def run(args: argparse.Namespace) -> int:
    """Print the script; return the exit code."""
    typed = parse_passed(args.bids_dir, args.out_dir, args.passed)
    for name, remedy in _NOT_PASSED.items():
        if hasattr(typed, name):
            raise UsageError(f'after --: --{name.replace("_", "-")}: {remedy}')
    if args.participant_label:
        typed.participant_label = args.participant_label
    settings = settings_of(typed)
    check_folders(settings)
    if settings.device == 'auto':
        typed.device = 'gpu' if (args.gres or '').startswith('gpu') else 'cpu'
        settings = settings_of(typed)
    scans = _choose(settings, args)
    if not scans:
        say('every scan is finished with these settings; nothing to submit')
        return 0
    job = _job(args, typed, scans)
    place = _place(args, settings, typed)
    text = render(job, _resources(args, job, scans), place)
    _make_folders(job)
    if args.list is not None:
        from shivacmb.bids import write_text

        write_text(args.list, ''.join(f'{label}\n' for label in job.participants))
    sys.stdout.write(text)
    say(f'{job.scans} scan(s) of {len(job.participants)} participant(s) in {job.tasks} task(s)')
    return 0


def _choose(settings: Settings, args: argparse.Namespace) -> list[Scan]:
    """Find the scans that are to be done, and say what was left out."""
    from shivacmb.bids import is_finished
    from shivacmb.cli import plans
    from shivacmb.cli.run import needed, prepare, search
    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.models import find_bundle

    found = search(settings)
    for participant in found.missing:
        where = 'is not in the dataset' if participant in found.absent else 'has no usable scan'
        say(f'left out: sub-{participant} {where}')
    if args.all or settings.overwrite:
        return list(found.scans)
    try:
        bundle = find_bundle(settings.model, settings.models_dir)
        detection = plans.build_detection(settings, bundle)
    except (ModelError, UsageError) as error:
        if args.container is None:
            raise
        # What only the container has cannot be known here
        say(f'taking finished scans too, as this cannot be known outside the container: {error}')
        return list(found.scans)
    todo, broken = [], 0
    for scan in found.scans:
        _, plan = prepare(settings, scan, detection, bundle)
        if isinstance(plan, ShivaCMBError):
            broken += 1
        elif is_finished(
            settings.out_dir, scan, plan.facts['record']['settings_hash'], needed(plan)
        ):
            continue
        todo.append(scan)
    if len(todo) < len(found.scans):
        say(f'left out: {len(found.scans) - len(todo)} scan(s) that are finished')
    if broken:
        say(f'{broken} scan(s) will fail as things are; shivacmb --dry-run says why')
    return todo


def _job(args: argparse.Namespace, typed: argparse.Namespace, scans: Sequence[Scan]) -> Job:
    participants = list(dict.fromkeys(scan.participant for scan in scans))
    least = -(-len(participants) // args.max_tasks)
    per_task = args.per_task or max(PER_TASK, least)
    if per_task < least:
        raise UsageError(
            f'--per-task {per_task} makes {-(-len(participants) // per_task)} tasks, and '
            f"--max-tasks is {args.max_tasks}; take at least {least} per task, or give the site's "
            'limit (scontrol show config | grep MaxArraySize)'
        )
    passed = {name: value for name, value in vars(typed).items() if name != 'participant_label'}
    return Job(
        bids_dir=args.bids_dir,
        out_dir=args.out_dir,
        log_dir=args.log_dir or args.out_dir / 'logs' / 'slurm',
        participants=participants,
        scans=len(scans),
        per_task=per_task,
        options=as_words(argparse.Namespace(**passed)),
        name=args.job_name,
        requeue=args.requeue,
        group=not args.no_group,
        scratch=None if hasattr(typed, 'work_dir') else args.scratch,
        list_file=args.list,
    )


def _resources(args: argparse.Namespace, job: Job, scans: Sequence[Scan]) -> Resources:
    most = Counter(scan.participant for scan in scans)
    shares = [
        sum(most[label] for label in job.participants[start : start + job.per_task])
        for start in range(0, len(job.participants), job.per_task)
    ]
    minutes = -(-(MINUTES_TO_START + MINUTES_PER_SCAN * max(shares)) // 10) * 10
    return Resources(
        time=args.time or f'{minutes // 60:02d}:{minutes % 60:02d}:00',
        mem=args.mem,
        cpus=args.cpus,
        gres=args.gres,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        throttle=args.throttle,
        grace_s=args.grace,
        group_time=args.group_time,
        group_mem=args.group_mem,
        extra=args.sbatch,
    )


def _place(args: argparse.Namespace, settings: Settings, typed: argparse.Namespace) -> Place:
    if sum(item is not None for item in (args.container, args.venv, args.conda)) > 1:
        raise UsageError('give one of --container, --venv and --conda')
    setup = list(args.setup)
    if args.container is not None:
        for path in (args.bids_dir, args.out_dir):
            check_bind(path)
        image = args.container
        if args.runtime in ('apptainer', 'singularity') and '://' not in image:
            image = str(Path(image).expanduser().absolute())
            if not Path(image).exists():
                say(f'note: the image <{image}> cannot be seen from here')
        gpu = (args.gres or '').startswith('gpu')
        binds = _binds(settings, typed) + [(str(path), False) for path in args.bind]
        return Place(image=image, runtime=args.runtime, binds=binds, gpu=gpu, setup=setup)
    if args.bind:
        raise UsageError('--bind is for --container')
    if args.venv is not None:
        program = args.venv / 'bin' / 'shivacmb'
        if not program.is_file():
            raise UsageError(f'--venv <{args.venv}> has no bin/shivacmb; install shivacmb in it')
        return Place(program=str(program), setup=setup)
    if args.conda is not None:
        # Activation scripts use variables that are not set
        lines = ['set +u', 'eval "$(conda shell.bash hook)"', f'conda activate {args.conda}']
        return Place(setup=[*setup, *lines, 'set -u'])
    beside = Path(sys.executable).with_name('shivacmb')
    return Place(
        program=str(beside) if beside.is_file() else shutil.which('shivacmb') or 'shivacmb',
        setup=setup,
    )


def _binds(settings: Settings, typed: argparse.Namespace) -> list[tuple[str, bool]]:
    """Files and folders that the options name, for the container."""
    paths: list[Path | None] = [settings.bids_filter_file, settings.models_dir]
    paths += [getattr(typed, 'config_file', None), *settings.derivatives.values()]
    if Path(settings.model).exists():
        paths.append(Path(settings.model).absolute())
    if settings.brain_mask is not None:
        # The part before the first field in braces
        paths.append(Path(settings.brain_mask.partition('{')[0] + 'x').absolute().parent)
    binds = [(str(path), False) for path in paths if path is not None]
    return binds + ([(str(settings.work_dir), True)] if settings.work_dir else [])


def _make_folders(job: Job) -> None:
    """Make the log folder: SLURM fails tasks without a word where it is missing."""
    try:
        job.out_dir.mkdir(parents=True, exist_ok=True)
        job.log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'cannot make <{error.filename}>: {error.strerror}; SLURM needs it for the output of '
            'tasks, give another --log-dir or OUT_DIR'
        ) from error


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


def shell_path(value: str) -> str:
    """Path in which the shell may fill in variables, and do nothing else."""
    if not re.fullmatch(r'[A-Za-z0-9_./${}:@%+=~ -]+', value):
        raise argparse.ArgumentTypeError(
            f'expected a path, at most with $VARIABLES, got {value!r}'
        )
    return value
