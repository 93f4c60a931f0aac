"""Batches of prepared scans: whole volumes or patches; the seed and the step alone decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.train.augment import (
    Augmentation,
    Move,
    apply_curve,
    draw_inner,
    draw_move,
    sample,
)
from shivacmb.train.labels import IGNORED
from shivacmb.train.volumes import Volume, open_volume

Array = NDArray[Any]

#: Share of the patches with a lesion in them, where a scan has any.
ON_LESION = 0.5


@dataclass(frozen=True)
class VolumeSource:
    """Draws augmented batches of prepared scans.

    Every scan comes once before any comes again. Targets have a map for each class and one more
    with the weight of each voxel, 0 where labels say to ignore.

    Attributes
    ----------
    folder : Path
        Of the prepared scans.
    names : sequence of str
        Scans to draw from.
    classes : int
        Number of classes.
    seed : int
        Of every draw.
    batch : int
        Images per batch.
    patch : int or None
        Side of patches in voxels; None takes the whole box.
    augmentation : Augmentation or None
        None for validation: nothing is moved, and patches lie where they lay before.
    top : float
        Largest value in the images.
    """

    folder: Path
    names: Sequence[str]
    classes: int
    seed: int
    batch: int = 1
    patch: int | None = None
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    top: float = 1.0

    def draw(self, step: int) -> tuple[Array, Array]:
        """Draw the batch of one step.

        Parameters
        ----------
        step : int
            Number of the training step.

        Returns
        -------
        images : ndarray, float32 [N, X, Y, Z, C]
            Inputs.
        targets : ndarray, float32 [N, X, Y, Z, K + 1]
            Classes (0 or 1), then weight.
        """
        rng = np.random.default_rng([self.seed, 1, step])
        pairs = [
            self._example(rng, self._name(step * self.batch + number))
            for number in range(self.batch)
        ]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def _name(self, number: int) -> str:
        round_, place = divmod(number, len(self.names))
        order = np.random.default_rng([self.seed, 2, round_]).permutation(len(self.names))
        return self.names[int(order[place])]

    def _example(self, rng: np.random.Generator, name: str) -> tuple[Array, Array]:
        volume = open_volume(self.folder, name)
        how = self.augmentation
        move = draw_move(rng, how) if how else Move()
        to_volume = move.matrix(volume.classes.shape)
        shape = volume.classes.shape
        if self.patch is not None:
            shape = (self.patch,) * 3
            corner = np.eye(4)
            corner[:3, 3] = self._corner(rng, volume, to_volume)
            to_volume = to_volume @ corner
        image = np.stack(
            [
                self._channel(rng, sample(volume.image[..., channel], to_volume, shape, order=1))
                for channel in range(volume.image.shape[-1])
            ],
            axis=-1,
        )
        labels = sample(np.asarray(volume.classes), to_volume, shape, order=0)
        maps = [labels == number for number in range(1, self.classes + 1)]
        target = np.stack([*maps, labels != IGNORED], axis=-1).astype(np.float32)
        return image, target

    def _channel(self, rng: np.random.Generator, image: Array) -> Array:
        if self.augmentation is None or self.augmentation.curves == 'none':
            return np.asarray(image, np.float32)
        return apply_curve(image, draw_inner(rng, self.augmentation.curves), self.top)

    def _corner(self, rng: np.random.Generator, volume: Volume, to_volume: Array) -> Array:
        """Lowest voxel of a patch on the moved grid."""
        size = int(self.patch or 0)
        points = volume.points
        if len(points) and rng.random() < ON_LESION:
            target = points[int(rng.integers(len(points)))]
        else:
            inside = np.flatnonzero(volume.brain)
            flat = int(inside[int(rng.integers(len(inside)))]) if inside.size else 0
            target = np.array(np.unravel_index(flat, volume.brain.shape))
        back = np.linalg.inv(to_volume)
        moved = np.rint(back[:3, :3] @ target + back[:3, 3])
        reach = size // 4
        return np.asarray(moved - size // 2 + rng.integers(-reach, reach + 1, 3))
