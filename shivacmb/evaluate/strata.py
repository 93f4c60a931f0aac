"""Scores by size of the lesion, by zone, and by what is known of the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.lists import NOTHING
from shivacmb.evaluate.resampling import Bootstrap, Interval, proportion_interval

Array = npt.NDArray[Any]

#: Edges of the diameter of the ball of equal volume, mm. Microbleeds measure 2 to 10 mm.
SIZE_EDGES_MM = (0.0, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, math.inf)
UNKNOWN = 'n/a'
#: What every scan is asked for.
STRATA = ('contrast', 'slice_thickness', 'field_strength', 'scanner', 'site')


@dataclass(frozen=True)
class Share:
    """How many lesions of one kind were found.

    Attributes
    ----------
    name : str
        Of the kind, such as ``3-4`` for a diameter in mm.
    hits, total : int
        Found and all.
    wilson : tuple of two float
        95 % interval as if lesions were independent.
    drawn : tuple of two float
        95 % interval from drawing subjects.
    """

    name: str
    hits: int
    total: int
    wilson: Interval
    drawn: Interval

    @property
    def value(self) -> float:
        """Share that was found."""
        return self.hits / self.total if self.total else math.nan


def size_names(edges: Sequence[float] = SIZE_EDGES_MM) -> list[str]:
    """Names of the classes of diameter between the edges."""
    return [
        f'>={low:g}' if math.isinf(high) else f'{low:g}-{high:g}' for low, high in pairwise(edges)
    ]


def size_classes(diameters: Array, edges: Sequence[float] = SIZE_EDGES_MM) -> list[str]:
    """Class of each diameter; a lower edge belongs to its class; ``n/a`` for no size."""
    names = size_names(edges)
    return [
        names[int(np.searchsorted(edges[1:-1], value, side='right'))]
        if math.isfinite(value)
        else UNKNOWN
        for value in diameters
    ]


def shares(
    kinds: Sequence[str], hits: Array, scans: Array, names: Sequence[str], bootstrap: Bootstrap
) -> list[Share]:
    """Share of hits by kind.

    Parameters
    ----------
    kinds : sequence of str
        Kind of each lesion.
    hits : (L,) array of bool
        Whether it was found.
    scans : (L,) array of int
        Which scan it is in.
    names : sequence of str
        Kinds to list, in order; those without lesions are left out.
    bootstrap : Bootstrap
        Over the scans.
    """
    kinds_array, count = np.asarray(kinds, dtype=object), bootstrap.weights.shape[1]
    found = []
    for name in names:
        mine = kinds_array == name
        total = int(mine.sum())
        if not total:
            continue
        right = int(hits[mine].sum())
        columns = np.stack(
            [
                np.bincount(scans[mine & hits], minlength=count),
                np.bincount(scans[mine], minlength=count),
            ],
            axis=1,
        )
        carriers = columns[:, 1] > 0  # the others add nothing to the sums
        drawn = bootstrap.of(carriers).pooled(
            columns[carriers], lambda sums: sums[:, 0] / sums[:, 1]
        )
        found.append(Share(name, right, total, proportion_interval(right, total), drawn))
    return found


def thickness_class(millimetres: float) -> str:
    """Class of slice thickness: thin 3-D, usual 2-D, and the clinical slabs of 4 mm and more."""
    if not math.isfinite(millimetres):
        return UNKNOWN
    if millimetres < 1.5:
        return '<1.5 mm'
    if millimetres < 3:
        return '1.5-3 mm'
    return '3-4 mm' if millimetres < 4 else '>=4 mm'


def field_class(tesla: Any) -> str:
    """Nominal field strength: 2.89 T is sold and written as 3 T."""
    try:
        value = float(tesla)
    except (TypeError, ValueError):
        return UNKNOWN
    if not 0 < value < math.inf:
        return UNKNOWN
    nominal = min((0.5, 1.0, 1.5, 3.0, 7.0), key=lambda known: abs(known - value))
    return f'{nominal:g} T' if abs(nominal - value) < 0.2 * nominal else f'{value:g} T'


def scan_strata(
    metadata: Mapping[str, Any],
    person: Mapping[str, str],
    *,
    contrast: str | None,
    thickness_mm: float,
    extra: Sequence[str] = (),
) -> dict[str, str]:
    """Strata of one scan.

    Parameters
    ----------
    metadata : mapping
        Sidecar of the scan, inheritance applied.
    person : mapping
        Row of participants.tsv.
    contrast : str or None
        ``T2starw`` or ``swi``.
    thickness_mm : float
        Largest voxel size, used where the sidecar has no SliceThickness.
    extra : sequence of str
        Further columns of participants.tsv or fields of the sidecar.

    Returns
    -------
    dict of str to str
        ``n/a`` for what is not known.
    """
    try:
        thickness = float(metadata.get('SliceThickness', thickness_mm))
    except (TypeError, ValueError):
        thickness = thickness_mm
    scanner = [metadata.get(name) for name in ('Manufacturer', 'ManufacturersModelName')]
    found = {
        'contrast': contrast or UNKNOWN,
        'slice_thickness': thickness_class(thickness),
        'field_strength': field_class(metadata.get('MagneticFieldStrength')),
        'scanner': ' '.join(str(part) for part in scanner if part) or UNKNOWN,
        'site': _first(person.get('site'), metadata.get('InstitutionName')),
    }
    for name in extra:
        found[name] = _first(person.get(name), metadata.get(name))
    return found


def _first(*values: Any) -> str:
    """The first value that says something; ``n/a`` without one."""
    return next(
        (str(value) for value in values if value is not None and str(value) not in NOTHING),
        UNKNOWN,
    )
