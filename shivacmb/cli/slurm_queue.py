"""What SLURM knows of jobs: those in its queue, and how others ended."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Sequence

# A command line holds so many numbers with ease
_AT_ONCE = 500
_PATIENCE_S = 60


def jobs_in_queue(jobs: Sequence[str]) -> dict[str, str] | None:
    """Ask ``squeue`` for jobs.

    Parameters
    ----------
    jobs : sequence of str
        Values of ``$SLURM_JOB_ID``.

    Returns
    -------
    dict or None
        State (``RUNNING``, ``PENDING``, ...) of those that wait or run; None where SLURM cannot
        be asked, as in a container.
    """
    states: dict[str, str] = {}
    for some in _parts(jobs):
        lines = _ask(['squeue', '--noheader', '--format=%A %T', f'--jobs={some}'])
        if lines is None:
            return None
        for line in lines:
            job, _, state = line.strip().partition(' ')
            states[job] = state
    return states


def count_tasks(arrays: Sequence[str], *, running: bool = False) -> dict[str, int]:
    """Count the tasks of array jobs that have not started.

    Parameters
    ----------
    arrays : sequence of str
        Values of ``$SLURM_ARRAY_JOB_ID``.
    running : bool
        Count those that run, too.

    Returns
    -------
    dict
        Number by array, without those that have none; empty where SLURM cannot be asked.
    """
    states = 'PENDING,RUNNING' if running else 'PENDING'
    words = ['squeue', '--noheader', '--array', f'--states={states}', '--format=%F']
    lines = [line for some in _parts(arrays) for line in _ask([*words, f'--jobs={some}']) or []]
    return dict(Counter(line.strip() for line in lines))


def endings(jobs: Sequence[str]) -> dict[str, str]:
    """Ask ``sacct`` how jobs ended, where the site keeps accounts.

    Returns
    -------
    dict
        State (``OUT_OF_MEMORY``, ``TIMEOUT``, ``CANCELLED by 1000``, ...) by job.
    """
    states: dict[str, str] = {}
    for some in _parts(jobs):
        words = ['sacct', '--noheader', '--allocations', '--parsable2']
        for line in _ask([*words, '--format=JobIDRaw,State', f'--jobs={some}']) or []:
            job, _, state = line.strip().partition('|')
            states[job] = state
    return states


def _parts(numbers: Sequence[str]) -> list[str]:
    """Join numbers with commas, so many at a time."""
    starts = range(0, len(numbers), _AT_ONCE)
    return [','.join(numbers[start : start + _AT_ONCE]) for start in starts]


def _ask(words: list[str]) -> list[str] | None:
    # What the user prefers to see (SQUEUE_STATES, SQUEUE_USERS) would hide jobs
    env = {name: value for name, value in os.environ.items() if not name.startswith('SQUEUE_')}
    try:
        done = subprocess.run(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        # That of a single job it has forgotten is no error to us
        return [] if 'Invalid job id' in done.stderr else None
    return done.stdout.splitlines()
