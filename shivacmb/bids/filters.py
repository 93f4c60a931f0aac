"""Labels and entity filters as a user gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shivacmb.bids.scan import LONG_NAMES, OTHER_ENTITIES, SHORT_NAMES
from shivacmb.exceptions import UsageError

_LABEL = re.compile(r'[A-Za-z0-9+]+')
#: Sections of a filter file: one for each kind of scan, and ``scan`` for both.
SECTIONS: tuple[str, ...] = ('scan', 'swi', 't2starw')
#: Every accepted key of a filter -> the short entity key, or the property's own name.
FILTER_KEYS: dict[str, str] = {
    **{short: short for short in LONG_NAMES if short != 'sub'},
    **{long: short for long, short in SHORT_NAMES.items() if short != 'sub'},
    **{short: short for short in OTHER_ENTITIES},
    **{long: short for short, long in OTHER_ENTITIES.items()},
    **{name: name for name in ('suffix', 'datatype', 'extension')},
}


def parse_labels(items: Iterable[str] | None, prefix: str = 'sub-') -> tuple[str, ...] | None:
    """Read labels from the command line, with or without prefix, or from text files.

    Parameters
    ----------
    items
        Labels, lists separated by commas, or paths of text files with one label per line
        (``#`` starts a comment). An item counts as a file when it has a ``.`` or a ``/``.
    prefix
        ``'sub-'`` or ``'ses-'``.

    Returns
    -------
    tuple of str or None
        Labels without prefix, in the order given, each once; None when ``items`` is None.

    Raises
    ------
    UsageError
        When a file cannot be read or a label has other characters than letters and digits.
    """
    if items is None:
        return None
    labels: dict[str, None] = {}
    for item in items:
        if '/' in item or '.' in item:
            words = _labels_in(Path(item))
        else:
            words = [word for word in re.split(r'[,\s]+', item) if word]
        for word in words:
            label = word.removeprefix(prefix)
            if not _LABEL.fullmatch(label):
                raise UsageError(
                    f'"{word}" (from "{item}") is not a label: BIDS labels have letters and '
                    'digits only'
                )
            labels[label] = None
    return tuple(labels)


def _labels_in(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f'list of labels <{path}> cannot be read ({error}): give labels, or a text file '
            'with one label per line'
        ) from error
    stripped = (line.split('#', 1)[0].strip() for line in lines)
    return [line for line in stripped if line and line not in {'participant_id', 'session_id'}]


def load_filters(source: str | Path | Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Check a filter file, or its content, and return it with short entity keys.

    The file is a JSON object as fMRIPrep reads it: sections ``scan``, ``swi`` and ``t2starw``,
    each an object of entity (pybids' name or the short key), ``suffix``, ``datatype`` or
    ``extension`` to a value, a list of values, ``"*"`` (any value, but present) or ``null``
    (absent). ``scan`` restricts every candidate, the other two only candidates of their kind. A
    section that names a suffix selects files of that suffix and no others of its kind, also
    suffixes that are otherwise not read (``angio``), and ``swi`` or ``t2starw`` then decides what
    contrast they have.

    Raises
    ------
    UsageError
        When the file cannot be read or has an unknown section, key or kind of value.
    """
    if source is None:
        return {}
    where = 'the filters'
    content: Any = source
    if isinstance(source, (str, Path)):
        where = f'filter file <{source}>'
        try:
            content = json.loads(Path(source).read_text(encoding='utf-8-sig'))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f'{where} cannot be read as JSON ({error})') from error
    if not isinstance(content, Mapping):
        raise UsageError(f'{where} must hold a JSON object with sections {", ".join(SECTIONS)}')
    result: dict[str, dict[str, Any]] = {}
    for name, section in content.items():
        # filter files are shared between BIDS-Apps: sections for images not read here are theirs
        if name in {'t1w', 't2w', 'flair', 'bold', 'sbref', 'fmap', 'dwi', 'asl', 'roi', 'pet'}:
            continue
        if name not in SECTIONS or not isinstance(section, Mapping):
            raise UsageError(
                f'{where}: section "{name}" is not one of {", ".join(SECTIONS)}, or not an object'
            )
        result[name] = {_key(key, where): _value(val, key, where) for key, val in section.items()}
    return result


def _key(key: str, where: str) -> str:
    if key not in FILTER_KEYS:
        raise UsageError(f'{where}: unknown key "{key}"; use one of {", ".join(FILTER_KEYS)}')
    return FILTER_KEYS[key]


def _value(value: Any, key: str, where: str) -> Any:
    items = value if isinstance(value, list) else [value]
    if not all(item is None or isinstance(item, (str, int)) for item in items):
        raise UsageError(f'{where}: "{key}" must be a text, a number, null, "*" or a list of them')
    names = {'Query.NONE': None, 'Query.ANY': '*', 'Query.OPTIONAL': ['*', None]}
    result: list[Any] = []
    for item in items:
        meant = names.get(item, item) if isinstance(item, str) else item
        result.extend(meant if isinstance(meant, list) else [meant])
    return result


def _equal(wanted: Any, value: str, key: str) -> bool:
    if key in {'suffix', 'datatype'}:
        return str(wanted).lower() == value.lower()
    if key == 'extension':
        return str(wanted).lstrip('.') == value.lstrip('.')
    text = re.sub(rf'^{key}-', '', str(wanted))
    if text.isdigit() and value.isdigit():
        return int(text) == int(value)
    return text == value


def matches(section: Mapping[str, Any], properties: Mapping[str, str]) -> str | None:
    """First condition of a section that a file does not meet, in words, or None."""
    for key, wanted in section.items():
        value = properties.get(key)
        ok = any(
            (value is None if item is None else value is not None)
            if item in (None, '*')
            else value is not None and _equal(item, value, key)
            for item in wanted
        )
        if not ok:
            shown = ' or '.join('absent' if item is None else str(item) for item in wanted)
            return f'{key} is {"absent" if value is None else value}, the filter asks for {shown}'
    return None


def named_keys(section: Mapping[str, Any], properties: Mapping[str, str]) -> set[str]:
    """Keys for which a section names the very value of a file (not just ``*`` or null)."""
    return {
        key
        for key, wanted in section.items()
        if key in properties
        and any(item not in (None, '*') and _equal(item, properties[key], key) for item in wanted)
    }
