"""The per-lesion table as text, its column dictionary, and totals."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from shivacmb.exceptions import DataError
from shivacmb.lesions.measure import Lesion

LESION_COLUMNS: dict[str, dict[str, str]] = {
    'index': {
        'Description': 'Value of the lesion in the label map, 1 for the largest lesion.',
        'Units': 'arbitrary',
    },
    'name': {
        'Description': 'Class of the lesion followed by its index.',
    },
    'x': {
        'Description': 'Centre of mass, left (-) to right (+), scanner coordinates (RAS).',
        'Units': 'mm',
    },
    'y': {
        'Description': 'Centre of mass, posterior (-) to anterior (+), scanner coordinates (RAS).',
        'Units': 'mm',
    },
    'z': {
        'Description': 'Centre of mass, inferior (-) to superior (+), scanner coordinates (RAS).',
        'Units': 'mm',
    },
    'volume_mm3': {
        'Description': "Volume of the cluster on the network's grid.",
        'Units': 'mm3',
    },
    'voxels': {
        'Description': "Number of voxels of the cluster on the network's grid.",
        'Units': 'arbitrary',
    },
    'p_max': {
        'Description': 'Largest probability inside the cluster, mean of the folds, 0 to 1.',
        'Units': 'arbitrary',
    },
    'p_mean': {
        'Description': 'Mean probability inside the cluster, mean of the folds, 0 to 1.',
        'Units': 'arbitrary',
    },
    'fold_agreement': {
        'Description': (
            'Fraction of the folds whose own map reaches the threshold inside the cluster.'
        ),
        'Units': 'arbitrary',
    },
    'edge_distance_mm': {
        'Description': (
            'Distance from the closest voxel of the cluster to the nearest voxel outside the '
            'brain mask; 0 where the cluster leaves the mask.'
        ),
        'Units': 'mm',
    },
    'region': {
        'Description': (
            'Zone of the brain that most of the lesion lies in, of the map desc-zones_dseg; fluid '
            'does not count. n/a without zones.'
        ),
    },
    'parenchyma_fraction': {
        'Description': (
            'Share of brain tissue, by desc-zones_dseg, in what lies within 2 mm of the cluster, '
            'or twice that in the cluster itself, whichever is smaller. What lies within 8 mm of '
            'the pineal gland is no brain tissue. n/a without zones.'
        ),
        'Units': 'arbitrary',
    },
}
"""Column dictionary of ``desc-CMB_dseg.tsv``, to be merged into ``desc-CMB_dseg.json``."""

_DECIMALS = {
    'x': 2,
    'y': 2,
    'z': 2,
    'volume_mm3': 2,
    'p_max': 4,
    'p_mean': 4,
    'fold_agreement': 4,
    'edge_distance_mm': 2,
    'parenchyma_fraction': 4,
}
_WHOLE = ('index', 'voxels')


@dataclass(frozen=True)
class Totals:
    """A scan's lesions in three figures: number, volume in mm3, burden class."""

    count: int
    volume_mm3: float
    burden_class: str


def burden_class(count: int) -> str:
    """Give the class of a count: ``0``, ``1-3``, ``4-9`` or ``>=10``.

    The classes of the SHIVA-CMB paper's results and figure 5; its methods sentence prints the
    middle one as "4" only. They are classes of a whole scan. ARIA-H grades count new lesions and
    have other limits: a class is never a grade.

    Raises
    ------
    ValueError
        If the count is negative.
    """
    if count < 0:
        raise ValueError(f'A count of lesions is not negative: {count}')
    if count == 0:
        return '0'
    if count <= 3:
        return '1-3'
    return '4-9' if count <= 9 else '>=10'


def lesion_totals(lesions: Sequence[Lesion]) -> Totals:
    """Count the lesions, add up their volumes, name the burden class."""
    # affines in single precision tell no more than three decimals
    volume = round(math.fsum(lesion.volume_mm3 for lesion in lesions), 3)
    return Totals(len(lesions), volume, burden_class(len(lesions)))


def lesions_to_tsv(lesions: Sequence[Lesion]) -> str:
    """Write the table as BIDS wants it: tabs, a header, ``n/a`` for what is not known.

    Decimals are fixed per column, so that the same lesions always give the same bytes. A scan
    without lesions gives the header alone.
    """
    lines = ['\t'.join(LESION_COLUMNS)]
    lines += ['\t'.join(_cell(lesion, name) for name in LESION_COLUMNS) for lesion in lesions]
    return '\n'.join(lines) + '\n'


def _cell(lesion: Lesion, column: str) -> str:
    value = getattr(lesion, column)
    if column not in _DECIMALS:
        return str(value) or 'n/a'
    if not math.isfinite(value):
        return 'n/a'
    text = f'{value:.{_DECIMALS[column]}f}'
    return text.removeprefix('-') if float(text) == 0 else text


def read_lesions(path: str | Path) -> list[Lesion]:
    """Read a per-lesion table back; columns it does not know are passed over.

    Raises
    ------
    DataError
        If a column is missing or a cell is not a number.
    """
    path = Path(path)
    with path.open(encoding='utf-8', newline='') as stream:
        reader = csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE)
        rows = list(reader)
        header = reader.fieldnames or []
    # tables of earlier versions had neither
    later = ('region', 'parenchyma_fraction')
    needed = [column.name for column in fields(Lesion) if column.name not in later]
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(
            f'The table <{path}> lacks the column {", ".join(missing)}. '
            'Run the scan again with --overwrite.'
        )
    return [_lesion(row, path) for row in rows]


def _lesion(row: dict[str, str | None], path: Path) -> Lesion:
    values: dict[str, int | float | str] = {}
    for column in (column.name for column in fields(Lesion)):
        text = row.get(column) or ('n/a' if column == 'parenchyma_fraction' else '')
        try:
            if column in _WHOLE:
                values[column] = int(text)
            elif column in _DECIMALS:
                values[column] = math.nan if text == 'n/a' else float(text)
            else:
                values[column] = '' if text == 'n/a' else text
        except ValueError:
            raise DataError(
                f'The table <{path}> says "{text}" under {column}, where a number belongs. '
                'Run the scan again with --overwrite.'
            ) from None
    return Lesion(**values)  # type: ignore[arg-type]
