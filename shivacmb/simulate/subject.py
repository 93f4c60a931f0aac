"""One head in one scanner: every contrast from the same susceptibility map and the same truth.

The signal of a voxel is that of the tissue, times that of the vessels in it, times that of each
lesion and calcification: each factor is a mean of a complex signal over the voxel. Tissue changes
over millimetres and is computed at 1 mm, vessels at 0.5 mm, both by the dipole kernel; lesions and
calcifications are spheres, whose field is known exactly, at 0.25 mm.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.imaging.swi import susceptibility_weighted
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.anatomy_warp import smooth_noise
from shivacmb.simulate.calcifications import draw_calcifications
from shivacmb.simulate.dataset_head import carve_sulci, lesion_zones, scene_masks
from shivacmb.simulate.dataset_scan import least_drop, measure
from shivacmb.simulate.lesions import (
    Lesion,
    Protocol,
    draw_lesion,
    lesion_signal,
    lobe_shares,
    phase_reach,
    visible_label,
)
from shivacmb.simulate.lesions_place import place
from shivacmb.simulate.mimics_field import (
    VesselMaps,
    draw_vessel_maps,
    iron_map,
)
from shivacmb.simulate.mimics_place import Scene
from shivacmb.simulate.physics import (
    complex_signal,
    dephasing,
    field_shift,
    frequency,
    interpolate,
    shim,
)
from shivacmb.simulate.subject_grid import Grid, scan_grid
from shivacmb.simulate.tissues import (
    AIR_PPM,
    R2STAR_PER_IRON_PPM,
    draw_properties,
    gradient_echo,
    spin_echo,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shivacmb.simulate.anatomy import Head
    from shivacmb.simulate.scanner import Scanner

Array = NDArray[Any]
Box = tuple[slice, slice, slice]

CONTRASTS = ('T2starw', 'phase', 'swi', 'Chimap', 'T2w')
#: Lines of k-space that make the low-pass image of the SWI, whatever the matrix (Haacke 2004).
SWI_LINES = 64


@dataclass(frozen=True)
class LesionWishes:
    """Lesions wanted.

    Attributes
    ----------
    count : int
        How many.
    radius_mm : tuple of two float, optional
        Range of the apparent radius (uniform); else as in 957 lesions of patients.
    chi_ppm : tuple of two float
        Range of the susceptibility (log-uniform).
    """

    count: int
    radius_mm: tuple[float, float] | None = None
    chi_ppm: tuple[float, float] = (0.15, 2.5)


@dataclass(frozen=True)
class SeenLesion:
    """A lesion with what of it can be seen.

    Attributes
    ----------
    lesion : Lesion
        In scan mm from the centre of voxel (0, 0, 0).
    box : tuple of three slice
        Where ``drop`` belongs in the scan.
    drop : ndarray, float32
        Loss of noise-free signal; white matter is 1.
    peak : float
        Largest of it.
    visible : bool
        Whether that is more than :func:`shivacmb.simulate.dataset_scan.least_drop`.
    """

    lesion: Lesion
    box: Box
    drop: Array
    peak: float
    visible: bool


@dataclass(frozen=True)
class Subject:
    """All images of one head and their truth, on one grid.

    Attributes
    ----------
    images : dict of str to list of ndarray, float32 [X, Y, Z]
        By contrast; one array per echo for 'T2starw' and 'phase', else one. Magnitudes: white
        matter is about 1 at the main echo, and decays over the echoes. Phase in rad, positive
        where the field is raised. 'Chimap' in ppm relative to water, 0 outside the brain.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.
    labels : ndarray, uint16 [X, Y, Z]
        Numbers of the visible lesions, from 1.
    lesions : list of SeenLesion
        All lesions; the n-th has the number n + 1.
    mimics : list of (kind, ndarray [3], chi)
        Kind, one point in scan mm, susceptibility in ppm (NaN where it has none of its own).
    mimic_loss : ndarray, float32 [X, Y, Z]
        Share of the signal that vessels and calcifications took at the main echo, negative where
        they add.
    """

    images: dict[str, list[Array]]
    affine: Array
    brain: Array
    labels: Array
    lesions: list[SeenLesion]
    mimics: list[tuple[str, Array, float]]
    mimic_loss: Array


def _affine(head: Head, grid: Grid, turn: Array) -> Array:
    """Voxel of the scan to scanner mm: the head's own place, turned about its origin."""
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(grid.voxel_mm)
    affine[:3, 3] = turn @ (head.affine[:3, :3] @ grid.low + head.affine[:3, 3])
    return affine


