"""Argument types whose failures end in a usage message that names the value."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable
from pathlib import Path

from shivacmb.exceptions import UsageError
from shivacmb.paths import expand_home

_MEMORY = re.compile(r'(\d+(?:\.\d+)?)\s*(k|m|g|t)?b?$', re.IGNORECASE)
_MEMORY_IN_MB = {'k': 1e-3, 'm': 1.0, 'g': 1e3, 't': 1e6}


def existing_file(value: str) -> Path:
    """Absolute path of a file that must exist."""
    path = _expanded(value)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f'no such file: <{value}>')
    return path.absolute()


def folder(value: str) -> Path:
    """Absolute path of a folder that may or may not exist yet."""
    return _expanded(value).absolute()


def _expanded(value: str) -> Path:
    try:
        return expand_home(value)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def anchored(field: str, text: str, models_dir: Path | None = None) -> str:
    """Text of a setting that may name a file, so that it holds in another working folder too.

    Parameters
    ----------
    field : str
        Of ``shivacmb.cli.settings.Settings``.
    text : str
        As typed.
    models_dir : Path, optional
        Where installed models are as well.

    Returns
    -------
    str
        An absolute path, or the text when it names no file.

    Raises
    ------
    UsageError
        It begins with the home folder of nobody.
    """
    path = expand_home(text)
    if field.endswith('_label'):
        is_path = '/' in text or '.' in text
    elif field == 'model':
        # without a separator the name of an installed model comes first
        is_path = path.exists() and ('/' in text or text not in _models(models_dir))
    else:
        is_path = field == 'brain_mask'
    return str(path.absolute()) if is_path else text


def _models(models_dir: Path | None) -> set[str]:
    from shivacmb.models.locate import DEFAULT, bundle_folders

    return {DEFAULT, *bundle_folders(models_dir)}


def positive_int(value: str) -> int:
    """Whole number of at least 1."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, got {value!r}')
    return number


def probability(value: str) -> float:
    """Number above 0 and at most 1."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f'expected a number above 0 and at most 1, got {value!r}')
    return number


def megabytes(value: str) -> float:
    """Memory in megabytes; a bare number is megabytes, ``8G`` and ``8000M`` work too."""
    match = _MEMORY.match(value)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(
            f'expected memory such as 8000, 8000M or 8G, got {value!r}'
        )
    return float(match[1]) * _MEMORY_IN_MB[(match[2] or 'm').lower()]


def gigabytes(value: str) -> float:
    """Memory given in gigabytes, returned in megabytes."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise argparse.ArgumentTypeError(f'expected gigabytes above 0, got {value!r}')
    return number * 1e3


def named_folder(value: str) -> tuple[str, Path]:
    """``NAME=PATH``, or ``PATH`` alone (its last part is then the name); the folder must exist."""
    name, separator, path = value.partition('=')
    if not separator:
        name, path = '', value
    target = _expanded(path).absolute()
    if not target.is_dir():
        raise argparse.ArgumentTypeError(f'no such folder: <{path}> (expected NAME=PATH)')
    return name or target.name, target


def folders_by_name(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Join what ``-d`` gave.

    Raises
    ------
    UsageError
        Two folders have one name.
    """
    from shivacmb.exceptions import UsageError

    found: dict[str, Path] = {}
    for name, path in pairs:
        if found.setdefault(name, path) != path:
            raise UsageError(
                f'-d {name}: <{found[name]}> and <{path}> have one name; give each its own, such '
                f'as -d one={found[name]} -d two={path}'
            )
    return found


def seed(value: str) -> int:
    """Whole number of at least 0."""
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 0, got {value!r}')
    return int(value)


def above_zero(value: str) -> float:
    """Finite number above 0."""
    number = _number(value)
    if number <= 0:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {value!r}')
    return number


def degrees(value: str) -> float:
    """Angle from 0 to 180."""
    number = _number(value)
    if not 0 <= number <= 180:
        raise argparse.ArgumentTypeError(f'expected degrees from 0 to 180, got {value!r}')
    return number


def share(value: str) -> float:
    """Number from 0 to 1."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, got {value!r}')
    return number


def amount(value: str) -> float:
    """Number from 0 to 3."""
    number = _number(value)
    if not 0 <= number <= 3:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 3, got {value!r}')
    return number


def number_range(value: str) -> tuple[float, float]:
    """``MIN-MAX``, or one number for both."""
    low, dash, high = value.partition('-')
    ends = _number(low), _number(high if dash else low)
    if not 0 <= ends[0] <= ends[1]:
        raise argparse.ArgumentTypeError(f'expected a range such as 0.5-2, got {value!r}')
    return ends


def whole_range(value: str) -> tuple[int, int]:
    """``MIN-MAX`` of whole numbers, or one for both."""
    low, dash, high = value.partition('-')
    if not low.isdecimal() or (dash and not high.isdecimal()) or int(high or low) < int(low):
        raise argparse.ArgumentTypeError(
            f'expected a number or a range such as 2-8, got {value!r}'
        )
    return int(low), int(high or low)


def _number(value: str) -> float:
    """Finite number, or -1 for what is none."""
    try:
        number = float(value)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0
