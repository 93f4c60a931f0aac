"""Which machines a training ran on, and other records of its work folder."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from shivacmb.bids import write_text
from shivacmb.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNS, RATES = 'runs.json', 'rates.json'


def note_run(work: Path, machine: dict[str, Any], precision: str) -> None:
    """Remember on which machine and libraries a training runs, and in which arithmetic.

    Parameters
    ----------
    work : Path
        Work folder.
    machine : dict
        See :func:`shivacmb.train.backend.describe_machine`.
    precision : str
        Keras policy.
    """
    runs, new = read_runs(work), {'machine': machine, 'precision': precision}
    if not any({key: run.get(key) for key in new} == new for run in runs):
        runs.append({**new, 'began': time.strftime('%Y-%m-%d')})
        write_text(work / RUNS, json.dumps(runs, indent=1) + '\n')


def read_runs(work: Path) -> list[dict[str, Any]]:
    """Read on which machines a training ran.

    Parameters
    ----------
    work : Path
        Work folder.

    Returns
    -------
    list of dict
        What :func:`note_run` was told, in the order of time; empty before the first run.

    Raises
    ------
    DataError
        The file is damaged.
    """
    return _entries(work / RUNS, lambda run: isinstance(run.get('machine'), dict))


def note_rate(folder: Path, rate: dict[str, float], steps: int) -> None:
    """Remember by which learning rate a fold goes on, as it may be changed on the way.

    Parameters
    ----------
    folder : Path
        Of the fold.
    rate : dict
        ``low``, ``high``, ``cycle``, ``decay``.
    steps : int
        Taken before.
    """
    rates = [own for own in read_rates(folder) if own['from_step'] < steps]
    if not rates or rates[-1] != {'from_step': rates[-1]['from_step'], **rate}:
        rates.append({'from_step': steps, **rate})
    write_text(folder / RATES, json.dumps(rates, indent=1) + '\n')


def read_rates(folder: Path) -> list[dict[str, float]]:
    """Read what :func:`note_rate` was told, in the order of the steps.

    Raises
    ------
    DataError
        The file is damaged.
    """
    keys = {'from_step', 'low', 'high', 'cycle', 'decay'}
    return _entries(folder / RATES, lambda own: own.keys() == keys)


def _entries(path: Path, whole: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Read a list of records; empty where there is no file yet."""
    entries = read_record(path) if path.exists() else []
    if not isinstance(entries, list) or not all(
        isinstance(own, dict) and whole(own) for own in entries
    ):
        raise damaged(path)
    return entries


def read_record(path: Path) -> Any:
    """Read JSON of a work folder.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        return json.loads(path.read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> DataError:
    """Say of a record that it cannot be used, and what to do."""
    return DataError(
        f'<{path}> cannot be read, it was altered or not copied completely: copy it again, or '
        'remove it, what it says is then noted anew'
    )
