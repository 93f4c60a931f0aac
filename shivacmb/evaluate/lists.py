"""Truth that is a table: places of lesions, or only their number."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shivacmb.exceptions import DataError
from shivacmb.imaging.zones import zone_name

COUNT_COLUMNS = ('count', 'cmb_count', 'n_cmb', 'cmb', 'microbleeds', 'lesions')
RADIUS_COLUMNS = ('radius', 'radius_mm', 'apparent_radius_mm')
NAME_COLUMNS = ('index', 'id', 'label')
ZONE_COLUMNS = ('zone', 'region')
#: Entities that tell scans of a session apart, in the order of names; columns may end in ``_id``.
ENTITY_COLUMNS = ('acq', 'ce', 'rec', 'dir', 'run', 'echo', 'chunk')
#: Entities that say what a derivative is, not which scan it belongs to.
OF_THE_FILE = ('desc', 'label', 'res', 'space', 'den', 'atlas')
_NO_ENTITY = ('sub', 'ses', *OF_THE_FILE)
#: Limits of a table of points: no scanner is wider, and no lesion; larger numbers are mistyped.
FARTHEST_MM = 10000
WIDEST_MM = 50
_LARGEST = 2**31 - 1
NOTHING = ('', 'n/a', 'nan', 'NaN', 'NA')
NOT_HERE = (
    'is a link to a file that is not here: fetch it (for example with "datalad get"), or remove '
    'the link'
)


@dataclass(frozen=True)
class Listed:
    """What a table says of one scan.

    Attributes
    ----------
    participant, session : str and str or None
        Labels without prefix; empty when the file is about one scan.
    count : int
        Number of lesions.
    points : tuple of (x, y, z)
        Scanner RAS mm; empty when only the number is known.
    radii : tuple of float
        mm, 0 where not known.
    names : tuple of int
        Numbers of the lesions, from 1 where the table has none.
    zones : tuple of str
        See :func:`shivacmb.imaging.zones.zone_name`; ``n/a`` where the table has none.
    entities : str
        The other entities that tell scans apart, such as ``acq-high_run-1``.
    """

    participant: str
    session: str | None
    count: int
    points: tuple[tuple[float, float, float], ...] = ()
    radii: tuple[float, ...] = ()
    names: tuple[int, ...] = ()
    zones: tuple[str, ...] = field(default=())
    entities: str = ''


class Line(dict[str, str]):
    """A row of a table by column; ``number`` is its line in the file."""

    number: int = 0


def in_folder(path: Path) -> bool:
    """Whether there is a file, or a link to one that is not here: that one is not missing."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def entities_of(name: str) -> dict[str, str]:
    """Entities of a name such as ``sub-01_run-1``, in its order."""
    return dict(word.split('-', 1) for word in name.split('_') if '-' in word)


def read_rows(path: Path) -> tuple[list[str], list[Line]]:
    """Header and rows of a TSV file.

    Raises
    ------
    DataError
        If it cannot be read or a row has another number of cells than the header.
    """
    lines: list[list[str]] = []
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            lines.extend(csv.reader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise DataError(f'The table <{path}> {NOT_HERE}') from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f'The table <{path}> cannot be read ({error}); write it as UTF-8'
        ) from error
    except csv.Error as error:
        raise DataError(
            f'The table <{path}> has a cell in line {len(lines) + 1} that no table has ({error}); '
            'see whether it is a table, with tabs between columns'
        ) from error
    if not lines:
        raise DataError(f'The table <{path}> is empty; it needs at least a header')
    header, *rows = lines
    found = []
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(header):
            raise DataError(
                f'The table <{path}> has {len(row)} cells in line {number} under a header of '
                f'{len(header)}; separate columns by tabs'
            )
        if row:
            found.append(Line(zip(header, row, strict=True)))
            found[-1].number = number
    return header, found


def zone_of(row: dict[str, str]) -> str:
    """Zone of a lesion by its row: of the column ``zone``, or the app's ``region``; or ``n/a``."""
    text = next((row[name] for name in ZONE_COLUMNS if row.get(name, '') not in NOTHING), '')
    return zone_name(text) or 'n/a'


