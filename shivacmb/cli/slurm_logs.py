"""What the output of SLURM tasks says of those that ended before the app took a scan on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FIRST = re.compile(r'^task (?P<task>\d+) on (?P<host>\S*): (?P<labels>.*)$', re.MULTILINE)
_LAST = re.compile(r'^exit code (?P<code>\d+)$', re.MULTILINE)
_AGAIN, _REFUSED = 'to be queued again', 'SLURM refused to queue it again'
# The first line and the last ones tell; what the app said between them does not
_ENDS = 4096


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended, by its output.

    Attributes
    ----------
    job : str
        ``ARRAY_TASK``.
    code : int or None
        Exit code of the app, or of what should have started it; None where it is not told.
    again : bool
        Whether SLURM was to queue it again.
    log : Path
        Where that is.
    """

    job: str
    code: int | None
    again: bool
    log: Path


def arrays_seen(log_dir: Path) -> list[str]:
    """Numbers of the array jobs that have written into a log folder, the latest last."""
    if not log_dir.is_dir():
        return []
    return sorted((path.name for path in log_dir.iterdir() if path.name.isdigit()), key=int)


def task_ends(log_dir: Path) -> dict[str, TaskEnd]:
    """Read how the last task of each participant ended.

    Parameters
    ----------
    log_dir : Path
        ``OUT/logs/slurm``, or what ``--log-dir`` named.

    Returns
    -------
    dict
        By label; of participants whose task has begun to write.
    """
    found: dict[str, TaskEnd] = {}
    for array in arrays_seen(log_dir):
        for path in _files(log_dir / array):
            try:
                text = _ends(path)
            except OSError:
                continue
            first = _FIRST.search(text)
            if first is None:
                continue
            codes = list(_LAST.finditer(text))
            rest = text[codes[-1].end() :] if codes else ''
            end = TaskEnd(
                f'{array}_{first["task"]}',
                int(codes[-1]['code']) if codes else None,
                _AGAIN in rest and _REFUSED not in rest,
                path,
            )
            found.update(dict.fromkeys(first['labels'].split(), end))
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Outputs of an array's tasks; large arrays have a folder per thousand."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif path.suffix == '.log':
            yield path


def _ends(path: Path) -> str:
    with path.open('rb') as stream:
        text = stream.read(_ENDS)
        # a task of very many participants has a long first line
        while text.count(b'\n') == 0 and (more := stream.read(_ENDS)):
            text += more
        size = stream.seek(0, 2)
        if size > len(text):
            stream.seek(max(len(text), size - _ENDS))
            text += b'\n' + stream.read()
    return text.decode('utf-8', errors='replace')
