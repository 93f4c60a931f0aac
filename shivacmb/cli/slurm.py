"""``shivacmb-tools slurm BIDS_DIR OUT_DIR``: print the script of a SLURM array job."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.cli import slurm_queue
from shivacmb.cli.main import check_folders, say
from shivacmb.cli.passed import as_words, parse_passed, settings_of
from shivacmb.cli.slurm_logs import arrays_seen
from shivacmb.cli.slurm_options import PER_TASK, add_command, seconds, wants_gpu
from shivacmb.cli.slurm_script import Job, Place, Resources, check_bind, render
from shivacmb.exceptions import ModelError, NoInputError, OutputError, UsageError
from shivacmb.paths import expand_home

if TYPE_CHECKING:
    from shivacmb.bids import Scan
    from shivacmb.cli.settings import Settings

# A scan takes some ten seconds on four processors; busy nodes and file servers take their share
MINUTES_TO_START, MINUTES_PER_SCAN = 10, 2
MODELS = 'SHIVACMB_MODELS'
#: SLURM may send its signal so much earlier than it was told.
EARLY_S = 60
_DECIDED = ('participant_label', 'exclude_participant_label')
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
    add_command(commands).set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the script; return the exit code."""
    from shivacmb.bids import parse_labels

    typed = parse_passed(args.bids_dir, args.out_dir, args.passed)
    for name, remedy in _NOT_PASSED.items():
        if hasattr(typed, name):
            raise UsageError(f'after --: --{name.replace("_", "-")}: {remedy}')
    if args.participant_label:
        typed.participant_label = args.participant_label
        if not parse_labels(args.participant_label):
            # the list of what is to be done again may be empty
            say('--participant-label names nobody; nothing to submit')
            return 0
    settings = settings_of(typed)
    if settings.use_plugin is not None:
        raise UsageError(f'--config-file: use_plugin: {_NOT_PASSED["use_plugin"]}')
    check_folders(settings)
    for path in (settings.bids_dir, settings.out_dir, args.log_dir or settings.out_dir):
        _check_path(path)
    if settings.device == 'auto':
        # The login node would choose another one than the node that does the work
        typed.device = 'gpu' if wants_gpu(args.gres) else 'cpu'
    if args.container is not None and settings.models_dir is None:
        models_dir = _models_outside(settings)
        if models_dir is not None:
            typed.models_dir = models_dir
    settings = settings_of(typed)
    scans = _choose(settings, args)
    if not scans:
        say('every scan is finished with these settings; nothing to submit')
        return 0
    job = _job(args, typed, scans)
    resources = _resources(args, job, scans)
    if seconds(resources.time) <= args.grace + EARLY_S:
        raise UsageError(
            f'--time {resources.time} leaves no time before the app is told to stop (--grace '
            f'{args.grace}, and up to {EARLY_S} s earlier); give more time or a shorter --grace'
        )
    if job.group and seconds(resources.group_time) <= 2 * EARLY_S:
        raise UsageError(
            f'the group job has {resources.group_time} only; give --group-time more than 2 minutes'
        )
    place = _place(args, settings, typed)
    text = render(job, resources, place)
    _make_folders(job)
    if args.list is not None:
        _write_list(args.list, ''.join(f'{label}\n' for label in job.participants))
    sys.stdout.write(text)
    arrays = arrays_seen(job.log_dir)
    for array, number in slurm_queue.count_tasks(arrays, running=True).items():
        say(
            f'note: {number} task(s) of SLURM job {array} wait or run on this OUT_DIR; what they '
            'have not finished is in this script too'
        )
    say(f'{job.scans} scan(s) of {len(job.participants)} participant(s) in {job.tasks} task(s)')
    return 0


def _check_path(path: Path) -> None:
    """Refuse a path that a line of the script cannot hold."""
    text = str(path)
    try:
        text.encode('utf-8')
    except UnicodeEncodeError:
        raise UsageError(
            f'the path <{path}> is no UTF-8, and so cannot stand in the script; rename it, or '
            'give a link to it'
        ) from None
    if any(letter == '\\' or ord(letter) < 32 for letter in text):
        # a backslash tells SLURM to fill in nothing
        raise UsageError(
            f'the path <{path}> has a backslash, a line break or another control character, and '
            'so cannot stand in the script; rename it, or give a link to it'
        )


