"""Make the atlas of the zones, and its classifier, from simulated heads and a trained network.

Three passes over the heads: the network's maps averaged where the simulation says that they lie in
the template; the true zones averaged where the fit says so, so that the atlas holds the error of
the fit; a perceptron for the zone of a voxel. Plain numpy: seconds to a minute.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from shivacmb.models.brain_atlas import (
    LANDMARKS,
    ZONES,
    Atlas,
    acquired,
    by_place,
    features,
    fit_affine,
    landmarks,
    look,
    points,
)
from shivacmb.simulate.anatomy_warp import WarpRange
from shivacmb.train.brain_zones_samples import LEFT, Array, simulate_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

#: Template mm of the first voxel, voxel size and shape; the middle plane is the midline.
ORIGIN = np.array([-92.0, -128.0, -88.0])
MM = 4.0
SHAPE = (47, 54, 49)
FILE = 'atlas.npz'
_FLIP = np.array([-1.0, 1.0, 1.0], np.float32)
#: Voxels of each zone that a head gives to the classifier, at most.
_VOXELS = 800
EPOCHS = 30
#: Power of the number of voxels that a chosen one stands for.
BALANCE = 0.8
_HIDDEN = (40, 24)
_BATCH = 4096


@dataclass(frozen=True)
class Sample:
    """One image: what the network sees and says, and the truth.

    Attributes
    ----------
    image : ndarray, float32 [A, B, C]
        Input of the network.
    fields : ndarray, float32 [A, B, C, 9]
        Its output.
    zones : ndarray, uint8 [A, B, C]
        As in :class:`shivacmb.train.brain_zones_samples.Pair`.
    places : ndarray, float32 [A/2, B/2, C/2, 3]
        True template mm of the blocks of eight voxels.
    """

    image: Array
    fields: Array
    zones: Array
    places: Array


def simulate_samples(
    predict: Callable[[Array], Array],
    shape: Sequence[int],
    net_mm: float,
    heads: int,
    seed: int,
    folder: Path,
) -> list[Path]:
    """Draw heads of usual variety, two images each, and keep what the network says of them.

    Parameters
    ----------
    predict : callable
        float32 [A, B, C] to [A, B, C, 9].
    shape, net_mm
        The network's grid.
    heads, seed : int
    folder : Path
        Gets a file per image; those that are there already are kept.

    Returns
    -------
    list of Path
        For :func:`read_sample`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for head in range(heads):
        both = [folder / f'sample-{seed}-{head:03}-{n}.npz' for n in range(2)]
        paths += both
        if all(path.exists() for path in both):
            continue
        spread = WarpRange(rotation_deg=20.0 if head % 6 == 0 else 9.0, shift_mm=16.0)
        pairs = simulate_pairs((seed, 3, head), shape, net_mm, len(both), spread=spread)
        for path, pair in zip(both, pairs, strict=True):
            fields = predict(pair.image.astype(np.float32))
            part = path.with_suffix('.part.npz')
            np.savez(
                part,
                image=pair.image,
                fields=fields.astype(np.float16),
                zones=pair.zones,
                places=pair.places,
            )
            part.replace(path)
    return paths


