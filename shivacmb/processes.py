"""Who wrote a file: the machine, the numbering of its processes, and the process.

Containers on one machine may all have its name and each a numbering of their own, in which most
of them are process 1 or 2. A number says something in its own numbering only.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path

_NAMESPACE = Path('/proc/self/ns/pid')
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
    """Return what lies under a temporary name in a folder and whose writer is known to have ended.

    What living processes, other machines and other containers write is not among it: nothing here
    can tell whether that is still being written.
    """
    found = []
    for path in sorted(folder.glob('.tmp-*')):
        match = _TEMPORARY.match(path.name)
        if match is not None and has_ended(match['where'], int(match['pid'])):
            found.append(path)
    return found
