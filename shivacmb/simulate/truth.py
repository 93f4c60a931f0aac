"""Truth of a scan as BIDS derivatives: label map, lesion table, mimic table, brain mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.files import write_image, write_json, write_table
from shivacmb.simulate.lesions import Lesion

Array = NDArray[Any]

COLUMNS = {
    'index': 'Number from 1; of a microbleed that can be seen, its value in the label map.',
    'name': 'CMB and the number, or the kind of mimic.',
    'x': 'Centre, scanner RAS, mm.',
    'y': 'Centre, scanner RAS, mm.',
    'z': 'Centre, scanner RAS, mm.',
    'zone': 'Where it was put.',
    'apparent_radius_mm': 'Radius of what is seen at this field and echo time, mm.',
    'radius_mm': 'Radius of one sphere that holds all the material, mm.',
    'chi_ppm': 'Susceptibility difference to tissue, ppm; negative is diamagnetic.',
    'visible': 'Whether the largest loss of signal exceeds 0.15 (see peak_drop) and 4 times the '
    'noise.',
    'visible_volume_mm3': 'Volume of the voxels with this label, mm3.',
    'peak_drop': 'Largest loss of signal; 1 is white matter in simulated heads, without noise, '
    'and the median of the brain in scans of people.',
}
_LESION = tuple(COLUMNS)
_MIMIC = ('index', 'name', 'x', 'y', 'z', 'chi_ppm')


def truth_names(stem: str) -> tuple[str, ...]:
    """Names of all files that :func:`write_truth` writes for a scan."""
    kinds = {'desc-CMB_dseg': ('tsv', 'nii.gz', 'json'), 'desc-mimics_dseg': ('tsv', 'json'),
             'desc-brain_mask': ('nii.gz', 'json')}  # fmt: skip
    return tuple(f'{stem}_{kind}.{end}' for kind, ends in kinds.items() for end in ends)


def describe(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Data dictionary of the given columns."""
    return {name: {'Description': COLUMNS[name]} for name in columns}


def write_truth(
    folder: Path,
    stem: str,
    *,
    labels: Array,
    brain: Array,
    affine: Array,
    to_scanner: Array,
    lesions: Sequence[tuple[Lesion, bool, float]],
    mimics: Sequence[tuple[str, Array, float]] = (),
    axes: str | None = None,
    sources: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
) -> None:
    """Write the truth of one scan.

    Parameters
    ----------
    folder : Path
        Exists; the ``anat`` folder of the participant in the truth dataset.
    stem : str
        Entities of the scan, such as ``sub-01_ses-1``.
    labels : ndarray, uint16 [X, Y, Z]
        Numbers of the visible lesions.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    to_scanner : ndarray, float64 [4, 4]
        From the millimetres in which lesions and mimics are placed to scanner RAS mm.
    lesions : sequence of (Lesion, visible, peak drop)
        The n-th has the number n + 1.
    mimics : sequence of (kind, ndarray [3], chi)
        One point of each.
    axes : str, optional
        Axes of the stored images, see :func:`shivacmb.simulate.files.write_image`.
    sources : sequence of str
        BIDS URIs of the images that show it.
    facts : dict, optional
        More for the sidecar of the label map.
    """
    volume = float(abs(np.linalg.det(affine[:3, :3])))
    counts = np.bincount(labels.ravel(), minlength=len(lesions) + 1)
    rows = []
    for number, (lesion, visible, peak) in enumerate(lesions, start=1):
        x, y, z = to_scanner[:3, :3] @ lesion.centre + to_scanner[:3, 3]
        rows.append([
            number, f'CMB{number:03d}', f'{x:.3f}', f'{y:.3f}', f'{z:.3f}', lesion.zone,
            f'{lesion.apparent_radius:.3f}', f'{lesion.radius:.3f}', f'{lesion.chi:.3f}',
            visible, f'{counts[number] * volume:.2f}', f'{peak:.3f}',
        ])  # fmt: skip
    common = {'SpatialReference': 'orig', 'Sources': list(sources)}
    base = folder / f'{stem}_desc-CMB_dseg'
    write_table(Path(f'{base}.tsv'), _LESION, rows)
    write_image(Path(f'{base}.nii.gz'), labels, affine, axes=axes)
    write_json(
        Path(f'{base}.json'),
        {
            'Description': 'Visible simulated microbleeds: voxels that lost more than half of the '
            'peak loss of noise-free magnitude.',
            **common,
            'Lesions': len(rows),
            'VisibleLesions': sum(bool(visible) for _, visible, _ in lesions),
            **(facts or {}),
            **describe(_LESION),
        },
    )
    points = []
    for number, (kind, point, chi) in enumerate(mimics, start=1):
        x, y, z = to_scanner[:3, :3] @ point + to_scanner[:3, 3]
        points.append([number, kind, f'{x:.3f}', f'{y:.3f}', f'{z:.3f}', round(chi, 3)])
    base = folder / f'{stem}_desc-mimics_dseg'
    write_table(Path(f'{base}.tsv'), _MIMIC, points)
    write_json(
        Path(f'{base}.json'),
        {
            'Description': 'What resembles a microbleed and is none, one point of each: vessels '
            'by where they run, perivascular spaces, calcifications, iron.',
            **common,
            **describe(_MIMIC),
        },
    )
    base = folder / f'{stem}_desc-brain_mask'
    write_image(Path(f'{base}.nii.gz'), brain.astype(np.uint8), affine, axes=axes)
    write_json(
        Path(f'{base}.json'),
        {'Description': 'Brain.', 'Type': 'Brain', **common},
    )