@dataclass(frozen=True)
class _Tissue:
    """Maps of the head at 1 mm, before any scan."""

    labels: Array
    chi: Array
    r2star: Array
    start: Array
    spin: Array
    fluid: float
    fluid_r2star: float
    fluid_spin: float

    def fluid_ratio(self, echo_s: float) -> float:
        """Signal of fluid over that of white matter at an echo."""
        return float(self.fluid * np.exp(-echo_s * self.fluid_r2star))


def _tissue(rng: np.random.Generator, labels: Array, scanner: Scanner) -> _Tissue:
    """Properties of every voxel with texture and shared voxels at the borders."""
    field_t = scanner.acquisition.protocol.field_t
    drawn = draw_properties(rng, field_t)
    grain = np.full(len(Tissue), float(rng.uniform(0.01, 0.03)), np.float32)
    grain[Tissue.BONE :] *= 4.0
    fine = rng.standard_normal(labels.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(fine, float(rng.uniform(0.6, 1.2)), truncate=2.0)
    fine *= np.float32(1.0 / max(float(fine[::3, ::3, ::3].std()), 1e-6))
    fine += smooth_noise(rng, labels.shape, (1.0, 1.0, 1.0), float(rng.uniform(12.0, 30.0)))
    fine *= grain[labels]
    masks = scene_masks(labels, labels > 0)
    iron = iron_map(rng, masks)

    def soften(volume: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(volume, 0.5, truncate=2.5))

    start = gradient_echo(drawn, scanner.repetition_s, scanner.flip_deg)
    spin = spin_echo(drawn)
    decay = drawn.r2star[labels] * (1.0 + fine) + R2STAR_PER_IRON_PPM * field_t / 3.0 * iron
    return _Tissue(
        labels,
        soften(drawn.chi[labels] + iron),
        soften(decay),
        soften(start[labels] * (1.0 + fine)),
        soften(spin[labels] * (1.0 + fine)),
        start[Tissue.SULCAL_CSF],
        drawn.r2star[Tissue.SULCAL_CSF] - drawn.r2star[Tissue.CEREBRAL_WM],
        float(spin[Tissue.SULCAL_CSF]),
    )


def _head_field(tissue: _Tissue, protocol: Protocol, workers: int | None) -> Array:
    """Frequency in Hz of the tissues on the head's grid, not shimmed."""
    below = 40
    # the neck goes on where the map ends: a cut surface would bend the field
    body = np.pad(tissue.chi - np.float32(AIR_PPM), ((0, 0), (0, 0), (below, 0)), mode='edge')
    shift = field_shift(body, (1.0, 1.0, 1.0), protocol.b0, margin=0.35, workers=workers)
    return frequency(shift[:, :, below:], protocol.field_t)


def simulate_subject(
    rng: np.random.Generator,
    head: Head,
    scanner: Scanner,
    wishes: LesionWishes,
    *,
    contrasts: tuple[str, ...] = CONTRASTS,
    workers: int | None = None,
) -> Subject:
    """Scan a head with lesions.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw: the same state gives the same bytes.
    head : Head
        At 1 mm.
    scanner : Scanner
        How to scan.
    wishes : LesionWishes
        Lesions to put in; fewer come when the room runs out.
    contrasts : tuple of str
        Of :data:`CONTRASTS`.
    workers : int, optional
        Threads: of the Fourier transforms, and of what needs no further draw.

    Returns
    -------
    Subject
    """
    with ThreadPoolExecutor(workers or 1) as pool:
        try:
            return _simulate(rng, head, scanner, wishes, contrasts, workers, pool)
        except BaseException:
            # nobody waits for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _simulate(
    rng: np.random.Generator,
    head: Head,
    scanner: Scanner,
    wishes: LesionWishes,
    contrasts: tuple[str, ...],
    workers: int | None,
    pool: Executor,
) -> Subject:
    """Draw everything here, one after the other, and leave what follows from it to the pool."""
    acquisition = scanner.acquisition
    protocol = acquisition.protocol
    labels = carve_sulci(rng, head.labels, head.brain)
    grid = scan_grid(head, labels, scanner)
    tissue = _tissue(rng, labels, scanner)
    field = pool.submit(_head_field, tissue, protocol, workers)
    to_head = np.eye(4)
    to_head[:3, 3] = grid.low
    scene = Scene(
        scene_masks(labels, head.brain), to_head, grid.voxel_mm, grid.shape, grid.slice_axis
    )
    vessels, table = draw_vessel_maps(rng, scene, acquisition.mimics)
    vessel_field = pool.submit(vessels.field_hz, protocol, workers)
    calcium = draw_calcifications(rng, scene, protocol, acquisition.mimics)
    lesions = _draw_lesions(rng, scene, labels, head.brain, protocol, wishes)
    echoes = [replace(protocol, echo_s=echo_s) for echo_s in scanner.echoes_s]
    spheres = [
        (_signals(pool, calcium, grid, now, 0.25), _signals(pool, lesions, grid, now, 1.0))
        for now in echoes
    ]
    sensitivity, offset = _coil(rng, grid)
    # least squares stay in the thread whose number of processors is limited
    hertz = shim(field.result(), head.brain)
    vessel_hz = vessel_field.result()
    later = {}
    if 'Chimap' in contrasts:
        later['Chimap'] = pool.submit(_chi_map, tissue, vessels, [*lesions, *calcium], grid)
    if 'T2w' in contrasts:
        later['T2w'] = pool.submit(_spin_signal, tissue, vessels, lesions, calcium, grid)
    # one scale for all echoes: what decays between them is the tissue's own, and noise stays
    white = _white(tissue, protocol.echo_s)
    images: dict[str, list[Array]] = {name: [] for name in contrasts}
    seen: list[SeenLesion] = []
    mimic_loss = np.zeros(grid.shape, np.float32)
    for now, (of_calcium, of_lesions) in zip(echoes, spheres, strict=True):
        plain = pool.submit(_tissue_signal, tissue, hertz, grid, now.echo_s, white)
        factor = np.ones(grid.shape, np.complex64)
        factor[vessels.box] *= vessels.signal(vessel_hz, now, tissue.fluid_ratio(now.echo_s))
        for box, remaining in of_calcium:
            factor[box] *= remaining
        signal = plain.result() * factor
        signal *= complex_signal(sensitivity, offset)
        marks = _add_lesions(signal, lesions, of_lesions, acquisition.snr)
        signal = measure(rng, signal, acquisition)
        magnitude, phase = np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32)
        if 'T2starw' in images:
            images['T2starw'].append(magnitude)
        if 'phase' in images:
            images['phase'].append(phase)
        if now.echo_s == protocol.echo_s:
            seen, mimic_loss = marks, np.float32(1.0) - np.abs(factor)
            if 'swi' in images:
                plane = [n for axis, n in enumerate(grid.shape) if axis != grid.slice_axis]
                window = min(1.0, SWI_LINES / max(plane))
                images['swi'].append(
                    susceptibility_weighted(
                        magnitude, phase, window=window, slice_axis=grid.slice_axis
                    )
                )
    brain = interpolate(head.brain.astype(np.float32), grid.points()) > 0.5
    if 'Chimap' in later:
        images['Chimap'].append(later['Chimap'].result() * brain)
    if 'T2w' in later:
        clear = later['T2w'].result() * sensitivity
        images['T2w'].append(np.abs(measure(rng, clear, acquisition)).astype(np.float32))
    numbers = np.zeros(grid.shape, np.uint16)
    for number, item in enumerate(seen, start=1):
        view = numbers[item.box]
        if item.visible:
            view[visible_label(item.drop) & (view == 0)] = number
    mimics = [
        *((kind, point, float('nan')) for kind, point in table),
        *((item.zone, np.asarray(item.centre), item.chi) for item in calcium),
        *_iron_rows(scene, tissue),
    ]
    return Subject(
        images,
        _affine(head, grid, scanner.turn),
        brain,
        numbers,
        seen,
        # where slices are missing they are not in the image
        [mimic for mimic in mimics if grid.holds(mimic[1])],
        mimic_loss,
    )


