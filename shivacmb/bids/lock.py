"""One writer at a time for the files of a scan, also between machines.

Two tasks may be given the same participant, with other settings even. Each writes its files by
rename, so none is ever half there; but the files of a scan must also be of the same run. A task
holds the scan's lock for the moment in which it puts its files in place (docs/decisions/0116).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from shivacmb.exceptions import OutputError, TemporaryError
from shivacmb.processes import ended_or_abandoned, has_ended, machine

#: Seconds after which a lock that nobody renews counts as left behind: files are put in place by
#: renaming, which takes a second at most.
LEFT_BEHIND_S = 300.0
_POLL_S = 0.05
_TRIES = 20
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def lock_path(out_dir: str | Path, stem: str) -> Path:
    """Return where the lock of a scan is while somebody holds it."""
    return Path(out_dir) / 'logs' / '.staging' / f'{stem}.lock'


@contextlib.contextmanager
def scan_lock(out_dir: str | Path, stem: str) -> Iterator[None]:
    """Hold the lock of a scan; wait while another process of any machine holds it.

    A lock whose process is dead, or that has not changed for ``LEFT_BEHIND_S`` as this process
    sees time pass, is taken over. No clock of another machine is asked.

    Raises
    ------
    OutputError
        If OUT_DIR cannot be written.
    TemporaryError
        If a process of this machine holds the lock all the time.
    """
    path = lock_path(out_dir, stem)
    mine = f'{machine()} {os.getpid()} {secrets.token_hex(8)}'
    _acquire(path, mine)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _read(path) == mine:
                path.unlink()
            path.parent.rmdir()


def remove_stale_locks(out_dir: str | Path) -> None:
    """Remove locks whose process was killed; those of other machines once they are a day old."""
    folder = Path(out_dir) / 'logs' / '.staging'
    owners = {path: _read(path) or '' for path in sorted(folder.glob('*.lock'))}
    parted = ((path, [*text.split(' '), ''][:2]) for path, text in owners.items())
    owned = [(path, where, int(pid)) for path, (where, pid) in parted if pid.isdigit()]
    for path in ended_or_abandoned(folder, owned):
        _take_away(path, owners[path])


def _acquire(path: Path, mine: str) -> None:
    seen, since = '', time.monotonic()
    while not _create(path, mine):
        owner = _read(path) or ''
        if owner != seen:
            seen, since = owner, time.monotonic()
        waited = time.monotonic() - since
        if owner and _is_dead(owner):
            _take_away(path, owner)
        elif waited > LEFT_BEHIND_S:
            if owner.split(' ')[0] == machine():
                raise TemporaryError(
                    f'process {owner.split(" ")[1]} of this machine has been writing this scan '
                    f'for {waited:.0f} s; end it, or wait, and run the same command again'
                )
            _take_away(path, owner)
        else:
            time.sleep(_POLL_S)


def _create(path: Path, mine: str) -> bool:
    """Make the lock; False when it is there."""
    for attempt in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A link says who made it from its first moment on. A process killed between making
            # a file and writing into it would leave a lock of nobody
            path.symlink_to(mine)
        except FileExistsError:  # noqa: PERF203  tried again on purpose
            return False
        except FileNotFoundError as error:
            # Another process has removed the empty folder
            if attempt == _TRIES - 1:
                raise _cannot_write(path, error) from error
        except OSError as error:
            if error.errno in _NO_LINKS:
                return _create_file(path, mine)
            raise _cannot_write(path, error) from error
        else:
            break
    return True


def _create_file(path: Path, mine: str) -> bool:
    """Make the lock where the file system has no symbolic links; False when it is there."""
    try:
        with path.open('x', encoding='utf-8') as stream:
            stream.write(mine)
    except FileExistsError:
        return False
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    return True


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f'cannot write <{path}> ({error.strerror}): free space, or give an output folder that '
        'you may write to'
    )


def _read(path: Path) -> str | None:
    """Owner of a lock, be it a link or a file; None where there is none."""
    with contextlib.suppress(OSError):
        return str(path.readlink())
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text('utf-8')
    return None


def _is_dead(owner: str) -> bool:
    where, pid = [*owner.split(' '), ''][:2]
    return pid.isdigit() and has_ended(where, int(pid))


def _take_away(path: Path, owner: str) -> None:
    """Remove a lock unless it has become another's in the meantime."""
    aside = path.with_name(f'.tmp-{secrets.token_hex(8)}')
    with contextlib.suppress(OSError):
        path.rename(aside)
        if _read(aside) != owner:
            aside.rename(path)
        aside.unlink(missing_ok=True)
