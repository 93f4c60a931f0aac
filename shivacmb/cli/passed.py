"""Options of ``shivacmb`` that a command of ``shivacmb-tools`` takes after ``--``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shivacmb.cli import types
from shivacmb.cli.parser import Parser, build_parser
from shivacmb.exceptions import UsageError

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings


class _Passed(Parser):
    """The command line's own checks, for words after ``--``."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'after --: {message} (see shivacmb --help)')


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line at its first ``--``; the second part lacks it."""
    if '--' not in words:
        return list(words), []
    place = list(words).index('--')
    return list(words[:place]), list(words[place + 1 :])


def parse_passed(bids_dir: Path, out_dir: Path, words: Sequence[str]) -> argparse.Namespace:
    """Parse options as ``shivacmb BIDS_DIR OUT_DIR participant`` would.

    Parameters
    ----------
    bids_dir, out_dir : Path
        Of the run.
    words : sequence of str
        What was typed after ``--``.

    Returns
    -------
    Namespace
        Only what was typed.

    Raises
    ------
    UsageError
        If ``shivacmb`` would refuse them.
    """
    return build_parser(_Passed).parse_args([str(bids_dir), str(out_dir), 'participant', *words])


def settings_of(typed: argparse.Namespace) -> Settings:
    """Join options with ``--config-file`` and the defaults, as a run does."""
    from shivacmb.cli.settings import settings_from

    return settings_from(typed)


def as_words(typed: argparse.Namespace) -> list[list[str]]:
    """Write parsed options again: long names, one list of words each, absolute paths.

    Parameters
    ----------
    typed : Namespace
        Of :func:`parse_passed`.

    Returns
    -------
    list of list of str
        In the order of the help.
    """
    left = dict(vars(typed))
    lines: list[list[str]] = []
    # argparse has no public list of its options
    for action in build_parser()._actions:
        if action.option_strings and action.dest in left:
            # Several options may fill one field (--mem and --mem-gb): the first says it
            value = left.pop(action.dest)
            lines += _words(_spelling(action), action, value, vars(typed).get('models_dir'))
    return lines


def _spelling(action: argparse.Action) -> str:
    return next(word for word in action.option_strings if word.startswith('--'))


def _words(
    name: str, action: argparse.Action, value: Any, models_dir: Path | None
) -> list[list[str]]:
    if action.nargs == 0:
        return [[name]] * (value if isinstance(value, int) else 1)
    if action.dest == 'derivatives':
        return [[name, f'{key}={folder}'] for key, folder in value]
    values = value if isinstance(value, list) else [value]
    return [[name, *(types.anchored(action.dest, str(item), models_dir) for item in values)]]