def _tissue_signal(
    tissue: _Tissue, hertz: Array, grid: Grid, echo_s: float, white: float
) -> Array:
    """Complex signal of tissue without vessels: mean over sub-voxels, loss in them by slopes."""
    size = [side / count for side, count in zip(grid.voxel_mm, grid.parts, strict=True)]
    amplitude = tissue.start * np.exp(-np.float32(echo_s) * tissue.r2star)
    amplitude *= dephasing(hertz, (1.0, 1.0, 1.0), size, echo_s)
    total = np.zeros(grid.shape, np.complex64)
    turns = np.float32(2 * np.pi * echo_s)
    for points in grid.sub_voxels():
        total += complex_signal(interpolate(amplitude, points), turns * interpolate(hertz, points))
    total *= np.float32(1.0 / int(np.prod(grid.parts)) / white)
    return total


def _white(tissue: _Tissue, echo_s: float) -> float:
    """Signal of white matter, which is brought to 1 at the main echo."""
    where = np.flatnonzero(tissue.labels == Tissue.CEREBRAL_WM)[::101]
    values = tissue.start.flat[where] * np.exp(-echo_s * tissue.r2star.flat[where])
    return float(np.median(values)) if where.size else 1.0


def _coil(rng: np.random.Generator, grid: Grid) -> tuple[Array, Array]:
    """Sensitivity and phase offset of the receiver, both smooth."""
    uneven = smooth_noise(rng, grid.shape, grid.voxel_mm, 90.0)
    turned = smooth_noise(rng, grid.shape, grid.voxel_mm, 110.0)
    sensitivity = np.exp(np.float32(rng.uniform(0.05, 0.3)) * uneven)
    return sensitivity, np.float32(rng.uniform(0.2, 1.0)) * turned


