"""Microbleeds as small spheres of raised susceptibility: the signal they take from a scan.

The steps are textbook gradient-echo physics: field of a magnetised sphere, phase at the echo
time, and the magnitude of the complex signal averaged over each voxel. Positions are in
millimetres along the scan's own axes, so that voxels of any shape can be averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = NDArray[Any]

#: Proton gyromagnetic ratio over 2 pi, in Hz per tesla.
GAMMA_HZ_PER_T = 42.577e6
#: R2* of blood products per ppm of susceptibility at 3 T, in 1/s (Naji 2024); half at 1.5 T.
R2STAR_PER_PPM = 127.0
#: Logarithm of the apparent radius in mm: mean and standard deviation over 957 real lesions.
LN_RADIUS_MEAN, LN_RADIUS_SD = 0.297, 0.36
#: Limits of the apparent radius in mm; a microbleed is at most 10 mm across (STRIVE).
LEAST_RADIUS, MOST_RADIUS = 0.6, 5.0
#: Range from which training draws additional large lesions.
LARGE_RADIUS = (1.5, 5.0)
#: Polar phase in radians at the rim of what is seen. Fitted: with it the ball of the visible
#: label is 1.02 times as wide as asked for, in the median over protocols (decision 0090).
VISIBLE_PHASE = 4.0
#: Most points at which a signal is computed at once; each takes about 100 bytes. The mean of a
#: voxel is the same for any number.
_MOST_POINTS = 2**19


@dataclass(frozen=True)
class Protocol:
    """What of a scan's protocol decides how a susceptibility looks.

    Attributes
    ----------
    field_t : float
        Main field in tesla.
    echo_s : float
        Echo time in seconds.
    b0 : tuple of three float
        Unit vector of the main field along the scan's axes.
    """

    field_t: float = 3.0
    echo_s: float = 0.02
    b0: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Lesion:
    """One microbleed: spheres of one susceptibility, which adds up where they overlap.

    Attributes
    ----------
    centre : tuple of three float
        Position in mm along the scan's axes, from the centre of voxel (0, 0, 0).
    apparent_radius : float
        Radius in mm of what is seen: of the ball with the volume of the visible label.
    radius : float
        Radius in mm of one sphere holding all the material.
    chi : float
        Susceptibility difference to tissue in ppm.
    depth : float
        Share of the computed signal loss that is applied, 0 to 1 (partial filling).
    lobes : tuple of (dx, dy, dz, radius)
        The spheres, in mm relative to ``centre``.
    zone : str
        Where it was put.
    """

    centre: tuple[float, float, float]
    apparent_radius: float
    radius: float
    chi: float
    depth: float
    lobes: tuple[tuple[float, float, float, float], ...]
    zone: str = ''


def blooming(chi: float, protocol: Protocol, phase: float = 1.0) -> float:
    """Ratio of the radius where the polar phase falls to ``phase`` to the sphere's own radius.

    Parameters
    ----------
    chi : float
        Susceptibility difference in ppm.
    protocol : Protocol
        Field and echo time.
    phase : float
        Phase in radians that still counts as visible.

    Returns
    -------
    float
        At least 1; 1.75 for 0.5 ppm at 3 T and 20 ms.
    """
    polar = 2 * np.pi * GAMMA_HZ_PER_T * protocol.field_t * chi * 1e-6 * 2 / 3 * protocol.echo_s
    return float(max(1.0, polar / phase) ** (1 / 3))


def draw_radius(rng: np.random.Generator, large: float = 0.0) -> float:
    """Draw an apparent radius.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    large : float
        Share that is drawn between 1.5 and 5 mm, fewer the larger, instead of following the
        lesions of patients: among these only one in twenty is above 2.42 mm.

    Returns
    -------
    float
        In mm.
    """
    if large and rng.random() < large:
        low, high = LARGE_RADIUS
        return float(rng.triangular(low, low, high))
    radius = rng.lognormal(LN_RADIUS_MEAN, LN_RADIUS_SD)
    return float(np.clip(radius, LEAST_RADIUS, MOST_RADIUS))


def draw_lesion(
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    protocol: Protocol,
    zone: str = '',
    apparent_radius: float | None = None,
    least_chi: float = 0.15,
    most_chi: float = 2.5,
) -> Lesion:
    """Draw size, susceptibility and shape of one lesion.

    The apparent radius follows 957 real lesions (log-normal, median 1.35 mm); the susceptibility
    is log-uniform up to 2.5 ppm, and the sphere's own radius follows from both.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    centre : tuple of three float
        Position in mm along the scan's axes.
    protocol : Protocol
        Field and echo time.
    zone : str
        Kept in the result.
    apparent_radius : float, optional
        Instead of a drawn one, in mm.
    least_chi, most_chi : float
        Range of the susceptibility in ppm.

    Returns
    -------
    Lesion
        Ready for :func:`lesion_factor`.
    """
    if apparent_radius is None:
        apparent_radius = draw_radius(rng)
    chi = float(np.exp(rng.uniform(np.log(least_chi), np.log(most_chi))))
    radius = apparent_radius / blooming(chi, protocol, VISIBLE_PHASE)
    count = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1]))
    shares = rng.dirichlet(np.full(count, 4.0))
    radii = radius * shares ** (1 / 3)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    along = rng.uniform(-0.9, 0.9, count) * radius * (count > 1)
    offsets = along[:, None] * axis + rng.normal(scale=0.2 * radius, size=(count, 3)) * (count > 1)
    offsets -= (offsets * shares[:, None]).sum(axis=0)
    depth = 1.0 if rng.random() < 0.6 else float(rng.uniform(0.5, 1.0))
    lobes = tuple(
        (float(o[0]), float(o[1]), float(o[2]), float(r))
        for o, r in zip(offsets, radii, strict=True)
    )
    return Lesion(centre, apparent_radius, radius, chi, depth, lobes, zone)


def dipole_shift(offsets: Array, radius: float, chi: float, b0: Array) -> Array:
    """Relative field shift (dB/B0) around a magnetised sphere.

    Outside ``chi / 3 * (radius / r)**3 * (3 cos(theta)**2 - 1)``; inside 0, with the Lorentz
    correction.

    Parameters
    ----------
    offsets : ndarray, float [..., 3]
        Positions relative to the sphere's centre in mm.
    radius : float
        In mm.
    chi : float
        Susceptibility difference in ppm.
    b0 : ndarray, float [3]
        Unit vector of the main field.

    Returns
    -------
    ndarray, float [...]
        In ppm.
    """
    square = np.einsum('...i,...i', offsets, offsets)
    outside = square >= radius**2
    square = np.where(outside, square, 1.0)
    cosine2 = (offsets @ b0) ** 2 / square
    return np.where(outside, chi / 3 * radius**3 * square**-1.5 * (3 * cosine2 - 1), 0.0)


def lesion_signal(
    lesion: Lesion,
    voxel_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    protocol: Protocol,
    *,
    subvoxel_mm: float = 0.25,
    reach_mm: float | None = None,
    inside_signal: float = 1.0,
) -> tuple[tuple[slice, slice, slice], Array, Array]:
    """Complex signal around a lesion relative to the signal without it.

    Parameters
    ----------
    lesion : Lesion
        What to render; a negative ``chi`` makes it diamagnetic. ``depth`` plays no part.
    voxel_mm : tuple of three float
        Voxel size along the scan's axes.
    shape : tuple of three int
        The scan's shape.
    protocol : Protocol
        Field and echo time.
    subvoxel_mm : float
        Largest step of the grid on which the complex signal is averaged; never fewer than three
        points per voxel side.
    reach_mm : float, optional
        Half side of the box; 3.2 apparent radii and 0.5 mm by default, beyond which no magnitude
        is lost; for phase see :func:`phase_reach`.
    inside_signal : float
        Signal within the spheres at echo time 0, relative to the tissue's.

    Returns
    -------
    box : tuple of three slice
        Where the signal belongs in the scan; empty when the lesion lies outside.
    signal : ndarray, complex128
        1 where nothing changes; a positive field shift gives a positive phase.
    share : ndarray, float64
        Share of each voxel that the spheres fill; what two of them fill counts once.
    """
    size = np.asarray(voxel_mm, float)
    centre = np.asarray(lesion.centre, float) / size
    reach = (3.2 * lesion.apparent_radius + 0.5 if reach_mm is None else reach_mm) / size
    low = np.clip(np.floor(centre - reach).astype(int), 0, shape)
    high = np.clip(np.ceil(centre + reach).astype(int) + 1, 0, shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    extent = np.maximum(high - low, 0)
    if not extent.all():
        return box, np.ones(tuple(extent), complex), np.zeros(tuple(extent))
    parts = np.maximum(3, np.ceil(size / subvoxel_mm)).astype(int)
    axes = [
        (low[k] - 0.5 + (np.arange(extent[k] * parts[k]) + 0.5) / parts[k]) * size[k]
        - lesion.centre[k]
        for k in range(3)
    ]
    signal, share = np.empty(tuple(extent), complex), np.empty(tuple(extent))
    for x, y in _blocks(extent, parts):
        near = [
            axes[k][part.start * parts[k] : part.stop * parts[k]] for k, part in enumerate((x, y))
        ]
        fine = _fine_signal(lesion, (near[0], near[1], axes[2]), protocol, inside_signal)
        for result, values in zip((signal, share), fine, strict=True):
            parted = values.reshape(x.stop - x.start, parts[0], y.stop - y.start, parts[1],
                                    extent[2], parts[2])  # fmt: skip
            result[x, y] = parted.mean(axis=(1, 3, 5))
    return box, signal, share


def _blocks(extent: Array, parts: Array) -> Iterator[tuple[slice, slice]]:
    """Cut a box into blocks of whole voxels of few sub-voxels, each as long as the box."""
    row = int(extent[2] * np.prod(parts))
    rows = max(1, _MOST_POINTS // row)
    wide = min(rows, int(extent[1]))
    deep = max(1, rows // wide)
    for x in range(0, int(extent[0]), deep):
        for y in range(0, int(extent[1]), wide):
            yield slice(x, min(x + deep, int(extent[0]))), slice(y, min(y + wide, int(extent[1])))


def _fine_signal(
    lesion: Lesion, axes: tuple[Array, Array, Array], protocol: Protocol, inside_signal: float
) -> tuple[Array, Array]:
    """Complex signal at points relative to a lesion, and whether they lie in a sphere."""
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
    b0 = np.asarray(protocol.b0, float)
    shift = np.zeros(grid.shape[:3])
    inside = np.zeros(grid.shape[:3], bool)
    for dx, dy, dz, radius in lesion.lobes:
        offsets = grid - (dx, dy, dz)
        shift += dipole_shift(offsets, radius, lesion.chi, b0)
        inside |= np.einsum('...i,...i', offsets, offsets) < radius**2
    phase = 2 * np.pi * GAMMA_HZ_PER_T * protocol.field_t * protocol.echo_s * 1e-6 * shift
    decay = R2STAR_PER_PPM * protocol.field_t / 3.0 * abs(lesion.chi) * protocol.echo_s
    return np.exp(1j * phase) * np.where(inside, inside_signal * np.exp(-decay), 1.0), inside


def lobe_shares(
    lesion: Lesion, voxel_mm: tuple[float, float, float], shape: tuple[int, int, int]
) -> Iterator[tuple[tuple[slice, slice, slice], Array]]:
    """Share of each voxel that each sphere of a lesion fills.

    Their sum times the susceptibility is the material that makes the field: what two spheres
    fill counts twice, as it does there.

    Parameters
    ----------
    lesion, voxel_mm, shape
        See :func:`lesion_signal`.

    Yields
    ------
    box : tuple of three slice
        Where the share belongs in the scan; empty when the sphere lies outside.
    share : ndarray, float64
    """
    size = np.asarray(voxel_mm, float)
    for *offset, radius in lesion.lobes:
        centre = np.add(lesion.centre, offset)
        first = np.floor((centre - radius) / size + 0.5).astype(int)
        stop = np.floor((centre + radius) / size + 0.5).astype(int) + 1
        low, high = np.clip(first, 0, shape), np.clip(stop, 0, shape)
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        if (high <= low).any():
            yield box, np.zeros(tuple(high - low))
            continue
        x, y, z = (slice(low[k] - first[k], high[k] - first[k]) for k in range(3))
        yield box, _sphere_share(centre, radius, size, first, stop)[x, y, z]


def _sphere_share(centre: Array, radius: float, size: Array, first: Array, stop: Array) -> Array:
    """Share that a sphere fills of the voxels ``first`` to ``stop``, which hold all of it."""
    # columns as narrow as the sphere needs, however large the voxels; exact along them
    parts = np.maximum(3, np.ceil(size / min(0.3, radius / 8))).astype(int)
    points, owners = [], []
    for k in range(2):
        number = np.arange((stop[k] - first[k]) * parts[k])
        place = (first[k] - 0.5 + (number + 0.5) / parts[k]) * size[k] - centre[k]
        met = np.abs(place) < radius
        points.append(place[met])
        owners.append(number[met] // parts[k])
    square = radius**2 - points[0][:, None] ** 2 - points[1] ** 2
    half = np.sqrt(np.maximum(square, 0.0))[..., None]
    borders = (np.arange(first[2], stop[2] + 1) - 0.5) * size[2] - centre[2]
    lengths = np.diff(np.clip(borders, -half, half), axis=-1)
    share = np.zeros(tuple(stop - first))
    np.add.at(share, (owners[0][:, None], owners[1]), lengths)
    return np.asarray(share / (parts[0] * parts[1] * size[2]))


def phase_reach(lesion: Lesion) -> float:
    """Half side in mm of a box at whose rim a lesion's polar phase is 0.01 to 0.03 rad."""
    return min(7.0 * lesion.apparent_radius, 4.0 * lesion.apparent_radius + 5.0)


