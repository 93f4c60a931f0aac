"""Read a user's scan as a host for lesions, and write it back with nothing else changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import Scan, file_facts, find_brain_mask, settings_hash
from shivacmb.bids.sidecars import SidecarReader, split_name
from shivacmb.exceptions import DataError
from shivacmb.imaging import background_mask, is_skull_stripped, load_scan, read_mask, same_grid
from shivacmb.simulate.implant import Host, Implanted, field_direction
from shivacmb.simulate.lesions import Protocol

Array = NDArray[Any]
_RADIANS = ('rad', 'radian', 'radians')


@dataclass(frozen=True)
class Fallback:
    """What is taken where sidecars are silent.

    Attributes
    ----------
    field_t : float
        Main field in tesla.
    echo_s : float
        Echo time in seconds.
    phase_sign : int
        1 where a raised field gives a positive phase, -1 where a negative one.
    """

    field_t: float = 3.0
    echo_s: float = 0.020
    phase_sign: int = 1


@dataclass(frozen=True)
class HostFile:
    """A host with where it came from.

    Attributes
    ----------
    host : Host
    image : Nifti1Image
        The scan as :func:`shivacmb.imaging.load_scan` gives it.
    phase_path : Path or None
        Its phase image.
    phase_scale : tuple of two float
        Stored phase times the first plus the second is rad.
    phase_sidecar : dict
        What the sidecars say of the phase, with the unit.
    notes : tuple of str
        What was guessed.
    """

    host: Host
    image: Any
    phase_path: Path | None
    phase_scale: tuple[float, float]
    phase_sidecar: dict[str, Any]
    notes: tuple[str, ...]


def load_host(
    scan: Scan,
    *,
    derivatives: Mapping[str, Path] | None = None,
    mask_pattern: str | None = None,
    fallback: Fallback | None = None,
) -> HostFile:
    """Read a scan, its phase if there is one, its protocol and its brain mask.

    Parameters
    ----------
    scan : Scan
        From :func:`shivacmb.bids.find_scans`.
    derivatives, mask_pattern
        Where brain masks are, see :func:`shivacmb.bids.find_brain_mask`. Without any, the
        background of a skull-stripped scan or the built-in network.
    fallback : Fallback, optional
        For what the sidecar does not say.

    Returns
    -------
    HostFile

    Raises
    ------
    DataError
        When the scan, its phase or its mask cannot be used.
    NoInputError
        When a mask was asked for and there is none.
    """
    scan.check()
    fallback = fallback or Fallback()
    image = load_scan(scan.path).image
    notes = []
    echo_s = _positive(scan.metadata.get('EchoTime'))
    field_t = _positive(scan.metadata.get('MagneticFieldStrength'))
    if echo_s is None:
        echo_s = fallback.echo_s
        notes.append(f'{scan.name}: no EchoTime in its sidecar, {1000 * echo_s:g} ms taken')
    elif echo_s >= 1:
        # milliseconds, as find_scans warns
        echo_s /= 1000
    if field_t is None:
        field_t = fallback.field_t
        notes.append(f'{scan.name}: no MagneticFieldStrength in its sidecar, {field_t:g} T taken')
    affine = np.asarray(image.affine, float)
    protocol = Protocol(field_t, echo_s, field_direction(affine))
    path = phase_path(scan.path)
    values, scale = None, (1.0, 0.0)
    sidecar: dict[str, Any] = {}
    if path is not None:
        values, scale, sidecar, guessed = _read_phase(path, image, phase_metadata(scan, path))
        notes += guessed
    host = Host(
        np.asarray(image.dataobj, np.float32), affine,
        _brain(image, find_brain_mask(scan, derivatives or {}, mask_pattern), scan.name),
        protocol, values, fallback.phase_sign,
    )  # fmt: skip
    return HostFile(host, image, path, scale, sidecar, tuple(notes))


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    return float(value)


def phase_path(path: Path) -> Path | None:
    """Phase image of a magnitude image by its name, or None.

    Parameters
    ----------
    path : Path
        Such as ``sub-1_T2starw.nii.gz`` or ``sub-1_part-mag_T2starw.nii.gz``.
    """
    if '_part-mag' in path.name:
        other = path.with_name(path.name.replace('_part-mag', '_part-phase'))
    else:
        stem, _, suffix = path.name.rpartition('_')
        before, chunk, after = stem.partition('_chunk-')
        other = path.with_name(f'{before}_part-phase{chunk}{after}_{suffix}')
    return other if other.is_file() else None


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
    pairs, suffix, _ = split_name(path.name.removesuffix('.gz').removesuffix('.nii'))
    return SidecarReader().merged(levels, pairs, suffix)


def phase_scale(low: float, high: float) -> tuple[float, float]:
    """How stored phase becomes rad: radians, -4096 to 4096 and 0 to 4095 occur.

    Parameters
    ----------
    low, high : float
        Extremes of the stored values.

    Returns
    -------
    tuple of two float
        Factor, and summand in rad.
    """
    if max(abs(low), abs(high)) <= 3.2:
        return 1.0, 0.0
    if low >= 0:
        if high <= 6.4:
            return 1.0, -np.pi
        half = 2.0 ** np.ceil(np.log2(high)) / 2
        return float(np.pi / half), -np.pi
    return float(np.pi / 2.0 ** np.ceil(np.log2(max(-low, high) * 0.999))), 0.0


def _read_phase(
    path: Path, scan: Any, sidecar: dict[str, Any]
) -> tuple[Array, tuple[float, float], dict[str, Any], list[str]]:
    """Phase in rad, how it is stored, its sidecar with the unit, and what was guessed."""
    try:
        image = nib.load(path)
        stored = np.asarray(image.dataobj, np.float32)
    except Exception as error:
        raise DataError(
            f'the phase <{path}> cannot be read ({error}); replace or remove it'
        ) from (error)
    if stored.size != np.prod(scan.shape) or not same_grid(
        nib.Nifti1Image(stored.reshape(scan.shape), image.affine), scan
    ):
        raise DataError(
            f'the phase <{path}> has another grid than its magnitude: {stored.shape} against '
            f'{scan.shape}; give both from the same reconstruction'
        )
    notes = []
    if str(sidecar.get('Units', '')).strip().lower() in _RADIANS:
        scale = 1.0, 0.0
    else:
        low, high = float(np.nanmin(stored)), float(np.nanmax(stored))
        scale = phase_scale(low, high)
        guess = (
            f'stored values of {low:g} to {high:g} were taken for rad after times {scale[0]:.6g} '
            f'plus {scale[1]:.6g}'
        )
        notes.append(f'{path.name}: its sidecar does not have "Units": "rad"; {guess}')
        usual = 'rad' if scale == (1.0, 0.0) else 'arbitrary'
        sidecar = {'Units': usual, **sidecar, 'UnitsGuessed': f'By shivacmb-tools: {guess}'}
    values = np.nan_to_num(stored.reshape(scan.shape)) * np.float32(scale[0]) + np.float32(
        scale[1]
    )
    return values, scale, sidecar, notes


def _brain(image: Any, mask: Path | None, name: str) -> Array:
    """Brain mask on the scan's own grid."""
    values = np.asarray(image.dataobj, np.float32)
    if mask is not None:
        given = read_mask(mask)
        if not same_grid(given, image):
            raise DataError(
                f'the brain mask <{mask}> has another grid than {name}; resample it to the scan'
            )
        brain = np.asarray(given.dataobj) > 0
    elif is_skull_stripped(values, image.header.get_zooms()[:3]):
        brain = background_mask(values)
    else:
        from shivacmb.models.brain_mask import predict_brain

        brain = np.asarray(predict_brain(image, engine='openvino')) > 0
    if not brain.any():
        raise DataError(f'the brain mask of {name} is empty; give one that is not')
    return brain