def _draw_lesions(
    rng: np.random.Generator,
    scene: Scene,
    labels: Array,
    brain: Array,
    protocol: Protocol,
    wishes: LesionWishes,
) -> list[Lesion]:
    if not wishes.count:
        return []
    ends = scene.to_head[:3, 3], scene.to_head[:3, 3] + np.array(scene.voxel_mm) * scene.shape
    view = tuple(
        slice(int(max(0, a)), int(min(n, np.ceil(b))))
        for a, b, n in zip(*ends, labels.shape, strict=True)
    )
    zones = lesion_zones(labels[view])
    start = np.array([part.start for part in view])
    found = []
    for i, j, k, zone in place(rng, zones, brain[view], wishes.count):
        where = np.array([[i, j, k]], float) + start + rng.uniform(-0.5, 0.5, 3)
        x, y, z = scene.scan_mm(where)[0]
        radius = float(rng.uniform(*wishes.radius_mm)) if wishes.radius_mm else None
        drawn = draw_lesion(
            rng, (float(x), float(y), float(z)), protocol, zone, radius, wishes.chi_ppm[0],
            wishes.chi_ppm[1],
        )  # fmt: skip
        # partial filling is known to neither phase nor susceptibility: all of it is there
        found.append(replace(drawn, depth=1.0))
    return found


def _signals(
    pool: Executor, items: list[Lesion], grid: Grid, protocol: Protocol, inside_signal: float
) -> Iterator[tuple[Box, Array]]:
    """Complex signal around each lesion or calcification, in their order."""

    def one(item: Lesion) -> tuple[Box, Array]:
        box, signal, _ = lesion_signal(
            item, grid.voxel_mm, grid.shape, protocol, inside_signal=inside_signal,
            reach_mm=phase_reach(item), subvoxel_mm=0.3,
        )  # fmt: skip
        return box, signal

    return pool.map(one, items)


def _add_lesions(
    signal: Array, lesions: list[Lesion], factors: Iterator[tuple[Box, Array]], snr: float
) -> list[SeenLesion]:
    """Multiply lesions into a complex signal, in place, and say what is seen of each."""
    before = np.abs(signal)
    seen = []
    for item, (box, factor) in zip(lesions, factors, strict=True):
        signal[box] *= factor
        drop = np.asarray(before[box] * (1.0 - np.abs(factor)), np.float32)
        peak = float(np.max(drop, initial=0.0))
        seen.append(SeenLesion(item, box, drop, peak, peak > least_drop(snr)))
    return seen


def _chi_map(tissue: _Tissue, vessels: VesselMaps, spheres: list[Lesion], grid: Grid) -> Array:
    """Susceptibility in ppm, mean over each voxel."""
    chi = grid.mean(tissue.chi)
    chi[vessels.box] += vessels.mean_chi()
    for item in spheres:
        for box, share in lobe_shares(item, grid.voxel_mm, grid.shape):
            chi[box] += np.asarray(item.chi * share, np.float32)
    return chi


def _spin_signal(
    tissue: _Tissue,
    vessels: VesselMaps,
    lesions: list[Lesion],
    calcium: list[Lesion],
    grid: Grid,
) -> Array:
    """Spin echo: fields are refocused, so that only what lies in a voxel changes its signal."""
    signal = grid.mean(tissue.spin)
    signal[vessels.box] *= vessels.spin_echo(tissue.fluid_spin)
    for items, lost in ((lesions, 0.6), (calcium, 0.85)):
        for item in items:
            box, _, share = lesion_signal(
                item, grid.voxel_mm, grid.shape, Protocol(), reach_mm=1.5 * item.radius + 0.5,
                subvoxel_mm=0.3,
            )  # fmt: skip
            signal[box] *= np.asarray(1.0 - lost * share, np.float32)
    return signal


def _iron_rows(scene: Scene, tissue: _Tissue) -> list[tuple[str, Array, float]]:
    """One row for the pallidum of each side that is darker than most: iron is no lesion."""
    where = np.argwhere(scene.masks['pallidum'])
    rows: list[tuple[str, Array, float]] = []
    if not len(where):
        return rows
    middle = (where[:, 0].min() + where[:, 0].max()) / 2
    for side in (where[where[:, 0] < middle], where[where[:, 0] >= middle]):
        if not len(side):
            continue
        chi = float(tissue.chi[tuple(side.T)].mean())
        if chi > 0.15:
            rows.append(('iron_pallidum', scene.scan_mm(side.mean(0, keepdims=True))[0], chi))
    return rows
