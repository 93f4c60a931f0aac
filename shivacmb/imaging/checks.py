"""What makes a scan unusable or worth a warning: its geometry and its values.

The limits are explained in ``docs/decisions/0011-which-scans-are-refused.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError
from shivacmb.imaging.grid import Affine, Shape3, coded_forms

VOXEL_MM = (0.1, 10.0)
THICK_MM = 4.0
SLAB_MM = 40.0
PARTIAL_MM = 100.0
FORMS_DIFFER_MM = 0.1
FARTHEST_MM = 10_000.0
ZOOMS_DIFFER = (0.01, 0.10)  # share by which pixdim and affine may differ: warning, error
PHASE_TOPS = (np.pi, 4096.0)
_AGAIN = 'convert the scan again from DICOM'


def check_geometry(path: Path, header: Any, shape: Shape3) -> tuple[str, ...]:
    """Check voxel sizes, orientation and coverage from the header as stored.

    Returns
    -------
    tuple of str
        Warnings.

    Raises
    ------
    DataError
        If the scan cannot be placed in space or covers too little of it.
    """
    zooms = np.asarray(header['pixdim'][1:4], dtype=np.float64)
    text = ' x '.join(f'{size:g}' for size in zooms)
    if not np.all((zooms >= VOXEL_MM[0] - 1e-6) & (zooms <= VOXEL_MM[1] + 1e-6)):
        msg = (
            f'<{path}> has voxels of {text} mm; sizes from {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm '
            f'are accepted: correct the header (pixdim), or {_AGAIN}'
        )
        raise DataError(msg)
    with np.errstate(all='ignore'):  # huge numbers in a damaged header
        notes = _check_forms(path, header, shape, zooms)
    extent = zooms * shape
    fov = ' x '.join(f'{size:.0f}' for size in extent)
    if np.min(extent) < SLAB_MM:
        msg = (
            f'<{path}> covers {fov} mm only, a slab; at least {SLAB_MM:g} mm are needed along '
            'each axis: give a scan of the whole brain'
        )
        raise DataError(msg)
    if np.min(extent) < PARTIAL_MM:
        notes.append(f'The scan covers {fov} mm: parts of the brain may be missing')
    if zooms.max() > THICK_MM:
        notes.append(f'Voxels are {text} mm: small lesions may be lost in thick slices')
    return tuple(notes)


def _check_forms(path: Path, header: Any, shape: Shape3, zooms: npt.NDArray[Any]) -> list[str]:
    """Check sform and qform, alone and against each other."""
    try:
        forms = coded_forms(header)
    except DataError as error:
        msg = f'<{path}> has a qform whose quaternion is no rotation; {_AGAIN}'
        raise DataError(msg) from error
    if not forms:
        msg = (
            f'<{path}> has sform and qform codes 0, so its orientation is unknown; {_AGAIN}, or '
            'set sform_code once you know which side is left'
        )
        raise DataError(msg)
    for name, form in forms.items():
        _check_form(path, name, form, zooms)
    notes = []
    sizes = [np.sqrt((form[:3, :3] ** 2).sum(axis=0)) for form in forms.values()]
    worst = max(float(np.max(np.abs(size / zooms - 1))) for size in sizes)
    if worst > ZOOMS_DIFFER[0]:
        notes.append(f'Voxel sizes of header and affine differ by {100 * worst:.1f} %')
    if len(forms) == 2:
        notes.extend(_compare(path, forms['sform'], forms['qform'], shape))
    return notes


def _check_form(path: Path, name: str, form: Affine, zooms: npt.NDArray[Any]) -> None:
    """Refuse an affine that is not finite, singular, or of other voxel sizes than the header."""
    linear = form[:3, :3]
    sizes = np.sqrt((linear**2).sum(axis=0)) if np.isfinite(form).all() else np.zeros(3)
    # Relative to the product of its columns' lengths, so that small voxels are not singular.
    if not np.min(sizes) > 0 or abs(np.linalg.det(linear)) < 1e-3 * sizes.prod():
        msg = f'<{path}> has a singular {name} (it flattens space); {_AGAIN}'
        raise DataError(msg)
    if np.abs(form[:3, 3]).max() > FARTHEST_MM:
        msg = f'<{path}> lies more than {FARTHEST_MM / 1000:g} m away by its {name}; {_AGAIN}'
        raise DataError(msg)
    if np.max(np.abs(sizes / zooms - 1)) > ZOOMS_DIFFER[1]:
        said = ' x '.join(f'{size:.3g}' for size in sizes)
        held = ' x '.join(f'{size:.3g}' for size in zooms)
        msg = (
            f'<{path}> has voxels of {held} mm by its header but of {said} mm by its {name}; '
            f'{_AGAIN}'
        )
        raise DataError(msg)


def _compare(path: Path, sform: Affine, qform: Affine, shape: Shape3) -> list[str]:
    """Compare both forms at the corners of the image."""
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        msg = (
            f'<{path}> has an sform and a qform of opposite handedness, so left and right are '
            f'uncertain; {_AGAIN}, or set the code of the wrong form to 0'
        )
        raise DataError(msg)
    ends = np.array([[0, n - 1] for n in shape])
    corners = np.stack(np.meshgrid(*ends, indexing='ij'), axis=-1).reshape(-1, 3)
    corners = np.column_stack([corners, np.ones(8)])
    away = float(np.max(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1)))
    if away > FORMS_DIFFER_MM:
        return [f'sform and qform differ by up to {away:.1f} mm; the sform is used']
    return []


def check_values(
    path: Path, values: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Check the values and replace NaN and infinity by 0 (in place).

    Raises
    ------
    DataError
        If no value is finite, all are equal, or they look like phase.
    """
    notes = []
    low, high = float(np.min(values)), float(np.max(values))  # NaN propagates
    if not np.isfinite([low, high]).all():
        bad = ~np.isfinite(values)
        count = int(np.count_nonzero(bad))
        if count == values.size:
            msg = f'<{path}> holds no finite value, only NaN or infinity; {_AGAIN}'
            raise DataError(msg)
        values[bad] = 0.0
        low, high = float(np.min(values)), float(np.max(values))
        notes.append(f'{count} voxels were NaN or infinite and are set to 0')
    if low == high:
        msg = f'<{path}> is constant (every voxel is {low:g}); {_AGAIN}'
        raise DataError(msg)
    if looks_like_phase(values):
        msg = (
            f'<{path}> looks like a phase image (values {low:g} to {high:g}); give the magnitude '
            'or SWI image'
        )
        raise DataError(msg)
    negative = int(np.count_nonzero(values < 0)) if low < 0 else 0
    if negative:
        notes.append(f'{negative} voxels are negative (down to {low:g}) and count as 0')
    return values, tuple(notes)


def looks_like_phase(values: npt.NDArray[Any]) -> bool:
    """Say whether values are distributed as wrapped phase in radians or in 12-bit units.

    All of: both extremes within 5 % of -A and +A for A = pi or 4096; among the non-zero voxels
    25 to 75 % are negative; and at least 0.1 % of them lie beyond 0.8 A. CT (-1024 to 3071),
    z-scores and bias-corrected magnitudes fail one of them.
    """
    low, high = float(np.min(values)), float(np.max(values))
    for top in PHASE_TOPS:
        if abs(high - top) > 0.05 * top or abs(low + top) > 0.05 * top:
            continue
        filled = int(np.count_nonzero(values))
        negative = int(np.count_nonzero(values < 0))
        far = int(np.count_nonzero(np.abs(values) > 0.8 * top))
        return 0.25 <= negative / filled <= 0.75 and far >= 0.001 * filled
    return False