def _said(row: Line, column: str, path: Path) -> str:
    return f'The table <{path}> says "{row[column]}" under {column} in line {row.number}'


def _number(row: Line, column: str, path: Path) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f'{_said(row, column, path)}, where a number belongs'
            + (
                '; a participant without lesions has one row with n/a under x, y and z'
                if column in ('x', 'y', 'z')
                else ''
            )
        )
    return value


def _place(row: Line, column: str, path: Path) -> float:
    value = _number(row, column, path)
    if abs(value) > FARTHEST_MM:
        raise DataError(
            f'{_said(row, column, path)}; places are in scanner mm, at most {FARTHEST_MM} from 0'
        )
    return value


def _whole(row: Line, column: str, path: Path) -> int:
    value = _number(row, column, path)
    if value != int(value) or not 0 <= value <= _LARGEST:
        raise DataError(
            f'{_said(row, column, path)}; a whole number from 0 to {_LARGEST} is needed'
        )
    return int(value)


def _radius(row: Line, column: str, path: Path) -> float:
    value = _number(row, column, path)
    if value < 0:
        raise DataError(
            f'{_said(row, column, path)}; a radius is not negative: write 0 or n/a where it is '
            'not known'
        )
    if value > WIDEST_MM:
        raise DataError(
            f'{_said(row, column, path)}; the radius of a lesion is at most {WIDEST_MM} mm'
        )
    return value


def _who(row: dict[str, str], path: Path) -> tuple[str, str | None, str]:
    """Participant, session and other entities of a row, these two also from the name of its scan.

    Raises
    ------
    DataError
        If the name under ``scan`` has another participant or session than the columns.
    """
    named = entities_of(row.get('scan', '').rsplit('/', 1)[-1].split('.')[0])
    participant = row['participant_id'].removeprefix('sub-')
    session = _label(row, 'session_id') or named.get('ses', '')
    for key, label, column in (('sub', participant, 'participant_id'),
                               ('ses', session, 'session_id')):  # fmt: skip
        if plain(named.get(key, label)) != plain(label):
            raise DataError(
                f'The table <{path}> has {key}-{label} under {column} and "{row["scan"]}" under '
                'scan in one row; correct the wrong one'
            )
    others = {
        key: value for key, value in named.items() if key in ENTITY_COLUMNS or 'sub' in named
    }
    for key in ENTITY_COLUMNS:
        value = _label(row, key) or _label(row, f'{key}_id')
        others |= {key: value} if value else {}
    keys = [key for key in others if key not in _NO_ENTITY]
    if set(keys) <= set(ENTITY_COLUMNS):
        keys.sort(key=ENTITY_COLUMNS.index)  # of columns and names alike; else as in the name
    return participant, session or None, '_'.join(f'{key}-{others[key]}' for key in keys)


def plain(label: str) -> str:
    """Label without the zeros before a whole number, which programs for tables drop."""
    return label.lstrip('0') or '0' if label.isdecimal() else label


def _label(row: dict[str, str], column: str) -> str:
    """Label in a cell without its prefix; ``1.0``, which pandas makes of numbers, is 1."""
    text = row.get(column, '')
    if text in NOTHING:
        return ''
    whole, _, rest = text.partition('.')
    if whole.isdigit() and not rest.strip('0'):
        text = whole
    prefix = 'ses-' if column == 'session_id' else f'{column.removesuffix("_id")}-'
    return text.removeprefix(prefix)


def count_rows(path: Path, column: str | None = None) -> list[Listed]:
    """Read numbers of lesions: ``participant_id``, perhaps further entities, and a count.

    Raises
    ------
    DataError
        If a column is missing or a cell is no whole number.
    """
    header, rows = read_rows(path)
    if 'participant_id' not in header:
        raise DataError(f'The table <{path}> lacks the column participant_id')
    known = [column] if column else [name for name in header if name.lower() in COUNT_COLUMNS]
    if len(known) != 1 or known[0] not in header:
        raise DataError(
            f'The table <{path}> has no single column of counts (it has {", ".join(header)}); '
            'name it with --count-column'
        )
    found = []
    for row in rows:
        if row[known[0]] not in NOTHING:
            participant, session, entities = _who(row, path)
            count = _whole(row, known[0], path)
            found.append(Listed(participant, session, count, entities=entities))
    return found


