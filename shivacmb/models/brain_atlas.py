"""Zones from anatomy: an atlas laid on what the network saw, and a small classifier of both.

The network tells brain, cerebellum, brainstem and sides well, deep structures badly; those lie
in a known place relative to the others. Twelve numbers lay the atlas on the network's maps; a
perceptron then weighs place, maps and intensity of each voxel
(``docs/decisions/0053-zones-by-an-atlas.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.exceptions import ModelError
from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_atlas_step import newton_step, sample_maps, with_slopes
from shivacmb.models.brain_grid import smooth
from shivacmb.models.checksums import sha256_of

Array = NDArray[Any]

#: Landmarks that are matched, in this order: how much each counts.
LANDMARKS = {
    'brain': 1.0,
    'cerebellum': 1.0,
    'brainstem': 1.0,
    'deep': 1.0,
    'white': 0.5,
    'side': 0.5,
}
_WEIGHTS = np.array(list(LANDMARKS.values()), np.float32)
_SIDE = list(LANDMARKS).index('side')
ZONES = len(Zone)
#: Inputs of the classifier: chances by place and by network, place, mismatch, intensity.
FEATURES = 2 * (ZONES - 1) + 3 + len(LANDMARKS) + 3
#: Brain of the network from which a voxel is classified.
_LEAST_BRAIN = 0.1
# rough steps on smoothed maps, every second cell; then fine ones
_STEPS = (8, 6)
_SETTLED_MM = 0.3
#: Around the deep structures, template mm: there the atlas is laid again, on the classified zones.
_CORE_MM = ((-42.0, 42.0), (-52.0, 40.0), (-24.0, 40.0))
_CORE_STEPS = 6
#: A fit that stretches more than any head is given up for its start, one of the core that moves
#: further than ventricles do for that of the whole.
_STRETCH = (0.6, 1.7)
_CORE_MOVE_MM = 20.0
_ROWS = 8192


@dataclass(frozen=True)
class Atlas:
    """What the network's maps and the zones look like on average, in template space.

    Attributes
    ----------
    landmarks : ndarray, float32 [X, Y, Z, 6]
        Mean maps of the network, see :func:`landmarks`.
    prior : ndarray, float32 [X, Y, Z, 8]
        Share of background and each zone where the fit puts them: their spread holds its error.
    origin : ndarray [3]
        Template mm of the first voxel's middle.
    mm : float
        Voxel size.
    mean, scale : ndarray, float32 [FEATURES]
        Inputs of the classifier are shifted and divided by these.
    layers : tuple of ndarray
        Its weights [in, out] and biases in turn: what it adds to the logarithms of the chances by
        place. Empty: place alone decides.
    """

    landmarks: Array
    prior: Array
    origin: Array
    mm: float
    mean: Array = field(default_factory=lambda: np.zeros(FEATURES, np.float32))
    scale: Array = field(default_factory=lambda: np.ones(FEATURES, np.float32))
    layers: tuple[Array, ...] = ()

    @cached_property
    def _fine(self) -> Array:
        return with_slopes(self.landmarks, self.mm)

    @cached_property
    def _rough(self) -> Array:
        return with_slopes(smooth(self.landmarks, 1.5), self.mm)

    @cached_property
    def _zones(self) -> Array:
        return with_slopes(self.prior[..., 1:], self.mm)

    @cached_property
    def _brain(self) -> tuple[Array, float]:
        """Centre of mass, mm, and volume, mm3."""
        brain = self.landmarks[..., 0]
        index = np.moveaxis(np.indices(brain.shape), 0, -1)
        centre = (brain[..., None] * index).sum(axis=(0, 1, 2)) / brain.sum()
        return self.origin + self.mm * centre, float(brain.sum()) * self.mm**3


@lru_cache(maxsize=1)
def load_atlas(path: Path, sha256: str) -> Atlas:
    """Read an atlas that lies in a bundle.

    Parameters
    ----------
    path : Path
        ``.npz`` with the attributes of :class:`Atlas`; maps in 0..255.
    sha256 : str
        Its checksum by ``model.json``.

    Returns
    -------
    Atlas

    Raises
    ------
    ModelError
        It is missing, altered or incomplete.
    """
    try:
        right = sha256_of(path) == sha256
    except OSError as error:
        msg = f'cannot read <{path}>: {error.strerror}; install the package again'
        raise ModelError(msg) from error
    if not right:
        msg = f'<{path}> is not the file that its model.json describes; install the package again'
        raise ModelError(msg)
    with np.load(path, allow_pickle=False) as stored:
        layers = sorted(name for name in stored.files if name.startswith('layer'))
        return Atlas(
            landmarks=np.asarray(stored['landmarks'], np.float32) / 127.0 - 1.0,
            prior=np.asarray(stored['prior'], np.float32) / 255.0,
            origin=stored['origin'],
            mm=float(stored['mm']),
            mean=stored['mean'],
            scale=stored['scale'],
            layers=tuple(np.asarray(stored[name], np.float32) for name in layers),
        )


def save_atlas(atlas: Atlas, path: Path) -> str:
    """Write an atlas as :func:`load_atlas` reads it.

    Parameters
    ----------
    atlas : Atlas
    path : Path

    Returns
    -------
    str
        SHA-256 of the file.
    """
    layers: dict[str, Any] = {f'layer{n:02}': layer for n, layer in enumerate(atlas.layers)}
    np.savez_compressed(
        path,
        landmarks=np.rint(np.clip(atlas.landmarks + 1.0, 0.0, 2.0) * 127.0).astype(np.uint8),
        prior=np.rint(np.clip(atlas.prior, 0.0, 1.0) * 255.0).astype(np.uint8),
        origin=np.asarray(atlas.origin, np.float64),
        mm=np.float64(atlas.mm),
        mean=np.asarray(atlas.mean, np.float32),
        scale=np.asarray(atlas.scale, np.float32),
        **layers,
    )
    return sha256_of(path)


def landmarks(fields: Array) -> Array:
    """Maps that are matched, at half the resolution of the network.

    Parameters
    ----------
    fields : ndarray [A, B, C, 9]
        Output of the network.

    Returns
    -------
    ndarray, float32 [A/2, B/2, C/2, 6]
        Brain, cerebellum, brainstem, deep structures with fluid, white matter, and brain with the
        sign of its side (left 1).
    """
    mean = fields[0::2] + fields[1::2]
    mean = mean[:, 0::2] + mean[:, 1::2]
    mean = (mean[:, :, 0::2] + mean[:, :, 1::2]) / 8
    brain = 1.0 - mean[..., Zone.BACKGROUND]
    deep = mean[..., Zone.DEEP_GREY] + mean[..., Zone.THALAMUS] + mean[..., Zone.FLUID]
    found = [
        brain,
        mean[..., Zone.CEREBELLUM],
        mean[..., Zone.BRAINSTEM],
        deep,
        mean[..., Zone.WHITE_MATTER],
        brain * (2.0 * mean[..., -1] - 1.0),
    ]
    return np.stack(found, axis=-1).astype(np.float32)


def acquired(image: Array) -> Array:
    """Cells of :func:`landmarks` within the box around the signal.

    Parameters
    ----------
    image : ndarray [A, B, C]
        Input of the network, 0 where nothing was acquired.

    Returns
    -------
    ndarray of bool [A/2, B/2, C/2]
    """
    out = np.ones([size // 2 for size in image.shape], bool)
    for axis in range(3):
        planes = (image > 0).any(axis=tuple(a for a in range(3) if a != axis))
        hit = np.flatnonzero(planes)
        whole = np.zeros(planes.size, bool)
        if hit.size:
            whole[hit[0] : hit[-1] + 1] = True
        both = whole.reshape(-1, 2).all(axis=1)
        out &= both.reshape([-1 if a == axis else 1 for a in range(3)])
    return out


def points(shape: tuple[int, ...], mm: float) -> Array:
    """Places of the voxels of a grid, mm from its middle, float32 [X, Y, Z, 3]."""
    axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)


def fit_affine(seen: Array, where: Array, mm: float, atlas: Atlas) -> Array:
    """Lay the atlas on the landmarks by twelve numbers.

    Gauss-Newton on the weighted squared differences, from the brain's centre and volume on; first
    on smoothed maps.

    Parameters
    ----------
    seen : ndarray [A, B, C, 6]
        Landmarks.
    where : ndarray of bool [A, B, C]
        Cells that were acquired.
    mm : float
        Size of the cells.
    atlas : Atlas

    Returns
    -------
    ndarray, float64 [4, 3]
        Rows: template mm of the grid's middle, then template mm per mm along each axis.
    """
    grid = points(seen.shape[:3], mm)
    brain = np.where(seen[..., 0] > 0.5, seen[..., 0], 0.0)
    total = max(float(brain.sum()), 1.0)
    middle = (brain[..., None] * grid).sum(axis=(0, 1, 2)) / total
    target, volume = atlas._brain
    size = float(np.clip((volume / (total * mm**3)) ** (1 / 3), 0.85, 1.2))
    # unit of the slopes: 100 mm, so that all twelve numbers are of one size
    numbers = start = np.concatenate([target[None], 100.0 * size * np.eye(3)])
    where = where & (ndimage.uniform_filter(seen[..., 0], 5) > 0.02)
    smoothed = smooth(seen, 1.5)
    stages = ((atlas._rough, smoothed, 2, _STEPS[0]), (atlas._fine, seen, 1, _STEPS[1]))
    for maps, found, every, steps in stages:
        part = (slice(None, None, every),) * 3
        inside = where[part]
        if inside.sum() < 100:
            break
        values = found[part][inside]
        basis = (grid[part][inside] - middle) / 100.0
        basis = np.concatenate([np.ones((len(basis), 1)), basis], axis=1).astype(np.float32)
        for _ in range(steps):
            step = newton_step(maps, values, basis, numbers, atlas, _WEIGHTS)
            numbers = numbers - step
            if np.abs(basis[::7] @ step).max() < _SETTLED_MM:
                break
    sizes = np.linalg.svd(numbers[1:] / 100.0, compute_uv=False)
    if not (_STRETCH[0] < sizes.min() and sizes.max() < _STRETCH[1]):
        numbers = start
    slopes = numbers[1:] / 100.0
    return np.concatenate([(numbers[0] - middle @ slopes)[None], slopes])


def fit_core(chance: Array, where: Array, placed: Array, atlas: Atlas) -> Array:
    """Lay the middle of the atlas again, on zones that were classified with its help.

    Deep structures lie a few millimetres off where the outline of the brain would have them.

    Parameters
    ----------
    chance : ndarray [N, 7]
        Of :func:`classify`.
    where : ndarray [N, 3]
        Places of these voxels, mm from the grid's middle.
    placed : ndarray [4, 3]
        Of :func:`fit_affine`.
    atlas : Atlas

    Returns
    -------
    ndarray, float64 [4, 3]
        For the middle of the brain; ``placed`` itself where too little of that was seen, or where
        the atlas would move further than brains differ.
    """
    if len(where) < 1000:
        return placed
    middle = where.mean(axis=0)
    basis = np.concatenate([np.ones((len(where), 1)), (where - middle) / 100.0], axis=1)
    basis = basis.astype(np.float32)
    numbers = start = np.concatenate([(placed[0] + middle @ placed[1:])[None], 100.0 * placed[1:]])
    weights = np.ones(ZONES - 1, np.float32)
    for _ in range(_CORE_STEPS):
        step = newton_step(atlas._zones, chance, basis, numbers, atlas, weights)
        numbers = numbers - step
        if np.abs(basis @ step).max() < _SETTLED_MM:
            break
    if not np.abs(basis @ (numbers - start)).max() < _CORE_MOVE_MM:
        return placed
    slopes = numbers[1:] / 100.0
    return np.concatenate([(numbers[0] - middle @ slopes)[None], slopes])


@dataclass(frozen=True)
class Seen:
    """What one image gives the classifier, whatever the place of the atlas.

    Attributes
    ----------
    fields : ndarray [A, B, C, 9]
        Output of the network.
    looks : tuple of ndarray [A, B, C]
        Its input at three scales, 1 in the median of the brain.
    marks : ndarray [A/2, B/2, C/2, 6]
        Landmarks.
    cells : ndarray of bool [A/2, B/2, C/2]
        Where they count.
    mm : float
        Voxel size of the network.
    """

    fields: Array
    looks: tuple[Array, ...]
    marks: Array
    cells: Array
    mm: float


def look(fields: Array, image: Array, mm: float) -> Seen:
    """Smooth and scale what the network saw and said; see :class:`Seen`."""
    brain = fields[..., Zone.BACKGROUND] < 0.5
    level = float(np.median(image[brain])) if brain.any() else 1.0
    scaled = (image / max(level, 1e-3)).astype(np.float32)
    smoothed = [smooth(scaled, width / mm) for width in (2.4, 8.0)]
    return Seen(fields, (scaled, *smoothed), landmarks(fields), acquired(image), mm)


def features(seen: Seen, atlas: Atlas, placed: Array, wanted: Array) -> Array:
    """Inputs of the classifier.

    Parameters
    ----------
    seen : Seen
    atlas : Atlas
    placed : ndarray [4, 3]
        Of :func:`fit_affine`.
    wanted : ndarray of bool [A, B, C]
        Voxels to describe.

    Returns
    -------
    ndarray, float32 [N, FEATURES]
        Logarithms of the shares of the zones at this place and of the network's, place, smoothed
        differences of the landmarks, intensity at three scales. Left and right look alike.
    """
    grid = points(wanted.shape, seen.mm)[wanted]
    place = (placed[0] + grid @ placed[1:]).astype(np.float32)
    prior = sample_maps(atlas.prior, (place - atlas.origin) / atlas.mm)[:, 1:]
    prior = np.log(np.maximum(prior, 3e-4) / np.maximum(prior.sum(1, keepdims=True), 2e-3))
    chance = seen.fields[wanted][:, 1:ZONES]
    chance = chance / np.maximum(chance.sum(1, keepdims=True), 1e-6)
    chance = np.log(np.maximum(chance, 1e-4))
    where = np.stack([abs(place[:, 0]) / 40, (place[:, 1] + 20) / 50, place[:, 2] / 50], axis=1)
    near = seen.cells & (ndimage.uniform_filter(seen.marks[..., 0], 3) > 0.01)
    cells = points(near.shape, 2 * seen.mm)
    there = (placed[0] + cells[near] @ placed[1:] - atlas.origin) / atlas.mm
    error = seen.marks[near] - sample_maps(atlas.landmarks, there)
    error[:, _SIDE] *= np.sign(atlas.origin[0] + atlas.mm * there[:, 0])
    missed = np.zeros_like(seen.marks)
    missed[near] = error
    missed = 4.0 * smooth(missed, 2.0)
    missed = sample_maps(missed, (grid - cells[0, 0, 0]) / (2 * seen.mm))
    bright = np.stack([values[wanted] for values in seen.looks], axis=1)
    bright = np.clip(bright, 0.0, 3.0) - 1.0
    out = np.concatenate([prior / 2, chance / 2, where, missed, bright], axis=1)
    return np.asarray(out, np.float32)


def by_place(inputs: Array) -> Array:
    """Logarithm of the chance of each zone by place alone, [N, 7]."""
    return np.asarray(2.0 * inputs[:, : ZONES - 1])


def classify(inputs: Array, atlas: Atlas) -> Array:
    """Chance of each zone but the background.

    Parameters
    ----------
    inputs : ndarray [N, FEATURES]
    atlas : Atlas

    Returns
    -------
    ndarray, float32 [N, 7]
        Their sum is 1.
    """
    out = np.empty((len(inputs), ZONES - 1), np.float32)
    # Parts that stay in the processor's cache
    for first in range(0, len(inputs), _ROWS):
        part = slice(first, first + _ROWS)
        out[part] = _classify(inputs[part], atlas)
    return out


def _classify(inputs: Array, atlas: Atlas) -> Array:
    logits = by_place(inputs)
    out = (inputs - atlas.mean) / atlas.scale
    for n in range(0, len(atlas.layers), 2):
        out = out @ atlas.layers[n] + atlas.layers[n + 1]
        if n + 2 < len(atlas.layers):
            out = np.maximum(out, 0.0)
    out = logits + out if atlas.layers else logits
    out = np.exp(out - out.max(axis=1, keepdims=True))
    return np.asarray(out / out.sum(axis=1, keepdims=True), np.float32)


def place_zones(fields: Array, image: Array, mm: float, atlas: Atlas) -> Array:
    """Replace the network's zones and sides by those of the atlas and the classifier.

    Parameters
    ----------
    fields : ndarray, float32 [A, B, C, 9]
        Output of the network; its brain is kept.
    image : ndarray [A, B, C]
        Its input.
    mm : float
        Its voxel size.
    atlas : Atlas

    Returns
    -------
    ndarray, float32 [A, B, C, 9]
    """
    seen = look(fields, image, mm)
    placed = fit_affine(seen.marks, seen.cells, 2 * mm, atlas)
    brain = 1.0 - fields[..., Zone.BACKGROUND]
    grid = points(image.shape, mm)
    out = np.array(fields, np.float32)
    out[..., -1] = _sided(fields[..., -1], placed[0, 0] + grid @ placed[1:, 0])
    # a part of the voxels is enough to lay the core
    place = placed[0] + grid[::2, ::2, ::2] @ placed[1:]
    core = brain[::2, ::2, ::2] > 0.5
    for axis, (low, high) in enumerate(_CORE_MM):
        core &= (place[..., axis] > low) & (place[..., axis] < high)
    some = np.zeros(image.shape, bool)
    some[::2, ::2, ::2] = core
    chance = classify(features(seen, atlas, placed, some), atlas)
    placed = fit_core(chance, grid[some], placed, atlas)
    wanted = brain > _LEAST_BRAIN
    chance = classify(features(seen, atlas, placed, wanted), atlas)
    out[wanted, 1:ZONES] = chance * brain[wanted][:, None]
    return out


def _sided(left: Array, right_mm: Array) -> Array:
    """Chance of the left: the network's, and a logit for each mm from the atlas's midline.

    Far from the brain's surface the network does not know its side, near the midline it is better
    than a plane.
    """
    left = np.clip(left, 1e-4, 1.0 - 1e-4)
    odds = (1.0 - left) / left * np.exp(np.clip(right_mm, -30.0, 30.0))
    return np.asarray(1.0 / (1.0 + odds), np.float32)
