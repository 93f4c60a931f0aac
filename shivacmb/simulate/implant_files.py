"""Read a user's scan as a host for lesions, and write it back with nothing else changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import Scan, file_facts, find_brain_mask, settings_hash
from shivacmb.bids.channels import bare_name
from shivacmb.bids.sidecars import SidecarReader, split_name
from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import load_scan, read_mask, read_stored, same_grid
from shivacmb.simulate.implant import Host, Implanted, field_direction
from shivacmb.simulate.implant_phase import (
    lost_phase,
    phase_metadata,
    phase_path,
    read_phase,
    same_turns,
)
from shivacmb.simulate.lesions import Protocol

if TYPE_CHECKING:
    from shivacmb.models.brain_mask import BrainMaps

Array = NDArray[Any]
#: What a scan of a head may have: others are another unit, or a slip.
_FIELD_T, _ECHO_S = (0.1, 20.0), (1e-3, 0.2)
#: Share of the brain below 0 from which a scan is no magnitude; resampling leaves fewer.
_MOST_NEGATIVE = 0.05
_SILENT = ('', 'n/a', 'na', 'none')


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
        When the scan, its phase, its mask or its protocol cannot be used, or the scan is no
        magnitude.
    ModelError
        When the network that finds the zones is missing or altered.
    NoInputError
        When a mask was asked for and there is none.
    """
    scan.check()
    fallback = fallback or Fallback()
    image = load_scan(scan.path).image
    notes = [f'{scan.name}: {warning}' for warning in scan.warnings]
    field_t, echo_s, guessed = _field_and_echo(scan, fallback)
    notes += guessed
    affine = np.asarray(image.affine, float)
    protocol = Protocol(field_t, echo_s, field_direction(affine))
    path = phase_path(scan.path)
    values, scale = None, (1.0, 0.0)
    sidecar: dict[str, Any] = {}
    if path is not None:
        values, scale, sidecar, guessed = read_phase(path, image, phase_metadata(scan, path))
        notes += guessed
    elif (lost := lost_phase(scan.path)) is not None:
        notes.append(
            f'{lost.name} is a link to a file that is not here, so {scan.name} was taken without '
            'phase: fetch it (for example with "datalad get") and run the same command again'
        )
    mask = find_brain_mask(scan, derivatives or {}, mask_pattern)
    brain, zones = _brain(image, mask, scan.name)
    if zones is None:
        notes.append(
            f'{scan.name}: its zones are not known, because the built-in network sees no brain in '
            'it; lesions are put anywhere in the mask that is as bright as its surroundings'
        )
    host = Host(
        _magnitude(image, brain, scan.name), affine, brain, protocol, values,
        fallback.phase_sign,
        # the magnitude of an SWI sequence lacks the mask, whatever its suffix
        swi=scan.contrast == 'swi' and 'part' not in scan.entities,
        zones=zones,
    )  # fmt: skip
    return HostFile(host, image, path, scale, sidecar, tuple(notes))


def _field_and_echo(scan: Scan, fallback: Fallback) -> tuple[float, float, list[str]]:
    """Field in tesla and echo time in seconds, and what was taken where sidecars are silent."""
    notes = []
    echo_s = _number(scan, 'EchoTime')
    field_t = _number(scan, 'MagneticFieldStrength')
    if echo_s is None:
        echo_s = fallback.echo_s
        notes.append(f'{scan.name}: no EchoTime in its sidecar, {1000 * echo_s:g} ms taken')
    else:
        if echo_s >= 1:
            # milliseconds, as find_scans warns where it is no text
            echo_s /= 1000
            if isinstance(scan.metadata['EchoTime'], str):
                notes.append(f'{scan.name}: EchoTime {1000 * echo_s:g} was read as milliseconds')
        _within(scan, 'EchoTime', echo_s, _ECHO_S, 's')
    if field_t is None:
        field_t = fallback.field_t
        notes.append(f'{scan.name}: no MagneticFieldStrength in its sidecar, {field_t:g} T taken')
    else:
        _within(scan, 'MagneticFieldStrength', field_t, _FIELD_T, 'T')
    return field_t, echo_s, notes


def _number(scan: Scan, name: str) -> float | None:
    """A number of a sidecar, also where it is text; None where there is none."""
    value = scan.metadata.get(name)
    if value is None or (isinstance(value, str) and value.strip().lower() in _SILENT):
        return None
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(
        f'{name} is no number in <{_sidecar_of(scan, name)}>: {value!r}; correct or remove it'
    )


