"""One simulated scan with its truth: a head seen through a protocol, with lesions and mimics.

Order as in a scanner: signal, then what vessels and lesions take from it, then the voxel, then the
noise. Lesions multiply the signal, they never replace it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from shivacmb.lesions.surroundings import distances
from shivacmb.simulate.calcifications import draw_calcifications
from shivacmb.simulate.lesions import (
    Lesion,
    Protocol,
    draw_lesion,
    draw_radius,
    lesion_factor,
    visible_label,
)
from shivacmb.simulate.lesions_place import place
from shivacmb.simulate.mimics import gaussian_field
from shivacmb.simulate.mimics_place import Scene, add_mimics

Array = NDArray[Any]

#: Least fall of the signal, as a share of the 99th percentile, for a lesion to count as visible.
LEAST_DROP = 0.15
#: Share of the signal up to which a look-alike has left no trace.
LEAST_FALL = 0.05
#: Most of the surroundings that may be as dark as a lesion that stands out from them
#: (docs/decisions/0123).
MOST_AS_DARK = 0.1
#: More than the one, up to the other: next to a lesion lies what belongs to it in part.
_SURROUNDINGS_MM = (1.5, 4.0)


@dataclass(frozen=True)
class Acquisition:
    """How a head is scanned.

    Attributes
    ----------
    voxel_mm : tuple of three float
        Voxel size along the scan's axes.
    tilt : tuple of three float
        Rotation of the head against the scan's axes, in radians about x, y, z.
    protocol : Protocol
        Field, echo time and field direction.
    snr : float
        Signal to noise of bright tissue.
    kspace : float
        Share of k-space measured in plane, 1 for all of it.
    ghost : float
        Share of the signal that is displaced by half the field of view.
    strip : bool
        Whether the scan comes without skull.
    lesions : int
        Lesions wanted.
    mimics : float
        Amount of mimics.
    slice_axis : int
        Axis of the thick side.
    """

    voxel_mm: tuple[float, float, float] = (0.9, 0.9, 2.0)
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    protocol: Protocol = field(default_factory=Protocol)
    snr: float = 30.0
    kspace: float = 1.0
    ghost: float = 0.0
    strip: bool = False
    lesions: int = 8
    mimics: float = 1.0
    slice_axis: int = 2


@dataclass(frozen=True)
class Scan:
    """A simulated scan and its truth, all on the scan's grid.

    Attributes
    ----------
    image : ndarray, float32 [X, Y, Z]
        Magnitude; bright tissue is about 1.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.
    voxel_mm : tuple of three float
        Voxel size.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    drops : list of (box, ndarray)
        Per lesion: where, and the share of the signal it took there.
    lesions : list of Lesion
        In scan mm from the centre of voxel (0, 0, 0).
    mimic_loss : ndarray, float32 [X, Y, Z]
        Share of the signal that mimics took (negative where they add).
    mimics : list of (kind, ndarray [3])
        One point of each, in scan mm.
    clean : ndarray, float32 [X, Y, Z]
        Signal without lesions and without noise.
    lookalikes : list of (box, ndarray)
        As ``drops``, of mimics that nothing in this scan tells from a lesion.
    """

    image: Array
    brain: Array
    voxel_mm: tuple[float, float, float]
    affine: Array
    drops: list[tuple[tuple[slice, slice, slice], Array]]
    lesions: list[Lesion]
    mimic_loss: Array
    mimics: list[tuple[str, Array]]
    clean: Array
    lookalikes: list[tuple[tuple[slice, slice, slice], Array]] = field(default_factory=list)


def draw_acquisition(
    rng: np.random.Generator, *, lesions: tuple[int, int] = (6, 30)
) -> Acquisition:
    """Draw a protocol from those met in microbleed studies.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    lesions : tuple of two int
        Least and largest number of lesions.

    Returns
    -------
    Acquisition
        1.5, 3 or 7 T, echo times of 10 to 40 ms, voxels of 0.65 to 1.1 mm in plane and 0.8 to 5 mm
        through plane.
    """
    plane = float(rng.uniform(0.65, 1.1))
    thick = float(
        rng.choice([rng.uniform(0.8, 1.2), rng.uniform(1.2, 2.2), rng.uniform(2.2, 5.0)],
                   p=[0.35, 0.35, 0.3])
    )  # fmt: skip
    axis = int(rng.choice([2, 2, 2, 2, 2, 2, 2, 2, 1, 0]))
    voxel = [plane] * 3
    voxel[axis] = max(plane, thick)
    oblique = float(rng.normal(scale=0.15))
    protocol = Protocol(
        field_t=float(rng.choice([1.5, 3.0, 7.0], p=[0.3, 0.6, 0.1])),
        echo_s=float(rng.uniform(0.010, 0.040)),
        b0=(0.0, float(np.sin(oblique)), float(np.cos(oblique))),
    )
    return Acquisition(
        voxel_mm=(voxel[0], voxel[1], voxel[2]),
        tilt=(float(rng.normal(scale=0.12)), float(rng.normal(scale=0.06)),
              float(rng.normal(scale=0.08))),
        protocol=protocol,
        snr=float(np.exp(rng.uniform(np.log(12), np.log(60)))),
        kspace=float(rng.uniform(0.6, 1.0)) if rng.random() < 0.5 else 1.0,
        ghost=float(rng.uniform(0.01, 0.06)) if rng.random() < 0.2 else 0.0,
        strip=bool(rng.random() < 0.4),
        lesions=int(rng.integers(lesions[0], lesions[1] + 1)),
        mimics=float(rng.uniform(0.2, 1.6)),
        slice_axis=axis,
    )  # fmt: skip


def rotation(angles: tuple[float, float, float]) -> Array:
    """Rotation matrix [3, 3] from angles about x, y and z in radians, that about z first."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = matrix @ turn
    return matrix


