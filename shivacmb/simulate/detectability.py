"""How large and how strong a microbleed must be to be found on a site's own scans."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from shivacmb import __version__
from shivacmb.bids import Scan
from shivacmb.exceptions import (
    DataError,
    OutputError,
    ShivaCMBError,
    UsageError,
)
from shivacmb.simulate.bids_dataset import SIMULATOR
from shivacmb.simulate.files import write_json, write_table
from shivacmb.simulate.implant import Host, draw_positions, implant, room
from shivacmb.simulate.implant_dataset import scan_stream
from shivacmb.simulate.implant_files import Fallback, input_sums, load_host, zones_model
from shivacmb.simulate.implant_find import find_hosts
from shivacmb.simulate.lesions import VISIBLE_PHASE, Lesion, blooming

Array = NDArray[Any]
#: Centres (scanner RAS mm) of what a detector finds in an image, given brain mask and contrast.
Detector = Callable[[nib.Nifti1Image, nib.Nifti1Image, str], Sequence[tuple[float, float, float]]]

#: Default grid: radius of the sphere of blood products in mm, susceptibility in ppm.
RADII = (0.4, 0.6, 0.9, 1.3, 1.9, 2.8)
CHIS = (0.15, 0.4, 1.0, 2.5)


@dataclass(frozen=True)
class Grid:
    """What is tried in every scan.

    Attributes
    ----------
    radii_mm, chi_ppm : tuple of float
        Every combination is a cell.
    repeats : int
        Lesions per cell and scan.
    seed : int
        With the name of the scan it decides places and noise.
    """

    radii_mm: tuple[float, ...] = RADII
    chi_ppm: tuple[float, ...] = CHIS
    repeats: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values, low, high in (
            ('radius in mm', self.radii_mm, 0.1, 8.0),
            ('susceptibility in ppm', self.chi_ppm, 0.01, 10.0),
        ):
            if not values or list(values) != sorted(set(values)):
                raise UsageError(f'{name}: give each value once, smallest first')
            if not low <= values[0] <= values[-1] <= high:
                raise UsageError(f'{name}: give values between {low:g} and {high:g}')

    @property
    def cells(self) -> list[tuple[float, float]]:
        """All pairs of radius and susceptibility."""
        return [(radius, chi) for radius in self.radii_mm for chi in self.chi_ppm]


@dataclass(frozen=True)
class Trial:
    """One implanted lesion: its cell, how it looked, whether it was found."""

    radius_mm: float
    chi_ppm: float
    apparent_radius_mm: float
    peak_drop: float
    visible: bool
    found: bool


@dataclass(frozen=True)
class ScanTrials:
    """All trials of one scan.

    Attributes
    ----------
    stem : str
        Of the scan.
    protocol : str
        Contrast, field, echo time and voxel size: scans with the same text are counted together.
    already : int
        Lesions that the detector finds without any implant.
    trials : tuple of Trial
    """

    stem: str
    protocol: str
    already: int
    trials: tuple[Trial, ...] = field(default_factory=tuple)


def wilson(found: int, of: int) -> tuple[float, float]:
    """95 % interval of a share after Wilson (1927); (0, 1) of nothing."""
    from scipy.stats import binomtest

    if of == 0:
        return 0.0, 1.0
    interval = binomtest(found, of).proportion_ci(0.95, method='wilson')
    return float(interval.low), float(interval.high)


def protocol_name(contrast: str, host: Host) -> str:
    """Name of a protocol, coarse enough that scans of one protocol share it."""
    # 0.625 mm as the affine of a tilted scan has it must not be 0.62 here and 0.63 there
    size = 'x'.join(f'{round(value, 3) + 1e-6:.2g}' for value in host.voxel_mm)
    echo = 1000 * host.protocol.echo_s
    return f'{contrast} {host.protocol.field_t:.2g} T, TE {echo:.0f} ms, {size} mm'


def tolerance_mm(apparent_radius_mm: float) -> float:
    """Distance between the centres of a lesion and of what counts as finding it."""
    return max(3.0, apparent_radius_mm + 1.5)


def try_scan(stem: str, contrast: str, host: Host, grid: Grid, detect: Detector) -> ScanTrials:
    """Implant the whole grid into a scan, ``grid.repeats`` times, and see what is found.

    Places near what the detector finds in the scan as it is are avoided, so that neither real
    lesions nor false alarms count as found implants. How near, and how far implants lie apart,
    follows from the largest of the grid; each detection counts for one implant at most.

    Parameters
    ----------
    stem, contrast : str
        Of the scan.
    host : Host
        The scan.
    grid : Grid
        What is tried.
    detect : callable
        See :data:`Detector`.

    Returns
    -------
    ScanTrials

    Raises
    ------
    DataError
        When no place is left.
    """
    brain = nib.Nifti1Image(host.brain.astype(np.uint8), host.affine)
    already = np.array(
        list(detect(nib.Nifti1Image(host.magnitude, host.affine), brain, contrast)), float
    ).reshape(-1, 3)
    widest = max(tolerance_mm(_apparent_radius(host, radius, chi)) for radius, chi in grid.cells)
    # a detection may shift by an implant nearby, and a place by a voxel
    free = _away_from(host, room(host), already, max(10.0, widest + 4.0))
    if not free.any():
        raise DataError(
            f'{stem}: no tissue lies far enough from the {len(already)} places where the detector '
            'finds something without implants; raise the threshold, or leave out the largest '
            'radii or the scan'
        )
    trials: list[Trial] = []
    for repeat in range(grid.repeats):
        rng = scan_stream(grid.seed, stem, repeat + 1)
        cells = [grid.cells[index] for index in rng.permutation(len(grid.cells))]
        # far enough apart that two lesions never pass for one; places shift by up to 1.4 mm
        apart = max(14.0, 2.0 * widest + 2.0)
        positions, zones = draw_positions(rng, host, free, len(cells), apart_mm=apart)
        lesions = [
            _sphere(host, position, zone, radius, chi)
            for position, zone, (radius, chi) in zip(positions, zones, cells, strict=False)
        ]
        new = implant(rng, host, lesions)
        found = np.array(
            list(detect(nib.Nifti1Image(new.magnitude, host.affine), brain, contrast)), float
        ).reshape(-1, 3)
        centres = np.array([lesion.centre for lesion, _, _ in new.lesions]).reshape(-1, 3)
        hits = match(
            centres @ host.to_scanner[:3, :3].T + host.to_scanner[:3, 3], found,
            np.array([tolerance_mm(lesion.apparent_radius) for lesion, _, _ in new.lesions]),
        )  # fmt: skip
        for (lesion, visible, peak), hit in zip(new.lesions, hits, strict=True):
            trials.append(
                Trial(
                    lesion.radius, lesion.chi, lesion.apparent_radius, peak, visible,
                    bool(hit),
                )
            )  # fmt: skip
    return ScanTrials(stem, protocol_name(contrast, host), len(already), tuple(trials))


def match(centres: Array, found: Array, tolerances: Array) -> Array:
    """Which lesions are found when each detection counts once: most pairs, then least distance.

    Parameters
    ----------
    centres : ndarray, float [N, 3]
        Of the lesions, scanner mm.
    found : ndarray, float [M, 3]
        What the detector reports, scanner mm.
    tolerances : ndarray, float [N]
        Largest distance in mm at which each lesion counts as found.

    Returns
    -------
    ndarray, bool [N]
    """
    away = np.linalg.norm(centres[:, None] - found[None], axis=-1)
    allowed = away <= tolerances[:, None]
    # a forbidden pair costs more than all allowed ones together
    forbidden = float(tolerances.max(initial=0.0)) * (len(centres) + 1) + 1.0
    rows, columns = linear_sum_assignment(np.where(allowed, away, forbidden))
    hits = np.zeros(len(centres), bool)
    hits[rows] = allowed[rows, columns]
    return hits


def _apparent_radius(host: Host, radius: float, chi: float) -> float:
    return float(radius * blooming(chi, host.protocol, VISIBLE_PHASE))


def _sphere(host: Host, position: Array, zone: str, radius: float, chi: float) -> Lesion:
    x, y, z = (float(value) for value in position)
    seen = _apparent_radius(host, radius, chi)
    return Lesion((x, y, z), seen, radius, chi, 1.0, ((0.0, 0.0, 0.0, radius),), zone)


def _away_from(host: Host, where: Array, points: Array, gap_mm: float) -> Array:
    """Leave out what lies near points given in scanner mm."""
    out: Array = where.copy()
    size = np.array(host.voxel_mm)
    back = np.linalg.inv(host.affine)
    for point in points:
        voxel = back[:3, :3] @ point + back[:3, 3]
        low = np.clip(np.floor(voxel - gap_mm / size).astype(int), 0, out.shape)
        high = np.clip(np.ceil(voxel + gap_mm / size).astype(int) + 1, 0, out.shape)
        axes = [(np.arange(a, b) - v) * s for a, b, v, s in
                zip(low, high, voxel, size, strict=True)]  # fmt: skip
        x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[box] &= x**2 + y**2 + z**2 > gap_mm**2
    return out


def summarise(scans: Sequence[ScanTrials], grid: Grid) -> list[dict[str, Any]]:
    """Sensitivity of every cell and protocol.

    Parameters
    ----------
    scans : sequence of ScanTrials
    grid : Grid
        Of these trials.

    Returns
    -------
    list of dict
        Rows of the table, by protocol, radius and susceptibility.
    """
    rows = []
    for protocol in sorted({scan.protocol for scan in scans}):
        members = [scan for scan in scans if scan.protocol == protocol]
        trials = [trial for scan in members for trial in scan.trials]
        for radius, chi in grid.cells:
            cell = [
                trial for trial in trials
                if math.isclose(trial.radius_mm, radius) and math.isclose(trial.chi_ppm, chi)
            ]  # fmt: skip
            found = sum(trial.found for trial in cell)
            low, high = wilson(found, len(cell))
            rows.append({
                'protocol': protocol, 'scans': len(members), 'radius_mm': radius, 'chi_ppm': chi,
                'apparent_radius_mm': _mean([trial.apparent_radius_mm for trial in cell]),
                'peak_drop': _mean([trial.peak_drop for trial in cell]),
                'visible': sum(trial.visible for trial in cell),
                'implanted': len(cell), 'found': found,
                'sensitivity': round(found / len(cell), 4) if cell else None,
                'ci_low': round(low, 4), 'ci_high': round(high, 4),
            })  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def measure_detectability(
    bids_dir: Path,
    out_dir: Path,
    grid: Grid,
    detect: Detector,
    *,
    detector_name: str,
    detector_key: Mapping[str, Any] | None = None,
    participants: Sequence[str] | None = None,
    modality: Any = 'auto',
    derivatives: Mapping[str, Path] | None = None,
    mask_pattern: str | None = None,
    fallback: Fallback | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, ShivaCMBError]]:
    """Try the grid in all scans of a dataset; write tables and plots.

    Finished scans are kept in ``OUT/scans`` and not tried again with the same settings, detector,
    images and masks.

    Parameters
    ----------
    bids_dir : Path
        The site's scans.
    out_dir : Path
        For ``detectability.tsv``, ``.json`` and a ``.png`` for each protocol.
    grid : Grid
        What is tried.
    detect : callable
        See :data:`Detector`.
    detector_name : str
        Model with version and threshold, for people; part of the settings.
    detector_key : mapping, optional
        All that decides what the detector finds, such as the checksums of its networks: a model
        that is trained anew may keep its name and version. JSON can hold it.
    participants, modality, derivatives, mask_pattern, fallback, report, say
        See :func:`shivacmb.simulate.implant_dataset.implant_dataset`.

    Returns
    -------
    rows : list of dict
        See :func:`summarise`.
    failures : dict of str to ShivaCMBError
        Scans that could not be used, participants asked for that have none, and folders that
        could not be listed.

    Raises
    ------
    NoInputError
        When there is no scan.
    OutputError
        When the folder cannot be written.
    """
    scans, failures = find_hosts(
        bids_dir, participants=participants, modality=modality, mask_pattern=mask_pattern, say=say
    )
    try:
        (out_dir / 'scans').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'cannot use <{out_dir}> ({error.strerror}): give a folder that you may write to'
        ) from error
    settings = {
        'grid': json.loads(json.dumps(asdict(grid))), 'detector': detector_name,
        'detector_key': json.loads(json.dumps(dict(detector_key or {}))),
        'fallback': asdict(fallback or Fallback()), 'software_version': __version__,
        'simulator': SIMULATOR, 'zones': zones_model(),
    }  # fmt: skip
    done: list[ScanTrials] = []
    for number, scan in enumerate(scans):
        if report is not None:
            report(number, len(scans))
        path = out_dir / 'scans' / f'{scan.stem}.json'
        try:
            key = {**settings, 'inputs': input_sums(scan, derivatives, mask_pattern)}
            kept = _kept(path, key)
            if kept is None:
                kept, notes = _one(scan, grid, detect, derivatives, mask_pattern, fallback)
                write_json(path, {'settings': key, 'result': asdict(kept)})
                for note in notes:
                    if say is not None:
                        say(note)
            done.append(kept)
        except OutputError:
            raise
        except ShivaCMBError as error:
            failures[scan.stem] = error
            if say is not None:
                say(f'{scan.name}: {error}')
    if report is not None:
        report(len(scans), len(scans))
    rows = summarise(done, grid)
    if not rows and say is not None and (out_dir / 'detectability.tsv').is_file():
        say(f'no scan could be tried; tables and plots in <{out_dir}> are those of an earlier run')
    if rows:
        columns = list(rows[0])
        write_table(
            out_dir / 'detectability.tsv', columns, [[row[c] for c in columns] for row in rows]
        )
        write_json(
            out_dir / 'detectability.json',
            {
                'settings': settings,
                'scans': {scan.stem: {'protocol': scan.protocol, 'already_found': scan.already}
                          for scan in done},
                'failures': {stem: str(error) for stem, error in failures.items()},
                'cells': rows,
            },
        )  # fmt: skip
    return rows, failures


def _one(
    scan: Scan,
    grid: Grid,
    detect: Detector,
    derivatives: Mapping[str, Path] | None,
    mask_pattern: str | None,
    fallback: Fallback | None,
) -> tuple[ScanTrials, tuple[str, ...]]:
    found = load_host(scan, derivatives=derivatives, mask_pattern=mask_pattern, fallback=fallback)
    return try_scan(scan.stem, scan.contrast, found.host, grid, detect), found.notes


def _kept(path: Path, settings: Mapping[str, Any]) -> ScanTrials | None:
    """Result of an earlier run with the same settings."""
    try:
        content = json.loads(path.read_text('utf-8'))
        if content['settings'] != settings:
            return None
        result = content['result']
        trials = tuple(Trial(**trial) for trial in result.pop('trials'))
        return ScanTrials(**result, trials=trials)
    except (OSError, ValueError, KeyError, TypeError):
        return None
