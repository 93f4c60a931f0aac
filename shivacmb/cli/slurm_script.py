"""The text of the script that ``shivacmb-tools slurm`` prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shivacmb import __version__
from shivacmb.exceptions import UsageError

TEMPLATE = 'array.sbatch.j2'
RUNTIMES = ('apptainer', 'singularity', 'docker', 'podman')
# Node-local where the site says so
SCRATCH = '${SLURM_TMPDIR:-${TMPDIR:-/tmp}}'
GROUP_LOG = 'group-%A.log'
TASK_LOG = '%A_%a.log'
# The log of a run names its job and the task's output, by which status finds them
# and the app plans with the memory of the job, which a container cannot always see
TOLD = (
    'SLURM_JOB_ID', 'SLURM_ARRAY_JOB_ID', 'SLURM_ARRAY_TASK_ID', 'SHIVACMB_TASK_LOG',
    'SLURM_MEM_PER_NODE', 'SLURM_MEM_PER_CPU', 'SLURM_CPUS_ON_NODE',
    'SLURM_MEM_PER_GPU', 'SLURM_GPUS_ON_NODE', 'SHIVACMB_GPU_WAIT',
)  # fmt: skip
BOUND = (('bids_dir', ':ro'), ('out_dir', ''))
#: Files of tasks in one folder; larger arrays have a folder per thousand.
LOGS_PER_FOLDER = 1000
# An empty array is an unset variable to bash before 4.4
_CARD = '${card[@]+"${card[@]}"}'
_NO_CHILD = '# no child of the task: the engine counts all cards of the node, as these numbers do'


@dataclass(frozen=True)
class Resources:
    """What SLURM is asked for, in its own words.

    Attributes
    ----------
    time, mem, cpus
        Of a task: ``01:00:00``, ``8G``, processors.
    gres, partition, account, qos
        As typed, or None.
    throttle
        Tasks at once, or None for no limit.
    grace_s
        Seconds before the time limit at which the app is told to stop.
    group_time, group_grace_s, group_mem
        Of the group job.
    extra
        Further options, with their dashes.
    """

    time: str
    mem: str = '8G'
    cpus: int = 4
    gres: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    throttle: int | None = None
    grace_s: int = 120
    group_time: str = '01:00:00'
    group_grace_s: int = 120
    group_mem: str = '4G'
    extra: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """Where the app is: a container, or a Python environment.

    Attributes
    ----------
    program
        Path or name of ``shivacmb`` outside a container.
    image, runtime
        The container; None without.
    binds
        ``(path, writable)`` of everything else that must be seen inside.
    gpu
        Whether the container gets the GPU.
    setup
        Lines of shell that come first (``module load``).
    """

    program: str = 'shivacmb'
    image: str | None = None
    runtime: str = 'apptainer'
    binds: Sequence[tuple[str, bool]] = ()
    gpu: bool = False
    setup: Sequence[str] = ()


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes
    ----------
    bids_dir, out_dir, log_dir
        Absolute.
    participants
        Labels.
    scans
        How many scans these have.
    per_task
        Participants of a task.
    options
        Options of the app, one list of words each.
    name
        Of the job.
    requeue
        How often a task may be queued again.
    group
        Whether a group job follows.
    scratch
        Parent of work folders on the node; may name variables. None leaves the work folder to
        the options.
    list_file
        Where the labels are, if not in the script.
    """

    bids_dir: Path
    out_dir: Path
    log_dir: Path
    participants: Sequence[str]
    scans: int
    per_task: int
    options: Sequence[Sequence[str]] = field(default_factory=tuple)
    name: str = 'shivacmb'
    requeue: int = 2
    group: bool = True
    scratch: str | None = SCRATCH
    list_file: Path | None = None

    @property
    def tasks(self) -> int:
        """Number of tasks of the array."""
        return -(-len(self.participants) // self.per_task)


def render(job: Job, resources: Resources, place: Place) -> str:
    """Write the script.

    Parameters
    ----------
    job : Job
        What is to be done.
    resources : Resources
        What SLURM is asked for.
    place : Place
        Where the app is.

    Returns
    -------
    str
        For bash 4 and later; shellcheck has nothing to say about it.

    Raises
    ------
    UsageError
        If a container cannot bind a path because of the characters in it.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name('templates')),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A shell script is no web page; what varies goes through the quote filter
        autoescape=False,  # noqa: S701
    )
    environment.filters['quote'] = lambda value: shlex.quote(str(value))
    return environment.get_template(TEMPLATE).render(
        header=_header(job, resources),
        version=__version__,
        scans=job.scans,
        participants=job.participants,
        per_task=job.per_task,
        bids_dir=job.bids_dir,
        out_dir=job.out_dir,
        log_dir=job.log_dir,
        logs_per_folder=LOGS_PER_FOLDER if job.tasks > LOGS_PER_FOLDER else None,
        requeue=job.requeue,
        image=place.image,
        engine=place.runtime if _by_engine(place) else None,
        sif=place.image is not None and not _by_engine(place),
        options=[shlex.join(words) for words in job.options] + _from_slurm(job.options),
        setup=place.setup,
        app=_app(place),
        work_option=f' --work-dir {_work(place)}' if job.scratch else '',
        scratch=job.scratch or SCRATCH,
        group=_group_words(job, resources) if job.group else [],
        list_file=job.list_file,
    )


def _header(job: Job, resources: Resources) -> list[str]:
    throttle = f'%{resources.throttle}' if resources.throttle else ''
    lines = [
        f'--job-name={job.name}',
        f'--array=0-{job.tasks - 1}{throttle}',
        *(
            f'--{option}={value}'
            for option, value in (
                ('partition', resources.partition),
                ('account', resources.account),
                ('qos', resources.qos),
            )
            if value
        ),
        f'--time={resources.time}',
        '--ntasks=1',
        f'--cpus-per-task={resources.cpus}',
        f'--mem={resources.mem}',
        *([f'--gres={resources.gres}'] if resources.gres else []),
        f'--output={_log(job.log_dir, TASK_LOG)}',
        '--open-mode=append',
        f'--signal=B:USR1@{resources.grace_s}',
        '--requeue' if job.requeue else '--no-requeue',
    ]
    return [*lines, *resources.extra]


def _log(folder: Path, name: str) -> str:
    """Pattern of a log file: ``%`` of the folder is no placeholder, nor ``#`` a comment."""
    text = str(folder).replace('%', '%%') + f'/{name}'
    plain = re.fullmatch(r'[^\s"\'#]+', text)
    return text if plain else '"' + text.replace('"', '\\"') + '"'


def _group_words(job: Job, resources: Resources) -> list[str]:
    """Options of the group job that differ from those at the head of the script."""
    words = [
        '--array=0',
        f'--job-name={shlex.quote(job.name + "-group")}',
        f'--time={resources.group_time} --mem={resources.group_mem} --cpus-per-task=1',
        f'--output={shlex.quote(str(job.log_dir).replace("%", "%%") + "/" + GROUP_LOG)}',
        f'--signal=B:USR1@{resources.group_grace_s}',
    ]
    return words + (['--gres=none'] if resources.gres else [])


def _from_slurm(options: Sequence[Sequence[str]]) -> list[str]:
    """Processors, as the app cannot always see how many a task owns."""
    typed = {words[0] for words in options}
    return [] if '--nprocs' in typed else ['--nprocs "${SLURM_CPUS_PER_TASK:-1}"']


def _work(place: Place) -> str:
    """Name of the task's own folder where the app runs: a container has it as its /tmp."""
    return '"$work"' if place.image is None else '/tmp'  # noqa: S108


def _by_engine(place: Place) -> bool:
    """Whether a container engine starts the app: its containers are no children of the task."""
    return place.image is not None and place.runtime in ('docker', 'podman')


def _app(place: Place) -> list[str]:
    """Lines of the function that becomes the app."""
    if place.image is None:
        return [f'exec {shlex.quote(place.program)} "$@"']
    if _by_engine(place):
        lines, bind = _docker(place), '--volume'
    else:
        gpu = f' {_CARD}' if place.gpu else ''
        lines, bind = [f'exec {place.runtime} run --cleanenv --containall{gpu}'], '--bind'
        # Else /tmp is a memory disk of 64 MB; a folder bound below /tmp may not be found
        lines.append('--workdir "$work"')
    lines.append('--env TMPDIR=/tmp')
    lines += [f'--env {name}="${{{name}-}}"' for name in TOLD]
    lines += [f'{bind} "${name}:${name}{mode}"' for name, mode in BOUND]
    before = []
    if place.gpu:
        before = _card(place.runtime)
        # Tasks on one card take turns by a file that all of them see; their /tmp is their own
        before += [
            'local locks=${SHIVACMB_GPU_LOCKS:-/tmp/shivacmb-gpu-$UID}',
            '(umask 077 && mkdir -p "$locks") 2>/dev/null || :',
            '# neither one that the site named nor one of this user: every task has its own lock',
            'if [[ ! -d $locks || ! -w $locks || -L $locks ]]; then',
            '    locks=$work',
            'elif [[ -z ${SHIVACMB_GPU_LOCKS-} && ! -O $locks ]]; then',
            '    locks=$work',
            'fi',
        ]
        lines += [f'{bind} "$locks:/gpu-locks"', '--env SHIVACMB_GPU_LOCKS=/gpu-locks']
    for path, writable in place.binds:
        check_bind(path)
        lines.append(f'{bind} ' + shlex.quote(f'{path}:{path}' + ('' if writable else ':ro')))
    lines.append('"$image" "$@"')
    return [*before, *' \\\n    '.join(lines).splitlines()]


def _docker(place: Place) -> list[str]:
    """Start of the command of Docker or Podman: no network, nothing written but what is bound."""
    podman = place.runtime == 'podman'
    words = [
        f'exec {place.runtime} run --rm --init --name "${{work##*/}}"',
        '--network=none --read-only',
        '--volume "$work:/tmp"',
        # Both run the user that the image names otherwise; Podman with keep-id, too
        '--user "$(id -u):$(id -g)"',
    ]
    # Containers of engines that root runs are not SLURM's children, and know nothing of its limits
    cpus = '${SLURM_CPUS_PER_TASK:-1}'
    if podman:
        # Without root a limit is refused where the controller of processors is not delegated
        cpus = f'$( ((UID)) && echo 0 || echo "{cpus}")'
        # Podman refuses keep-id to root, who needs none
        words.append('"$( ((UID)) && echo --userns=keep-id || echo --userns=host)"')
    words.append(f'--cpus "{cpus}"')
    if place.gpu:
        words.append(_CARD)
    return words


def _card(runtime: str) -> list[str]:
    """Lines that give the container the cards that SLURM gave the task, and no other."""
    if runtime in ('apptainer', 'singularity'):
        # a child of the task: the numbers that the task knows are right
        lines = [
            'card=(--nv)',
            'if [[ -n ${CUDA_VISIBLE_DEVICES-} ]]; then',
            '    card+=(--env "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES")',
            'fi',
        ]
    elif runtime == 'docker':
        lines = [
            _NO_CHILD,
            'card=(--gpus all)',
            'if [[ -n ${SLURM_JOB_GPUS-} ]]; then',
            '    card=(--gpus "\\"device=$SLURM_JOB_GPUS\\"")',
            'fi',
        ]
    else:
        lines = [
            _NO_CHILD,
            'local number',
            'local -a given=(all)',
            'if [[ -n ${SLURM_JOB_GPUS-} ]]; then',
            '    IFS=, read -r -a given <<<"$SLURM_JOB_GPUS"',
            'fi',
            'for number in "${given[@]}"; do card+=(--device "nvidia.com/gpu=$number"); done',
        ]
    return [
        'local -a card=()',
        '# the group job may run where there is no card, and engines refuse to start then',
        'if [[ $3 == participant ]]; then',
        *(f'    {line}' for line in lines),
        'fi',
    ]


def check_bind(path: Any) -> None:
    """Refuse a path that the ``A:B`` of container programs cannot hold.

    Raises
    ------
    UsageError
        If it has a colon or a comma.
    """
    if ':' in str(path) or ',' in str(path):
        raise UsageError(
            f'<{path}> cannot be bound into a container: its name has a colon or a comma; use a '
            'link with another name'
        )
