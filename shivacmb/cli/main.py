"""Entry point of ``shivacmb``: order of steps and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shivacmb.cli import interrupts
from shivacmb.cli.parser import LEVELS, parse_args
from shivacmb.exceptions import OutputError, ShivaCMBError

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings

EXIT_UNKNOWN_LEVEL = 17
EXIT_IO = 74
FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``shivacmb`` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        See ``shivacmb --help``.
    """
    args = parse_args(argv)
    if args.analysis_level not in LEVELS:
        say(f'unknown analysis level {args.analysis_level!r}; expected one of {", ".join(LEVELS)}')
        return EXIT_UNKNOWN_LEVEL
    return guarded(lambda: _dispatch(args))


def _dispatch(args: Any) -> int:
    from shivacmb.cli.settings import settings_from

    settings = settings_from(args)
    check_folders(settings)
    if settings.analysis_level == 'group' or settings.reports_only:
        from shivacmb.cli.group import run_group

        return run_group(settings)
    from shivacmb.cli.run import run_participants

    return run_participants(settings)


def guarded(command: Any) -> int:
    """Run a command and turn the errors a user can act on into one line and an exit code."""
    interrupts.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may hold bytes that are no text
            stream.reconfigure(errors='backslashreplace')
    try:
        code = int(command())
        interrupts.raise_received()
    except ShivaCMBError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say('interrupted; run the same command again to go on')
        return EXIT_INTERRUPTED
    except interrupts.Terminated:
        say('terminated; run the same command again to go on')
        return EXIT_TERMINATED
    except BrokenPipeError:
        return 0
    except OSError as error:
        if 'SHIVACMB_DEBUG' in os.environ:
            raise
        where = f' <{error.filename}>' if error.filename else ''
        if error.errno in FULL_OR_READ_ONLY:
            say(f'{error.strerror}{where}; free space, or write to another folder')
            return OutputError.exit_code
        say(f'{error.strerror or error}{where}; check the path, the disk and rights')
        return EXIT_IO
    except Exception as error:
        if 'SHIVACMB_DEBUG' in os.environ:
            raise
        say(
            f'unexpected {type(error).__name__}: {error}; please report it with the output of the '
            'same command under SHIVACMB_DEBUG=1'
        )
        return 1
    return code


def say(message: str) -> None:
    """Print one line for the user to standard error."""
    sys.stderr.write(f'shivacmb: {message}\n')


def check_folders(settings: Settings) -> None:
    """Refuse folders that would mix results into raw data or cannot be used.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Raises
    ------
    DatasetError
        If BIDS_DIR is not a folder.
    UsageError
        If OUT_DIR is BIDS_DIR, contains it, lies inside it but not under ``derivatives/``, or is
        the dataset of another program; if the work folder lies inside BIDS_DIR; or if options
        contradict each other.
    """
    from shivacmb.bids import check_output_folder
    from shivacmb.exceptions import DatasetError, UsageError

    bids_dir, out_dir = settings.bids_dir.resolve(), settings.out_dir.resolve()
    needs_data = settings.analysis_level == 'participant' and not settings.reports_only
    if needs_data and not bids_dir.is_dir():
        raise DatasetError(
            f'no such dataset: <{settings.bids_dir}>; inside a container, bind its folder first '
            '(-B or -v)'
        )
    if out_dir == bids_dir:
        raise UsageError(
            f'OUT_DIR is BIDS_DIR <{settings.bids_dir}>: results would mix with raw data; choose '
            f'another folder, for example <{settings.bids_dir / "derivatives" / "shivacmb"}>'
        )
    if out_dir in bids_dir.parents:
        raise UsageError(
            f'OUT_DIR <{settings.out_dir}> contains BIDS_DIR <{settings.bids_dir}>; choose '
            'another folder'
        )
    if bids_dir in out_dir.parents and bids_dir / 'derivatives' not in out_dir.parents:
        raise UsageError(
            f'OUT_DIR <{settings.out_dir}> lies inside the dataset but not in its derivatives/; '
            f'choose for example <{settings.bids_dir / "derivatives" / "shivacmb"}>'
        )
    check_output_folder(settings.out_dir)
    work_dir = settings.work_dir and settings.work_dir.resolve()
    if work_dir is not None and (work_dir == bids_dir or bids_dir in work_dir.parents):
        raise UsageError(
            f'the work folder <{settings.work_dir}> lies inside the dataset; choose another'
        )
    if settings.keep_work and settings.work_dir is None:
        raise UsageError('--keep-work needs --work-dir')
    check_options(settings)


def check_options(settings: Settings) -> None:
    """Refuse options that contradict each other.

    Raises
    ------
    UsageError
        Naming them.
    """
    from shivacmb.exceptions import UsageError

    if settings.no_zones and settings.min_parenchyma:
        raise UsageError('--min-parenchyma needs the zones; leave out --no-zones')


def check_writable(folder: Any) -> None:
    """Make OUT_DIR and try to write there.

    Raises
    ------
    OutputError
        If it cannot be made or written.
    """
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b'x')
    except OSError as error:
        raise OutputError(
            f'cannot write to OUT_DIR <{folder}>: {error.strerror}; choose a folder you may '
            'write to, with free space'
        ) from error


if __name__ == '__main__':
    sys.exit(main())
