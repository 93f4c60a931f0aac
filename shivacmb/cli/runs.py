"""What every run notes of itself in its log: its scans, where it runs, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from shivacmb.exceptions import OutputError
from shivacmb.processes import is_alive, namespace

LOG_NAME = 'run.log'
START, END = 'run started ', 'run ended '
FINISHED = 'finished'
#: Variable in which the script of an array job names the file with the task's output.
TASK_LOG = 'SHIVACMB_TASK_LOG'
_LAST_NODE = 'write_derivatives'
_STEP = re.compile(r'^\S+ \S+ (?P<stem>sub-\S+) (?P<node>\w+) (?P<how>end|exception) ')


@dataclass(frozen=True)
class RunNote:
    """A run of the participant level, as its log tells.

    Attributes
    ----------
    name
        Of its folder in ``OUT/logs``; sorts by time.
    scans
        Stems of the scans it took on.
    host, pid, namespace, ticks
        The process: machine, number, the numbering it belongs to (a container has its own), and
        when it started, in clock ticks since the machine did.
    job, task
        SLURM's number of the job, and of the array task as ``12_3``; None outside SLURM.
    log
        File with the output of the array task, or None.
    ended
        How it ended, or None when it has not said so.
    written
        Scans it has finished.
    steps
        Last step that was finished, by scan.
    last_sign
        When it last wrote, in seconds since 1970.
    """

    name: str
    scans: tuple[str, ...]
    host: str = ''
    pid: int = 0
    namespace: str = ''
    ticks: int = 0
    job: str | None = None
    task: str | None = None
    log: str | None = None
    ended: str | None = None
    written: frozenset[str] = frozenset()
    steps: dict[str, str] = field(default_factory=dict)
    last_sign: float = 0.0

    @property
    def alive_here(self) -> bool | None:
        """Whether its process lives; None where that cannot be told from this machine."""
        if self.host != socket.gethostname() or self.namespace != namespace():
            return None
        return is_alive(self.pid) and _ticks(self.pid) == self.ticks


def array_task() -> tuple[str, int] | None:
    """SLURM's number of the array and of the task in it that this process belongs to, if any."""
    array, index = (os.environ.get(f'SLURM_ARRAY_{name}') for name in ('JOB_ID', 'TASK_ID'))
    return (
        (array, int(index))
        if array and array.isdecimal() and index and index.isdecimal()
        else None
    )


@contextlib.contextmanager
def noted(run_dir: Path, scans: Sequence[str]) -> Iterator[None]:
    """Note the start and the end of a run in its log.

    A run that is killed leaves no note of its end, which is how ``shivacmb-tools status`` knows.

    Parameters
    ----------
    run_dir : Path
        Folder of this run alone.
    scans : sequence of str
        Stems of what it is about to process.

    Raises
    ------
    OutputError
        If the log cannot be written.
    """
    task = array_task()
    start = {
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'namespace': namespace(),
        'ticks': _ticks(os.getpid()),
        'job': os.environ.get('SLURM_JOB_ID'),
        'task': f'{task[0]}_{task[1]}' if task else None,
        'log': os.environ.get(TASK_LOG) or None,
        'scans': list(scans),
    }
    try:
        _append(run_dir, START + json.dumps(start))
    except OSError as error:
        raise OutputError(
            f'cannot write <{run_dir / LOG_NAME}> ({error.strerror}): free space, or give an '
            'output folder that you may write to'
        ) from error
    how = FINISHED
    try:
        yield
    except BaseException as error:
        how = f'{type(error).__name__} {error}'.strip()
        raise
    finally:
        # A full disk must not hide what the run itself has to say
        with contextlib.suppress(OSError):
            _append(run_dir, END + how.splitlines()[0])


def _append(run_dir: Path, text: str) -> None:
    now = datetime.now().astimezone()
    stamp = f'{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d}'
    with (run_dir / LOG_NAME).open('a', encoding='utf-8') as stream:
        stream.write(f'{stamp} {text}\n')


def read_runs(out_dir: Path) -> list[RunNote]:
    """Return the runs that left a note in OUT, sorted by the time they started."""
    from shivacmb.bids import run_folders

    runs = []
    for folder in run_folders(out_dir):
        note = _read(folder)
        if note is not None:
            runs.append(note)
    return runs


def _read(folder: Path) -> RunNote | None:
    path = folder / LOG_NAME
    try:
        lines = path.read_text('utf-8', errors='replace').splitlines()
        last_sign = path.stat().st_mtime
    except OSError:
        return None
    start: dict[str, Any] | None = None
    ended, written, steps = None, set(), {}
    for line in lines:
        step = _STEP.match(line)
        if step is not None and step['how'] == 'end':
            steps[step['stem']] = step['node']
            if step['node'] == _LAST_NODE:
                written.add(step['stem'])
        elif f' {START}' in line and start is None:
            with contextlib.suppress(ValueError):
                start = json.loads(line.partition(START)[2])
        elif f' {END}' in line:
            ended = line.partition(END)[2].strip()
    if not isinstance(start, dict) or not isinstance(start.get('scans'), list):
        return None
    return RunNote(
        name=folder.name,
        scans=tuple(map(str, start['scans'])),
        host=str(start.get('host', '')),
        pid=int(start.get('pid', 0)),
        namespace=str(start.get('namespace', '')),
        ticks=int(start.get('ticks', 0)),
        job=start.get('job') or None,
        task=start.get('task') or None,
        log=str(start.get('log') or '') or None,
        ended=ended,
        written=frozenset(written),
        steps=steps,
        last_sign=last_sign,
    )


def _ticks(pid: int) -> int:
    """When a process started, so that another one with its number is not taken for it."""
    try:
        words = Path(f'/proc/{pid}/stat').read_text('utf-8').rpartition(')')[2].split()
        return int(words[19])
    except (OSError, ValueError, IndexError):
        return 0
