"""How much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: What the process that holds the networks takes beside the steps.
SERVICE_MB = 1500.0
#: Share of a limit that is planned with: the rest is for the main process and the page cache.
PLANNED = 0.9
#: Below this nothing is planned: a step takes what it takes.
LEAST_MB = 500.0


def memory_for_steps_mb(
    root: Path = Path('/'), environment: Mapping[str, str] = os.environ
) -> float | None:
    """Return what steps side by side may share where a job or a container is limited.

    Looked at are the limits of the process's control groups (cgroups(7), versions 1 and 2) and
    what SLURM says the job has: not every cluster enforces that by a control group, and where it
    is not, whoever exceeds it is killed all the same.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` lie.
    environment : mapping
        For ``SLURM_MEM_PER_NODE``, ``SLURM_MEM_PER_CPU`` and ``SLURM_MEM_PER_GPU``.

    Returns
    -------
    float or None
        In megabytes; None where there is no limit below the machine's memory.
    """
    limits = [*_cgroup_limits(root), *_slurm_limits(environment)]
    total = _machine(root)
    least = min(limits, default=None)
    if least is None or (total is not None and least >= total):
        return None
    return max(LEAST_MB, PLANNED * least / 1e6 - SERVICE_MB)


def _cgroup_limits(root: Path) -> list[float]:
    """Limits in bytes of the process's control group and all that it lies in."""
    try:
        lines = (root / 'proc/self/cgroup').read_text('utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(':')
        controllers, _, name = rest.partition(':')
        if controllers == '':
            top, file = root / 'sys/fs/cgroup', 'memory.max'
        elif 'memory' in controllers.split(','):
            top, file = root / 'sys/fs/cgroup/memory', 'memory.limit_in_bytes'
        else:
            continue
        inner = Path(name.lstrip('/'))
        for group in (inner, *inner.parents):
            value = _number(top / group / file)
            if value is not None:
                found.append(value)
    return found


def _number(path: Path) -> float | None:
    """Content of a file as a positive number; None for ``max`` and where it cannot be read."""
    try:
        text = path.read_text('utf-8').strip()
    except (OSError, UnicodeDecodeError):
        return None
    return float(text) if text.isdecimal() and int(text) > 0 else None


def _slurm_limits(environment: Mapping[str, str]) -> list[float]:
    """Bytes that SLURM gave the job on this node; its variables are in MiB, 0 means no limit."""
    found = []
    node = environment.get('SLURM_MEM_PER_NODE', '')
    if node.isdecimal() and int(node):
        found.append(int(node) * 2.0**20)
    for each, count in (('MEM_PER_CPU', 'CPUS_ON_NODE'), ('MEM_PER_GPU', 'GPUS_ON_NODE')):
        share, number = (environment.get(f'SLURM_{name}', '') for name in (each, count))
        if share.isdecimal() and int(share) and number.isdecimal():
            found.append(int(share) * int(number) * 2.0**20)
    return found


def _machine(root: Path) -> float | None:
    """Bytes of memory of the machine."""
    try:
        text = (root / 'proc/meminfo').read_text('utf-8')
        return float(text.partition('MemTotal:')[2].split()[0]) * 1024
    except (OSError, UnicodeDecodeError, IndexError, ValueError):
        return None