def read_sample(path: Path) -> Sample:
    """Read what :func:`simulate_samples` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Sample(
            image=stored['image'].astype(np.float32),
            fields=stored['fields'].astype(np.float32),
            zones=stored['zones'],
            places=stored['places'].astype(np.float32),
        )


def make_atlas(paths: Sequence[Path], net_mm: float, *, seed: int, epochs: int = EPOCHS) -> Atlas:
    """Make atlas and classifier from samples.

    Parameters
    ----------
    paths : sequence of Path
        See :func:`simulate_samples`.
    net_mm : float
    seed : int
    epochs : int
        Of the classifier.

    Returns
    -------
    Atlas
    """
    mean = _mean_landmarks(read_sample(path) for path in paths)
    atlas = Atlas(mean, np.zeros((*SHAPE, ZONES), np.float32), ORIGIN, MM)
    logger.info('landmarks of %d images', len(paths))
    fits, prior = [], _Mean(ZONES)
    for path in paths:
        sample = read_sample(path)
        where = acquired(sample.image)
        placed = fit_affine(landmarks(sample.fields), where, 2 * net_mm, atlas)
        fits.append(placed)
        _add_zones(prior, sample, placed, net_mm)
    atlas = replace(atlas, prior=prior.smooth(0.6))
    logger.info('zones of %d images', len(paths))
    inputs, wanted, counts = _voxels(paths, fits, atlas, net_mm, seed)
    atlas = replace(atlas, mean=inputs.mean(axis=0), scale=inputs.std(axis=0) + 1e-3)
    start = by_place(inputs)
    inputs = (inputs - atlas.mean) / atlas.scale
    layers = train_classifier(inputs, start, wanted, counts, seed=seed, epochs=epochs)
    return replace(atlas, layers=layers)


class _Mean:
    """Average of values that fall into the voxels of the atlas."""

    def __init__(self, count: int) -> None:
        self.total = np.zeros((count, *SHAPE))
        self.number = np.zeros(SHAPE)

    def add(self, values: Array, place: Array) -> None:
        """Values [N, count] at template mm [N, 3]."""
        index = np.rint((place - ORIGIN) / MM).astype(int)
        inside = ((index >= 0) & (index < SHAPE)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[inside].T), SHAPE)
        size = int(np.prod(SHAPE))
        self.number += np.bincount(flat, minlength=size).reshape(SHAPE)
        for total, column in zip(self.total, values[inside].T, strict=True):
            total += np.bincount(flat, column, minlength=size).reshape(SHAPE)

    def smooth(self, width: float) -> Array:
        """Means [X, Y, Z, count], a little smoothed; 0 where nothing fell."""
        number = ndimage.gaussian_filter(self.number, width) + 1e-3
        means = [ndimage.gaussian_filter(total, width) / number for total in self.total]
        return np.stack(means, axis=-1).astype(np.float32)


def _mean_landmarks(samples: Iterable[Sample]) -> Array:
    """Landmarks in the template, made symmetric."""
    mean = _Mean(len(LANDMARKS))
    mirror = np.ones(len(LANDMARKS))
    mirror[list(LANDMARKS).index('side')] = -1.0
    for sample in samples:
        inside = acquired(sample.image)
        values, place = landmarks(sample.fields)[inside], sample.places[inside]
        mean.add(values, place)
        mean.add(values * mirror, place * _FLIP)
    return mean.smooth(0.7)


def _add_zones(prior: _Mean, sample: Sample, placed: Array, net_mm: float) -> None:
    """True zones of a part of the voxels, on both sides."""
    some = np.repeat(np.repeat(np.repeat(acquired(sample.image), 2, 0), 2, 1), 2, 2)
    some[1::2] = False
    some[:, ::2] = False
    place = placed[0] + points(some.shape, net_mm)[some] @ placed[1:]
    zones = np.eye(ZONES)[sample.zones[some] % LEFT]
    prior.add(zones, place)
    prior.add(zones, place * _FLIP)


def _voxels(
    paths: Sequence[Path], fits: Sequence[Array], atlas: Atlas, net_mm: float, seed: int
) -> tuple[Array, Array, Array]:
    """Inputs of the classifier, zone less 1, and weights.

    Full weights would leave out the small zones, none would make them too large.
    """
    rng = np.random.default_rng([seed, 4])
    inputs, wanted, counts = [], [], []
    for path, placed in zip(paths, fits, strict=True):
        sample = read_sample(path)
        zones = sample.zones % LEFT
        chosen, weight = np.zeros(zones.shape, bool), np.zeros(zones.shape, np.float32)
        for zone in range(1, ZONES):
            where = np.flatnonzero(zones == zone)
            if where.size:
                some = rng.choice(where, min(_VOXELS, where.size), replace=False)
                chosen.flat[some] = True
                weight.flat[some] = (where.size / some.size) ** BALANCE
        inputs.append(features(look(sample.fields, sample.image, net_mm), atlas, placed, chosen))
        wanted.append(zones[chosen].astype(np.intp) - 1)
        counts.append(weight[chosen])
    return np.concatenate(inputs), np.concatenate(wanted), np.concatenate(counts)


def train_classifier(
    inputs: Array,
    start: Array,
    wanted: Array,
    counts: Array,
    *,
    seed: int,
    epochs: int,
    hidden: Sequence[int] = _HIDDEN,
    rate: float = 3e-3,
) -> tuple[Array, ...]:
    """Train a perceptron by Adam (Kingma 2015) with a cosine end.

    Parameters
    ----------
    inputs : ndarray, float32 [N, K]
        Of zero mean and unit deviation.
    start : ndarray [N, 7]
        Logits that its output is added to.
    wanted : ndarray of int [N]
        Class.
    counts : ndarray [N]
        Weight of each in the cross-entropy.
    seed, epochs : int
    hidden : sequence of int
        Units.
    rate : float

    Returns
    -------
    tuple of ndarray
        Weights and biases in turn.
    """
    rng = np.random.default_rng([seed, 5])
    sizes = (inputs.shape[1], *hidden, ZONES - 1)
    layers: list[Array] = []
    for into, out in itertools.pairwise(sizes):
        scale = np.sqrt(2.0 / into) * (0.1 if out == sizes[-1] else 1.0)
        layers.append((rng.standard_normal((into, out)) * scale).astype(np.float32))
        layers.append(np.zeros(out, np.float32))
    first = [np.zeros_like(layer) for layer in layers]
    second = [np.zeros_like(layer) for layer in layers]
    batch = min(_BATCH, len(inputs))
    steps = epochs * (len(inputs) // batch)
    for step in range(1, steps + 1):
        low = (step - 1) * batch % (len(inputs) // batch * batch)
        if low == 0:
            order = rng.permutation(len(inputs))
        some = order[low : low + batch]
        slopes = _slopes(layers, inputs[some], start[some], wanted[some], counts[some])
        now = rate * min(1.0, step / 100) * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        for n, slope in enumerate(slopes):
            first[n] = 0.9 * first[n] + 0.1 * slope
            second[n] = 0.999 * second[n] + 0.001 * slope**2
            size = np.sqrt(second[n] / (1 - 0.999**step)) + 1e-8
            layers[n] = (layers[n] - now * first[n] / (1 - 0.9**step) / size).astype(np.float32)
    return tuple(layers)


def _slopes(
    layers: Sequence[Array], inputs: Array, start: Array, wanted: Array, counts: Array
) -> list[Array]:
    """Gradients of the weighted cross-entropy."""
    seen = [inputs]
    for n in range(0, len(layers), 2):
        out = seen[-1] @ layers[n] + layers[n + 1]
        seen.append(np.maximum(out, 0.0) if n + 2 < len(layers) else out)
    logits = seen[-1] + start
    error = np.exp(logits - logits.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(wanted)), wanted] -= 1.0
    error *= (counts / counts.sum())[:, None]
    slopes: list[Any] = [None] * len(layers)
    for n in reversed(range(0, len(layers), 2)):
        slopes[n] = seen[n // 2].T @ error
        slopes[n + 1] = error.sum(axis=0)
        if n:
            error = (error @ layers[n].T) * (seen[n // 2] > 0)
    return slopes