def input_sums(
    scan: Scan, derivatives: Mapping[str, Path] | None, mask_pattern: str | None
) -> dict[str, Any]:
    """Name of a scan and checksums of all that is read for it.

    Parameters
    ----------
    scan, derivatives, mask_pattern
        See :func:`load_host`.

    Returns
    -------
    dict
        Without a mask file the mask is the built-in one, and None here.

    Raises
    ------
    DataError
        When a file cannot be read.
    NoInputError
        When a mask was asked for and there is none.
    """
    scan.check()
    phase = phase_path(scan.path)
    files = {
        'scan': scan.path,
        'phase': phase,
        'mask': find_brain_mask(scan, derivatives or {}, mask_pattern),
    }
    try:
        sums = {
            name: None if path is None else file_facts(path)['input_sha256']
            for name, path in files.items()
        }
    except OSError as error:
        raise DataError(
            f'<{error.filename}> cannot be read ({error.strerror}); replace it or allow reading'
        ) from error
    turned = None if phase is None else settings_hash(phase_metadata(scan, phase))
    own = settings_hash(scan.metadata)
    return {'name': scan.name, **sums, 'sidecar': own, 'phase_sidecar': turned}


def write_like(source: Path, target: Path, values: Array, boxes: Any, unscale: Any = None) -> None:
    """Write a NIfTI file again with other values in some boxes, every other byte the same.

    Parameters
    ----------
    source : Path
        The file as it is.
    target : Path
        Compressed if its name ends in ``.gz``.
    values : ndarray, float32 [X, Y, Z]
        New values in the unit of the image.
    boxes : sequence of tuple of three slice
        Where they are taken.
    unscale : tuple of two float, optional
        Factor and summand to divide out and subtract first (phase in rad to stored units).
    """
    content = source.read_bytes()
    if content[:2] == b'\x1f\x8b':
        content = gzip.decompress(content)
    stored_as = nib.load(source).dataobj
    dtype, start = stored_as.dtype, stored_as.offset
    raw = np.frombuffer(content, dtype, int(np.prod(values.shape)), start).copy()
    stored = raw.reshape(values.shape, order='F')
    slope, inter = stored_as.slope, stored_as.inter
    factor, summand = unscale or (1.0, 0.0)
    for box in boxes:
        new = ((values[box].astype(float) - summand) / factor - inter) / slope
        if dtype.kind in 'iu':
            info = np.iinfo(dtype)
            new = np.clip(np.rint(new), info.min, info.max)
        stored[box] = new.astype(dtype)
    whole = content[:start] + raw.tobytes() + content[start + raw.nbytes :]
    packed = gzip.compress(whole, 4, mtime=0) if target.name.endswith('.gz') else whole
    target.write_bytes(packed)


