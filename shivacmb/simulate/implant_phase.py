"""Phase images of users' scans: which they are, in which unit, and how they are written back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import Scan
from shivacmb.bids.channels import bare_name
from shivacmb.bids.sidecars import SidecarReader, split_name
from shivacmb.exceptions import DataError
from shivacmb.imaging import read_stored, same_grid

Array = NDArray[Any]
#: What voxels hold that are no real numbers, by kind of their type.
_KINDS = {'c': 'complex', 'V': 'colour'}
#: Value in rad of the units that sidecars name.
_UNITS = {
    **dict.fromkeys(('rad', 'radian', 'radians'), 1.0),
    **dict.fromkeys(('mrad', 'milliradian', 'milliradians'), 1e-3),
    **dict.fromkeys(('deg', 'degree', 'degrees'), float(np.pi / 180)),
}
#: Wider than any unwrapped phase.
_MOST_RAD = 64 * float(np.pi)
#: Half a turn in units that are no power of two, and how far extremes may lie from it.
_HALF_TURNS = ((3100.0, 3160.0, 1e-3), (176.0, 181.0, float(np.pi / 180)))


def phase_path(path: Path) -> Path | None:
    """Phase image of a magnitude image by its name, or None.

    Parameters
    ----------
    path : Path
        Such as ``sub-1_T2starw.nii.gz`` or ``sub-1_part-mag_T2starw.nii.gz``.
    """
    return next((other for other in _phase_names(path) if other.is_file()), None)


def lost_phase(path: Path) -> Path | None:
    """Link by the name of a phase image to a file that is not here, or None.

    Parameters
    ----------
    path : Path
        Of the magnitude image.
    """
    links = (other for other in _phase_names(path) if other.is_symlink())
    return next((other for other in links if not other.exists()), None)


def _phase_names(path: Path) -> list[Path]:
    name, found = re.subn(r'_part-mag(nitude)?(?=_)', '_part-phase', path.name)
    if not found:
        stem, _, suffix = path.name.rpartition('_')
        before, chunk, after = stem.partition('_chunk-')
        name = f'{before}_part-phase{chunk}{after}_{suffix}'
    # one may be compressed and the other not
    unpacked = name.removesuffix('.gz')
    return [path.with_name(other) for other in (name, unpacked, f'{unpacked}.gz')]


def phase_metadata(scan: Scan, path: Path) -> dict[str, Any]:
    """Sidecars of a scan's phase image, merged by the inheritance principle.

    Parameters
    ----------
    scan : Scan
    path : Path
        From :func:`phase_path`.

    Raises
    ------
    DataError
        When one that applies cannot be read.
    """
    # from the root of the dataset down to the image
    steps = max(1, len(Path(scan.relative_path).parts))
    folders = list(path.parents)[:steps][::-1]
    levels = [(folder, sorted(item.name for item in folder.glob('*.json'))) for folder in folders]
    pairs, suffix, _ = split_name(bare_name(path))
    return SidecarReader().merged(levels, pairs, suffix)


def phase_scale(low: float, high: float) -> tuple[float, float]:
    """How stored phase becomes rad: rad, mrad, degrees, -4096 to 4096 and 0 to 4095 occur.

    Parameters
    ----------
    low, high : float
        Extremes of the stored values.

    Returns
    -------
    tuple of two float
        Factor, and summand in rad.
    """
    most = max(abs(low), abs(high))
    if most <= 3.2:
        return 1.0, 0.0
    summand = -float(np.pi) if low >= 0 else 0.0
    # a whole turn from 0 is as wide as half a turn to either side
    half = most / 2 if low >= 0 else most
    if half <= 3.2:
        return 1.0, summand
    for least, largest, unit in _HALF_TURNS:
        if least <= half <= largest:
            return unit, summand
    steps = 2.0 ** np.ceil(np.log2(half if low >= 0 else half * 0.999))
    return float(np.pi / steps), summand


def read_phase(
    path: Path, scan: Any, sidecar: dict[str, Any]
) -> tuple[Array, tuple[float, float], dict[str, Any], list[str]]:
    """Read a phase image.

    Parameters
    ----------
    path : Path
        From :func:`phase_path`.
    scan : Nifti1Image
        Its magnitude.
    sidecar : dict
        From :func:`phase_metadata`.

    Returns
    -------
    values : ndarray, float32 [X, Y, Z]
        In rad; 0 where the file has no finite value.
    scale : tuple of two float
        Stored phase times the first plus the second is rad.
    sidecar : dict
        With the unit.
    notes : list of str
        What was guessed.

    Raises
    ------
    DataError
        When it cannot be read, holds no real numbers or none that is finite, or has another grid
        than the scan.
    """
    try:
        image = nib.load(path)
        kind = image.get_data_dtype().kind
    except Exception as error:
        raise DataError(
            f'the phase <{path}> cannot be read ({error}); replace or remove it'
        ) from (error)
    if kind not in 'iuf':
        raise DataError(
            f'the phase <{path}> holds {_KINDS.get(kind, "other")} values; write the phase alone, '
            'in rad, or remove it'
        )
    found = read_stored(path)
    stored = np.asarray(found.numbers() * found.slope + found.inter, np.float32)
    if stored.shape != scan.shape or not same_grid(nib.Nifti1Image(stored, image.affine), scan):
        raise DataError(
            f'the phase <{path}> has another grid than its magnitude: {stored.shape} against '
            f'{scan.shape}; give both from the same reconstruction'
        )
    # one voxel without a number must not decide the unit of all
    finite = stored[np.isfinite(stored)]
    if not finite.size:
        raise DataError(f'the phase <{path}> has no finite value; replace or remove it')
    notes = []
    low, high = float(finite.min()), float(finite.max())
    unit = _UNITS.get(str(sidecar.get('Units', '')).strip().lower())
    if unit is not None and (high - low) * unit > _MOST_RAD:
        raise DataError(
            f'the phase <{path}> has values of {low:g} to {high:g}, which are not in '
            f'{sidecar["Units"]}, as its sidecars say; correct "Units" there, or remove it, and '
            'the unit is guessed from the values'
        )
    if unit is not None:
        scale = unit, 0.0
    else:
        scale = phase_scale(low, high)
        guess = (
            f'stored values of {low:g} to {high:g} were taken for rad after times {scale[0]:.6g} '
            f'plus {scale[1]:.6g}'
        )
        notes.append(f'{path.name}: its sidecar names no unit of phase ("Units": "rad"); {guess}')
        usual = 'rad' if scale == (1.0, 0.0) else 'arbitrary'
        sidecar = {'Units': usual, **sidecar, 'UnitsGuessed': f'By shivacmb-tools: {guess}'}
    clean = np.nan_to_num(stored, nan=0.0, posinf=0.0, neginf=0.0)
    return clean * np.float32(scale[0]) + np.float32(scale[1]), scale, sidecar, notes


def same_turns(new: Array, old: Array | None, scale: tuple[float, float]) -> Array:
    """Bring phase of -pi to pi to the turns in which a file has it.

    Parameters
    ----------
    new : ndarray, float32
        In rad, -pi to pi.
    old : ndarray, float32, optional
        What the file has, in rad.
    scale : tuple of two float
        See :func:`read_phase`.

    Returns
    -------
    ndarray, float32
    """
    # with a summand it was brought to -pi to pi as it was read
    if old is None or scale[1] != 0.0 or np.abs(old).max(initial=0.0) <= 3.2:
        return new
    turn = 2 * np.pi
    if old.min() >= 0 and old.max() <= 6.4:
        return np.asarray(np.mod(new, turn), np.float32)
    # unwrapped: the turn that is nearest to what was there
    return np.asarray(new + turn * np.rint((old - new) / turn), np.float32)