def _grid(
    brain: Array, acquisition: Acquisition, margin_mm: tuple[float, float, float]
) -> tuple[tuple[int, int, int], Array, Array]:
    """Shape, scan mm -> head voxel, and the scan's origin relative to the brain's middle (mm)."""
    turn = rotation(acquisition.tilt)
    where = np.argwhere(brain)
    middle = (where.min(0) + where.max(0)) / 2
    corners = (where[:: max(1, len(where) // 20000)] - middle) @ turn
    low = corners.min(0) - margin_mm
    high = corners.max(0) + margin_mm
    size = np.asarray(acquisition.voxel_mm)
    shape = np.ceil((high - low) / size).astype(int)
    to_head = np.eye(4)
    to_head[:3, :3] = turn
    to_head[:3, 3] = turn @ low + middle
    return (int(shape[0]), int(shape[1]), int(shape[2])), to_head, low


def _sample(signal: Array, to_head: Array, acquisition: Acquisition, shape: Array) -> Array:
    """Resample with the slice profile: the mean over sub-slices no thicker than 0.8 mm."""
    size = np.asarray(acquisition.voxel_mm)
    matrix = to_head[:3, :3] * size
    axis = acquisition.slice_axis
    parts = max(1, round(size[axis] / 0.8))
    total = np.zeros(tuple(shape), np.float32)
    for part in range(parts):
        shift = np.zeros(3)
        shift[axis] = ((part + 0.5) / parts - 0.5) * size[axis]
        offset = to_head[:3, :3] @ shift + to_head[:3, 3]
        total += ndimage.affine_transform(
            signal, matrix, offset, tuple(shape), np.float32, order=1
        )
    return np.asarray(total / parts)


def measure(rng: np.random.Generator, clean: Array, acquisition: Acquisition) -> Array:
    """Add complex noise, ghosts and a k-space window in plane.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the noise.
    clean : ndarray, float32 or complex64 [X, Y, Z]
        Noise-free signal, bright tissue about 1.
    acquisition : Acquisition
        Signal to noise, ghosts, share of k-space, slice axis.

    Returns
    -------
    ndarray, complex64 [X, Y, Z]
        Its magnitude has Rician noise.
    """
    sigma = np.float32(1.0 / acquisition.snr)
    real = clean + sigma * rng.standard_normal(clean.shape, np.float32)
    signal = real + 1j * sigma * rng.standard_normal(clean.shape, np.float32)
    plane = [axis for axis in range(3) if axis != acquisition.slice_axis]
    if acquisition.ghost:
        half = clean.shape[plane[1]] // 2
        signal += np.float32(acquisition.ghost) * np.roll(clean, half, axis=plane[1])
    if acquisition.kspace < 1.0:
        space = fft.fftn(signal, axes=plane)
        for axis in plane:
            window = np.abs(np.fft.fftfreq(clean.shape[axis])) <= 0.5 * acquisition.kspace
            form = [1, 1, 1]
            form[axis] = -1
            space *= window.reshape(form)
        signal = fft.ifftn(space, axes=plane)
    return np.asarray(signal)


def strip_mask(
    rng: np.random.Generator, brain: Array, voxel_mm: tuple[float, float, float]
) -> Array:
    """Make a skull-stripping mask with the faults that such masks have.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    brain : ndarray, bool [X, Y, Z]
        The true mask.
    voxel_mm : tuple of three float
        Voxel size.

    Returns
    -------
    ndarray, bool [X, Y, Z]
    """
    soft = ndimage.gaussian_filter(brain.astype(np.float32), [1.5 / v for v in voxel_mm])
    ragged = gaussian_field(rng, brain.shape, float(rng.uniform(2, 8)))
    limit = float(rng.uniform(0.15, 0.75))
    return np.asarray(soft + float(rng.uniform(0.0, 0.2)) * ragged * (soft > 0.02) > limit)


def simulate_scan(
    rng: np.random.Generator,
    signal: Array,
    masks: dict[str, Array],
    zones: dict[str, Array],
    acquisition: Acquisition,
    *,
    margin_mm: tuple[float, float, float] = (14.0, 14.0, 12.0),
    positions: list[tuple[int, int, int, str]] | None = None,
    radii: list[float] | None = None,
    least_chi: float = 0.15,
    large: float = 0.0,
) -> Scan:
    """Scan a head.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    signal : ndarray, float32 [X, Y, Z]
        Noise-free signal of the head at 1 mm, bright tissue about 1.
    masks, zones : dict of ndarray, bool [X, Y, Z]
        See :class:`shivacmb.simulate.mimics_place.Scene` and
        :data:`shivacmb.simulate.lesions_place.ZONES`, on the head's grid.
    acquisition : Acquisition
        How to scan.
    margin_mm : tuple of three float
        Field of view around the brain.
    positions : list of (i, j, k, zone), optional
        Lesion centres in head voxels, instead of drawn ones.
    radii : list of float, optional
        Apparent radii in mm for ``positions``.
    least_chi : float
        Smallest susceptibility of a lesion in ppm.
    large : float
        Share of additional large lesions, see :func:`shivacmb.simulate.lesions.draw_radius`.

    Returns
    -------
    Scan
        Image and truth.
    """
    shape, to_head, low = _grid(masks['brain'], acquisition, margin_mm)
    scene = Scene(masks, to_head, acquisition.voxel_mm, shape, acquisition.slice_axis)
    base = _sample(signal.astype(np.float32), to_head, acquisition, np.array(shape))
    brain = scene.on_scan(masks['brain']) > 0.5
    factor, mimics = add_mimics(rng, scene, amount=acquisition.mimics)
    protocol = acquisition.protocol
    lookalikes = []
    for calcium in draw_calcifications(rng, scene, protocol, acquisition.mimics):
        box, remaining = lesion_factor(calcium, acquisition.voxel_mm, shape, protocol)
        factor[box] *= remaining
        lookalikes.append((box, 1.0 - remaining))
        mimics.append((calcium.zone, np.asarray(calcium.centre)))
    clean = base * factor
    if positions is None:
        positions = place(
            rng, zones, masks['brain'], acquisition.lesions,
            edge_mm=3.0 if rng.random() < 0.7 else 2.0,
        )  # fmt: skip
    lesions = []
    drops = []
    lesioned = clean.copy()
    for number, (i, j, k, zone) in enumerate(positions):
        centre = scene.scan_mm(np.array([[i, j, k]], float))[0] + rng.uniform(-0.5, 0.5, 3)
        radius = radii[number] if radii else draw_radius(rng, large)
        lesion = draw_lesion(
            rng, (float(centre[0]), float(centre[1]), float(centre[2])), protocol, zone, radius,
            least_chi,
        )  # fmt: skip
        box, remaining = lesion_factor(lesion, acquisition.voxel_mm, shape, protocol)
        lesioned[box] *= remaining
        lesions.append(lesion)
        drops.append((box, 1.0 - remaining))
    image = np.asarray(np.abs(measure(rng, lesioned, acquisition)), np.float32)
    if acquisition.strip:
        image = image * strip_mask(rng, brain, acquisition.voxel_mm)
    affine = np.diag([*acquisition.voxel_mm, 1.0])
    affine[:3, 3] = low
    return Scan(
        image, brain, acquisition.voxel_mm, affine, drops, lesions, 1.0 - factor, mimics, clean,
        lookalikes,
    )  # fmt: skip


def least_drop(snr: float) -> float:
    """Least fall of the signal, as a share of bright tissue's, that anyone could see."""
    return max(LEAST_DROP, 4.0 / snr)


def shares_as_dark(image: Array, labels: Array, brain: Array) -> dict[int, float]:
    """Share of the surroundings of each lesion that are as dark as its median voxel.

    Parameters
    ----------
    image : ndarray, float32 [X, Y, Z]
        As it is seen, voxels of 1 mm.
    labels : ndarray, int [X, Y, Z]
        0 outside, lesions numbered from 1; numbers may be missing.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.

    Returns
    -------
    dict of int to float
        By number: of the voxels of the brain from 2 to 4 mm outside the lesion that belong to no
        other; 0 where there are none.
    """
    shares = {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        window, away = distances(labels, number, box, _SURROUNDINGS_MM[1], 1.0)
        near = (away > _SURROUNDINGS_MM[0]) & (away <= _SURROUNDINGS_MM[1])
        around = image[window][near & brain[window] & (labels[window] == 0)]
        middle = np.median(image[window][away == 0])
        shares[number] = float(np.mean(around <= middle)) if around.size else 0.0
    return shares


def isotropic_truth(scan: Scan, snr: float) -> tuple[Array, Array, Array, Array]:
    """Resample a scan and its truth to 1 mm, as a detector sees them.

    Parameters
    ----------
    scan : Scan
        A simulated scan.
    snr : float
        Its signal to noise, to tell what cannot be seen.

    Returns
    -------
    image : ndarray, float32 [X, Y, Z]
        Trilinear, not yet scaled.
    labels : ndarray, uint16 [X, Y, Z]
        Lesion number (from 1) where the signal fell by more than half of its peak drop.
    unsure : ndarray, bool [X, Y, Z]
        Where a lesion lies that nobody could see, by itself or among surroundings as dark, or a
        mimic that nobody could tell from one: neither lesion nor background.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.
    """
    size = np.asarray(scan.voxel_mm)
    shape = tuple(int(n) for n in np.floor((np.array(scan.image.shape) - 1) * size) + 1)
    image = ndimage.affine_transform(scan.image, 1.0 / size, 0.0, shape, np.float32, order=1)
    brain = ndimage.affine_transform(scan.brain.astype(np.float32), 1 / size, 0, shape, order=1)
    labels = np.zeros(shape, np.uint16)
    unsure = np.zeros(shape, bool)
    least = least_drop(snr)
    for number, (box, drop) in enumerate(scan.drops, start=1):
        spot, fall = _isotropic(drop * np.clip(scan.clean[box], 0, 1), box, size, shape)
        mark = visible_label(fall)
        if fall.max(initial=0) < least:
            unsure[spot] |= mark
        else:
            view = labels[spot]
            view[mark & (view == 0)] = number
    shares = shares_as_dark(image, labels, brain > 0.5)
    lost = np.isin(labels, [n for n, share in shares.items() if share > MOST_AS_DARK])
    unsure |= lost
    labels[lost] = 0
    for box, drop in scan.lookalikes:
        # a share: the signal that is left in its middle says nothing about the calcium
        spot, fall = _isotropic(drop, box, size, shape)
        unsure[spot] |= fall > LEAST_FALL
    return image, labels, unsure, np.asarray(brain > 0.5)


def _isotropic(
    values: Array, box: tuple[slice, slice, slice], size: Array, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], Array]:
    """Resample the values of a box to 1 mm: where they lie, and what they are (maybe none)."""
    start = np.array([part.start for part in box])
    low = np.ceil(start * size).astype(int)
    high = np.minimum(np.floor((start + values.shape - 1) * size).astype(int) + 1, shape)
    spot = tuple(slice(a, b) for a, b in zip(low, np.maximum(low, high), strict=True))
    extent = tuple(part.stop - part.start for part in spot)
    if not values.size or 0 in extent:
        return spot, np.zeros(extent, np.float32)
    return spot, np.asarray(
        ndimage.affine_transform(values, 1 / size, low / size - start, extent, order=1)
    )