def _models_outside(settings: Settings) -> Path | None:
    """Folder of an installed model that the image does not have: containers see no home."""
    from shivacmb.models.locate import (
        DEFAULT,
        DEFAULT_MODEL,
        SHIPPED,
        bundle_folders,
        user_models_dir,
    )  # fmt: skip

    if os.environ.get(MODELS):
        named = user_models_dir().absolute()
        if named.is_dir():
            return named
        say(f'note: the folder <{named}> of ${MODELS} cannot be seen from here and is left out')
        return None
    name = DEFAULT_MODEL if settings.model == DEFAULT else settings.model
    folder = bundle_folders().get(name)
    return None if folder is None or folder.parent == SHIPPED else folder.parent.absolute()


def _choose(settings: Settings, args: argparse.Namespace) -> list[Scan]:
    """Find the scans that are to be done, and say what was left out."""
    from shivacmb.cli import plans
    from shivacmb.cli.run import is_done, prepare, search
    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.models import find_bundle

    found = search(settings)
    for participant in found.missing:
        verb = 'is' if participant in found.absent else 'has'
        say(f'left out: sub-{participant} {verb} {found.why_missing(participant)}')
    for item in found.misnamed:
        say(f'left out: <{item.path}>: {item.reason}')
    if not found.scans:
        raise NoInputError(f'no scan to process in <{settings.bids_dir}>; see shivacmb --dry-run')
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
        try:
            if isinstance(plan, ShivaCMBError):
                raise plan
            if is_done(settings, scan, plan):
                continue
        except ShivaCMBError:
            broken += 1
        todo.append(scan)
    if len(todo) < len(found.scans):
        say(f'left out: {len(found.scans) - len(todo)} scan(s) that are finished')
    if broken:
        say(f'{broken} scan(s) will fail as things are; shivacmb --dry-run says why')
    return todo


def _job(args: argparse.Namespace, typed: argparse.Namespace, scans: Sequence[Scan]) -> Job:
    from shivacmb.bids import parse_labels

    participants = list(dict.fromkeys(scan.participant for scan in scans))
    least = -(-len(participants) // args.max_tasks)
    per_task = args.per_task or max(PER_TASK, least)
    if per_task < least:
        raise UsageError(
            f'--per-task {per_task} makes {-(-len(participants) // per_task)} tasks, and '
            f"--max-tasks is {args.max_tasks}; take at least {least} per task, or give the site's "
            'limit (scontrol show config | grep MaxArraySize)'
        )
    # Who is processed has been decided here; lists in files may not be seen by the nodes
    passed = {name: value for name, value in vars(typed).items() if name not in _DECIDED}
    if 'session_label' in passed:
        passed['session_label'] = list(parse_labels(passed['session_label'], 'ses-') or ())
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
    time = f'{minutes // 60:02d}:{minutes % 60:02d}:00'
    # a partition that takes the array takes the group job too
    group_time = args.group_time or min(args.time or time, '01:00:00', key=seconds)
    return Resources(
        time=args.time or time,
        mem=args.mem,
        cpus=args.cpus,
        gres=args.gres,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        throttle=args.throttle,
        grace_s=args.grace,
        group_time=group_time,
        group_grace_s=min(args.grace, max(1, seconds(group_time) // 2 - EARLY_S)),
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
            image = str(expand_home(image).absolute())
            if not Path(image).exists():
                say(f'note: the image <{image}> cannot be seen from here')
        for path in args.bind:
            if not path.exists():
                say(f'note: the folder <{path}> of --bind cannot be seen from here')
        gpu = settings.device == 'gpu'
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
        return Place(
            setup=[*setup, 'eval "$(conda shell.bash hook)"', f'conda activate {args.conda}']
        )
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


def _write_list(path: Path, text: str) -> None:
    """Write the labels beside the script, but not over those of another script."""
    from shivacmb.bids import write_text

    if path.exists() and path.read_text('utf-8', errors='replace') != text:
        raise UsageError(
            f'--list <{path}> exists and holds something else, perhaps for a script whose tasks '
            'still wait; give another name, or remove it'
        )
    write_text(path, text)


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
