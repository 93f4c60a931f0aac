"""One writer at a time for the files of a scan, also between machines.

Two tasks may be given the same participant, with other settings even. Each writes its files by
rename, so none is ever half there; but the files of a scan must also be of the same run. A task
holds the scan's lock for the moment in which it puts its files in place (docs/decisions/0116).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from shivacmb.exceptions import OutputError, TemporaryError
from shivacmb.processes import ended_or_abandoned, has_ended, machine, temporary_name

#: Seconds after which a lock that nobody renews counts as left behind: files are put in place by
#: renaming, which takes a second at most.
LEFT_BEHIND_S = 300.0
_POLL_S = 0.05
_TRIES = 20


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
    owned = []
    for path, text in owners.items():
        where, pid = [*text.split(' '), ''][:2]
        # one without an owner counts as another machine's
        owned.append((path, where, int(pid)) if pid.isdecimal() else (path, '', 0))
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
            return _make(path, mine)
        except FileExistsError:  # noqa: PERF203  tried again on purpose
            # A file server whose answer was lost is asked again, and finds what it made
            return _read(path) == mine
        except OSError as error:
            # Another process may have removed the empty folder
            if not isinstance(error, FileNotFoundError) or attempt == _TRIES - 1:
                raise _cannot_write(path, error) from error
    return False


def _make(path: Path, mine: str) -> bool:
    """Make the lock in one step, or where there are no symbolic links in two.

    A link says whose it is from its first moment on. A process killed between making a file and
    writing into it leaves a lock of nobody.
    """
    try:
        path.symlink_to(mine)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        with path.open('x', encoding='utf-8') as stream:
            try:
                stream.write(mine)
                stream.flush()
            except OSError:
                path.unlink(missing_ok=True)
                raise
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
    return pid.isdecimal() and has_ended(where, int(pid))


def _take_away(path: Path, owner: str) -> None:
    """Remove a lock unless it has become another's in the meantime."""
    aside = path.with_name(temporary_name(path.name))
    with contextlib.suppress(OSError):
        path.rename(aside)
        if _read(aside) != owner:
            aside.rename(path)
        aside.unlink(missing_ok=True)
