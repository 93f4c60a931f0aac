"""Where ``shivacmb-tools train`` writes, and where it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def work_folder(args: argparse.Namespace) -> Path:
    """Return the folder of prepared scans and checkpoints."""
    given: Path | None = args.work
    output: Path = args.output
    return given or output.with_name(f'{output.name}.work')


def check_folders(args: argparse.Namespace) -> None:
    """Refuse a folder that would replace, or mix with, what the training reads.

    Parameters
    ----------
    args : argparse.Namespace
        With ``output``, ``work``, ``bids_dir``, ``labels_dir`` and ``also``.

    Raises
    ------
    UsageError
        The folder of the model or of the work lies in the data, in the other, or among files that
        are no training's.
    """
    from shivacmb.exceptions import UsageError

    given = work_folder(args)
    output, work = args.output.resolve(), given.resolve()
    for folder in (args.bids_dir, args.labels_dir, *(path for pair in args.also for path in pair)):
        own = folder.resolve()
        if own == output or own in output.parents or output in own.parents:
            raise UsageError(
                f'-o <{args.output}> and the data <{folder}> lie one inside the other; give a '
                'folder outside the data'
            )
        if own == work or own in work.parents:
            raise UsageError(
                f'--work <{given}> lies in the data <{folder}>; give a folder outside it'
            )
    if work == output or output in work.parents:
        raise UsageError(
            f'--work <{given}> must not be the folder of the model, nor lie in it; give '
            'another one, or leave --work out'
        )
    # files of the same names (README.md) would be replaced
    if work.is_dir() and any(work.iterdir()) and not (work / 'pool').is_dir():
        raise UsageError(
            f'<{given}> is not empty and holds no training that could go on; give a new '
            'folder with --work'
        )