def point_rows(path: Path) -> list[Listed]:
    """Read points of several scans.

    Scans are told apart by ``participant_id``, ``session_id``, columns named after entities such
    as ``run``, and a name such as ``sub-01_ses-1_run-1`` under ``scan``. A row with n/a under x, y
    and z says that this scan has no lesions.

    Raises
    ------
    DataError
        If ``scan`` tells scans apart and its names do not say by what.
    """
    header, rows = read_rows(path)
    groups: dict[tuple[str, str | None, str], list[Line]] = {}
    for row in rows:
        groups.setdefault(_who(row, path), []).append(row)
    for (participant, _, _), mine in groups.items():
        names = list(dict.fromkeys(row.get('scan', '') for row in mine))
        if len(names) > 1:
            raise DataError(
                f'The table <{path}> has several scans of sub-{participant} under scan '
                f'({", ".join(names[:2])}, ...) that no session and no entity tells apart; use '
                'names such as sub-01_run-1, or rename the column if it means something else'
            )
    return [
        replace(_listed(*who[:2], mine, header, path), entities=who[2])
        for who, mine in groups.items()
    ]


def read_points(path: Path) -> Listed:
    """Read the points of one scan: columns x, y, z in scanner RAS mm.

    A radius (``radius``, ``radius_mm`` or ``apparent_radius_mm``), a ``zone`` or ``region`` and a
    number (``index``, ``id`` or ``label``) are read where they are there.

    Raises
    ------
    DataError
        If a column is missing or a cell is no number.
    """
    header, rows = read_rows(path)
    return _listed('', None, rows, header, path)


def _listed(
    participant: str,
    session: str | None,
    rows: Sequence[Line],
    header: Sequence[str],
    path: Path,
) -> Listed:
    missing = [column for column in 'xyz' if column not in header]
    if missing:
        raise DataError(
            f'The table <{path}> lacks the column {", ".join(missing)}; a list of points has '
            'x, y and z in scanner mm'
        )
    radius = next((name for name in RADIUS_COLUMNS if name in header), '')
    name = next((name for name in NAME_COLUMNS if name in header), None)
    places = [row for row in rows if any(row[column] not in NOTHING for column in 'xyz')]
    if rows and places and len(places) < len(rows):
        raise DataError(
            f'The table <{path}> has rows with and without a place for '
            f'{f"sub-{participant}" if participant else "one scan"}; a row with n/a under x, y '
            'and z stands alone and says that there are no lesions'
        )
    rows = places
    return Listed(
        participant,
        session,
        len(rows),
        tuple(
            (_place(row, 'x', path), _place(row, 'y', path), _place(row, 'z', path))
            for row in rows
        ),
        tuple(
            _radius(row, radius, path) if row.get(radius, '') not in NOTHING else 0.0
            for row in rows
        ),
        tuple(
            _whole(row, name, path) if name else number for number, row in enumerate(rows, start=1)
        ),
        tuple(zone_of(row) for row in rows),
    )


def read_participants(*folders: Path | None) -> Mapping[str, dict[str, str]]:
    """Rows of the first ``participants.tsv`` found, by label without ``sub-``.

    Raises
    ------
    DataError
        If a participant is there twice, or no column says who a row is about.
    """
    for folder in folders:
        if folder is not None and (folder / 'participants.tsv').is_file():
            header, rows = read_rows(folder / 'participants.tsv')
            if 'participant_id' not in header:
                raise DataError(
                    f'The table <{folder / "participants.tsv"}> lacks the column participant_id '
                    f'(it has {", ".join(header)}); rename the column of the labels'
                )
            found: dict[str, dict[str, str]] = {}
            for row in rows:
                label = row['participant_id'].removeprefix('sub-')
                if label in found:
                    raise DataError(
                        f'The table <{folder / "participants.tsv"}> has two rows for sub-{label}; '
                        'leave one'
                    )
                found[label] = row
            return found
    return {}
