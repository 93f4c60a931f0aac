"""Who wrote a file: the machine, the numbering of its processes, and the process.

Containers on one machine may all have its name and each a numbering of their own, in which most
of them are process 1 or 2. A number says something in its own numbering only.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

_NAMESPACE = Path('/proc/self/ns/pid')
#: Seconds without a change after which what another machine or container writes is abandoned:
#: outputs are written in seconds.
ABANDONED_S = 86400.0
_TEMPORARY = re.compile(r'\.tmp-(?P<where>.+)-(?P<pid>\d+)-[0-9a-f]{8}-')


def namespace() -> str:
    """Return the number of the numbering that this process belongs to; '' where there is none.

    Linux calls it the PID namespace (pid_namespaces(7)).
    """
    try:
        return re.sub(r'[^0-9]', '', str(_NAMESPACE.readlink()))
    except OSError:
        return ''


def machine() -> str:
    """Return where this process runs, for names of files: letters, digits and dots.

    Processes with the same value see each other's numbers.
    """
    host = re.sub(r'[^A-Za-z0-9.]', '', socket.gethostname())
    return '.'.join(filter(None, (host, namespace())))


def owner() -> str:
    """Return what names of files say of this process: ``machine``, a hyphen and its number."""
    return f'{machine()}-{os.getpid()}'


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine and numbering still runs, whoever owns it.

    One that has ended keeps its number until its parent, or the first process of a container,
    asks for its exit status, which some never do (state Z in proc_pid_stat(5)).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return Path(f'/proc/{pid}/stat').read_bytes().rpartition(b')')[2].split()[0] != b'Z'
    except (OSError, IndexError):
        return True


def has_ended(where: str, pid: int) -> bool:
    """Tell whether a process is known to have ended.

    Parameters
    ----------
    where : str
        Its ``machine``.
    pid : int
        Its number.

    Returns
    -------
    bool
        False also where it cannot be seen from here: on another machine or in another container.
    """
    return where == machine() and not is_alive(pid)


def temporary_name(name: str) -> str:
    """Return a name for what becomes ``name`` when it is whole; it tells who is writing."""
    return f'.tmp-{owner()}-{secrets.token_hex(4)}-{name}'


def left_behind(folder: Path) -> list[Path]:
    """Return what lies under a temporary name in a folder and that nobody writes any more.

    That is what processes wrote that are known to have ended. Nothing here can tell whether those
    of other machines and other containers live; what these wrote counts once it is abandoned.
    """
    owned = []
    for path in sorted(folder.glob('.tmp-*')):
        match = _TEMPORARY.match(path.name)
        if match is not None:
            owned.append((path, match['where'], int(match['pid'])))
    return ended_or_abandoned(folder, owned)


def ended_or_abandoned(folder: Path, owned: Iterable[tuple[Path, str, int]]) -> list[Path]:
    """Return those of some paths whose owner has ended, or that nobody has changed for a day.

    Parameters
    ----------
    folder : Path
        Where they lie.
    owned : iterable of (Path, str, int)
        Each with the ``machine`` and the number of its process.

    Returns
    -------
    list of Path
        In the order given. Whatever a process of this machine and numbering is at work on is not
        among them, however old.
    """
    found = []
    now: float | None = None
    for path, where, pid in owned:
        if where == machine():
            if has_ended(where, pid):
                found.append(path)
            continue
        if now is None:
            now = _time_of(folder)
        if now - _last_change(path) > ABANDONED_S:
            found.append(path)
    return found


def _time_of(folder: Path) -> float:
    """Return the time by the clock of the file system, which stamps what lies there.

    Clocks of machines differ. Where nothing can be written nothing counts as old.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=temporary_name('clock')) as stream:
            stream.write(b'.')
            stream.flush()
            return os.fstat(stream.fileno()).st_mtime
    except OSError:
        return -math.inf


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was changed; never, where that cannot be read."""
    try:
        parts = (path, *path.rglob('*')) if path.is_dir() else (path,)
        return max(part.lstat().st_mtime for part in parts)
    except OSError:
        return math.inf