def _within(scan: Scan, name: str, value: float, limits: tuple[float, float], unit: str) -> None:
    least, most = limits
    # NaN lies in no range
    if not least <= value <= most:
        raise DataError(
            f'{name} is {scan.metadata.get(name)} in <{_sidecar_of(scan, name)}>; '
            f'give one between {least:g} and {most:g} {unit}, or remove it'
        )


def _sidecar_of(scan: Scan, name: str) -> Path:
    """The sidecar from which a scan has a field, by the inheritance principle."""
    pairs, suffix, _ = split_name(bare_name(scan.path))
    steps = max(1, len(Path(scan.relative_path).parts))
    reader = SidecarReader()
    for folder in list(scan.path.parents)[:steps]:
        names = [
            item.name for item in folder.glob('*.json')
            if name in reader.merged([(folder, [item.name])], pairs, suffix)
        ]  # fmt: skip
        if names:
            return folder / max(names, key=lambda item: (len(split_name(item[:-5])[0]), item))
    return scan.path


def _brain(image: Any, mask: Path | None, name: str) -> tuple[Array, Array | None]:
    """Brain mask on the scan's own grid, and its zones where the network sees a brain."""
    from shivacmb.models.brain_mask import find_brain, find_mask

    def look() -> BrainMaps:
        return find_brain(image, engine='openvino')

    maps: BrainMaps | None
    if mask is not None:
        given = read_mask(mask)
        if not same_grid(given, image):
            raise DataError(
                f'the brain mask <{mask}> has another grid than {name}; resample it to the scan'
            )
        brain = np.asarray(given.dataobj) > 0
        try:
            maps = look()
        except ModelError:
            # a damaged network says nothing about the scan
            raise
        except DataError:
            maps = None
    else:
        values = np.asarray(image.dataobj, np.float32)
        brain, _, maps = find_mask(values, image.header.get_zooms()[:3], look)
    if not brain.any():
        raise DataError(f'the brain mask of {name} is empty; give one that is not')
    return brain, None if maps is None else maps.zones(brain)


def _magnitude(image: Any, brain: Array, name: str) -> Array:
    """Values of a scan; those around 0 have no share that a lesion could take."""
    values = np.asarray(image.dataobj, np.float32)
    negative = float((values[brain] < 0).mean())
    if negative > _MOST_NEGATIVE:
        raise DataError(
            f'{negative:.0%} of the brain in {name} is negative, as after z-scores: a lesion '
            'takes a share of the signal, so give the magnitude as it was before it was normalised'
        )
    return values


def zones_model() -> str:
    """Name and version of the network whose zones decide where lesions go."""
    from shivacmb.models import find_bundle
    from shivacmb.models.brain_mask import BUILTIN

    bundle = find_bundle(BUILTIN)
    return f'{bundle.name} {bundle.version}'


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

    Raises
    ------
    DataError, TemporaryError
        When the file cannot be read to its end, see :func:`shivacmb.imaging.read_stored`.
    """
    # as it was read: programs differ in what they make of an odd header
    found = read_stored(source)
    numbers = found.numbers()
    factor, summand = unscale or (1.0, 0.0)
    for box in boxes:
        old = numbers[box]
        new = ((values[box].astype(float) - summand) / factor - found.inter) / found.slope
        if found.dtype.kind in 'iu':
            info = np.iinfo(found.dtype)
            new = np.clip(np.rint(new), info.min, info.max)
        # a background of NaN is read as 0; written as such it would show where a lesion was put
        numbers[box] = np.where(np.isfinite(old), new.astype(found.dtype), old)
    end = found.start + numbers.nbytes
    whole = found.content[: found.start] + numbers.tobytes(order='F') + found.content[end:]
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
        values = same_turns(new.phase, found.host.phase, found.phase_scale)
        write_like(found.phase_path, folder / names[1], values, new.boxes, found.phase_scale)
        _write_sidecar(folder, names[1], found.phase_sidecar)
    return names


def _write_sidecar(folder: Path, name: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
    path = folder / f'{bare_name(folder / name)}.json'
    # half a character, as Python writes bytes in another encoding: JSON escapes it the same way
    path.write_text(text, encoding='utf-8', errors='backslashreplace')
