"""Why a scan did not finish, in words for its row."""

from __future__ import annotations

import json
import re
from pathlib import Path

from shivacmb import exceptions
from shivacmb.exceptions import DataError, OutputError, ShivaCMBError, TemporaryError, UsageError

_PROGRAM_CRASH = re.compile(
    r'\nCmdline:\n\t(?P<command>.+)\nStdout:(?P<stdout>[\s\S]*?)'
    r'\nStderr:(?P<stderr>[\s\S]*?)\nTraceback:'
)


class NotStartedError(ShivaCMBError):
    """The run stopped before this scan; nothing is known of it, nothing is recorded."""


class ReplacedInputError(UsageError):
    """The run would put a result in the place of a file that it reads."""


class WorkerKilledError(TemporaryError):
    """A worker was killed while it worked on this scan, or on one beside it."""


def read_failure(scan_dir: Path, crash_dir: Path, node: str) -> ShivaCMBError:
    """Find out why a scan failed.

    Parameters
    ----------
    scan_dir : Path
        Intermediate files of the scan.
    crash_dir : Path
        Where nipype's crash files are.
    node : str
        Full name of the node that failed.

    Returns
    -------
    ShivaCMBError
        With the class and the text of the node; for the program of another (FSL, HD-BET), what
        it said last.
    """
    from shivacmb.interfaces.base import FAILURE_FILE

    for path in sorted(scan_dir.rglob(FAILURE_FILE)):
        try:
            content = json.loads(path.read_text('utf-8'))
        except ValueError:
            # The node could make the file but not fill it
            return OutputError(
                f'No space left on device for temporary files <{path.parent}>; free some, or '
                'give another folder with --work-dir'
            )
        kind = getattr(exceptions, content['kind'], DataError)
        return kind(content['message'])
    name = node.rpartition('.')[2]
    for path in sorted(crash_dir.glob('crash-*.txt')):
        text = path.read_text('utf-8', errors='replace')
        if text.partition('\n')[0].partition(':')[2].strip() != node:
            continue
        said = _program_failure(text)
        if said is not None:
            return DataError(said)
        return ShivaCMBError(f'{name} failed: {last_line(text)}; see <{path}>')
    return TemporaryError(
        f'{name} ended without a word, most often because memory ran out; free memory or lower '
        '--nprocs and run the same command again'
    )


def _program_failure(crash: str) -> str | None:
    """What an outside program said before it failed, from nipype's crash file."""
    match = _PROGRAM_CRASH.search(crash)
    if match is None:
        return None
    program = match['command'].split()[0]
    words = (match['stderr'] or match['stdout']).split('\n')
    said = [word.strip() for word in words if word.strip()]
    return (
        f'{program} failed: {said[-1] if said else "it said nothing"}; check its installation, '
        'or choose another --toolkit or --mask'
    )


def last_line(text: object) -> str:
    """Last line of a text or an error, which is where tracebacks say what happened."""
    lines = str(text).strip().splitlines()
    return lines[-1].strip() if lines else 'the run stopped before it'
