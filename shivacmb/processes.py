"""Who wrote a file: the machine, the numbering of its processes, and the process.

Containers on one machine may all have its name and each a numbering of their own, in which most
of them are process 1 or 2. A number says something in its own numbering only.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_NAMESPACE = Path('/proc/self/ns/pid')


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
    """Tell whether a process of this machine and numbering still runs, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
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