def write_implanted(folder: Path, scan: Scan, found: HostFile, new: Implanted) -> list[str]:
    """Write the scan, its phase and their sidecars.

    Parameters
    ----------
    folder : Path
        Exists.
    scan : Scan
    found : HostFile
        The scan as it was.
    new : Implanted
        As it is now.

    Returns
    -------
    list of str
        Names of the images.
    """
    names = [scan.path.name]
    write_like(scan.path, folder / names[0], new.magnitude, new.boxes)
    _write_sidecar(folder, names[0], dict(scan.metadata))
    if found.phase_path is not None and new.phase is not None:
        names.append(found.phase_path.name)
        values = _same_turns(new.phase, found.host.phase, found.phase_scale)
        write_like(found.phase_path, folder / names[1], values, new.boxes, found.phase_scale)
        _write_sidecar(folder, names[1], found.phase_sidecar)
    return names


def _same_turns(new: Array, old: Array | None, scale: tuple[float, float]) -> Array:
    """Bring phase of -pi to pi to the turns in which a file in rad has it."""
    if old is None or scale != (1.0, 0.0) or np.abs(old).max(initial=0.0) <= 3.2:
        return new
    turn = 2 * np.pi
    if old.min() >= 0 and old.max() <= 6.4:
        return np.asarray(np.mod(new, turn), np.float32)
    # unwrapped: the turn that is nearest to what was there
    return np.asarray(new + turn * np.rint((old - new) / turn), np.float32)


def _write_sidecar(folder: Path, name: str, content: dict[str, Any]) -> None:
    stem = name.removesuffix('.gz').removesuffix('.nii')
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
    (folder / f'{stem}.json').write_text(text, encoding='utf-8')