def lesion_factor(
    lesion: Lesion,
    voxel_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    protocol: Protocol,
    *,
    subvoxel_mm: float = 0.25,
) -> tuple[tuple[slice, slice, slice], Array]:
    """Remaining share of the signal around a lesion.

    Parameters
    ----------
    lesion, voxel_mm, shape, protocol, subvoxel_mm
        See :func:`lesion_signal`.

    Returns
    -------
    box : tuple of three slice
        Where the factor belongs in the scan; empty when the lesion lies outside.
    factor : ndarray, float32
        1 where nothing is lost.
    """
    box, blocks, _ = lesion_signal(lesion, voxel_mm, shape, protocol, subvoxel_mm=subvoxel_mm)
    remaining = 1.0 - lesion.depth * (1.0 - np.abs(blocks))
    return box, np.asarray(remaining, np.float32)


def visible_label(drop: Array, share: float = 0.5) -> Array:
    """Mark the voxels whose noise-free signal fell by more than ``share`` of the largest fall.

    Parameters
    ----------
    drop : ndarray, float
        Fall of the signal caused by one lesion, non-negative.
    share : float
        Of the peak.

    Returns
    -------
    ndarray, bool
        All False where nothing fell.
    """
    peak = float(drop.max(initial=0.0))
    return np.asarray(drop > share * peak) if peak > 0 else np.zeros(drop.shape, bool)
