"""The built-in brain mask and zones: a small network on a coarse grid, for any contrast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging.intensity import background_mask, is_skull_stripped
from shivacmb.imaging.zones import MIDLINE, SIDE_STEP, Side, Zone
from shivacmb.models.brain_atlas import load_atlas, place_zones
from shivacmb.models.brain_grid import from_network, scale_input, to_network
from shivacmb.models.descriptor import load_bundle
from shivacmb.models.ensemble import load_ensemble
from shivacmb.models.locate import find_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shivacmb.models.brain_atlas import Atlas
    from shivacmb.models.bundle import Bundle
    from shivacmb.models.ensemble import Ensemble

Array = NDArray[Any]

#: The bundle that ships with the package.
BUILTIN = 'brain-zones'
#: Output maps of its network: background and the zones in the order of ``Zone``, then the left.
MAPS = len(Zone) + 1
_MIN_VOLUME_MM3 = 1e5
#: Half of a bare brain's surface lies within so much of what the network sees; scalp and skull of
#: an adult are twice as thick (docs/decisions/0138).
BARE_MM = 6.0
# surfaces are compared on about this grid
_SURFACE_MM = 2.0
# a brain nearer to the middle of the grid than this is seen whole in the first pass
_CENTRED_MM = 12.0


def find_brain(
    image: nib.Nifti1Image,
    bundle: Bundle | Path | str = BUILTIN,
    *,
    engine: str = 'auto',
    threads: int | None = None,
    predict: Callable[[Array], Array] | None = None,
) -> BrainMaps:
    """Run the network on a head scan.

    Parameters
    ----------
    image : nibabel.Nifti1Image
        3-D, finite, with axes close to R/L, A/P, S/I in any order and direction (as after
        :func:`shivacmb.imaging.reorient_to_std`); any voxel size, any contrast.
    bundle : Bundle, Path or str
        A bundle whose target is the brain.
    engine : {'auto', 'openvino', 'tensorflow'}
    threads : int, optional
    predict : callable, optional
        Runs the network elsewhere: float32 [X, Y, Z] on its grid, 0 to 1, to the folds' mean
        [X, Y, Z, 9]. By default the network is loaded in this process, once.

    Returns
    -------
    BrainMaps
        Gives the mask, and the zones of this or another mask.

    Raises
    ------
    DataError
        When no brain of at least 100 mL is seen.
    ModelError
        When the bundle is missing, altered or made for something else.
    """
    found = find_bundle(bundle) if isinstance(bundle, (str, Path)) else bundle
    if found.target != 'brain' or len(found.classes) != MAPS - 1:
        msg = (
            f'model {found.name!r} in <{found.path}> finds {found.target!r}, not the brain and'
            f' its zones; take {BUILTIN!r}'
        )
        raise ModelError(msg)
    if predict is None:
        ensemble = _ensemble(found.path, engine, threads)

        def predict(field: Array) -> Array:
            return np.asarray(ensemble.predict(field[None, ..., None]).mean(axis=0)[0])

    return brain_from(
        image,
        predict,
        found.grid.shape,
        found.grid.voxel_mm[0],
        threshold=found.postprocess.threshold,
        atlas=load_atlas(*found.atlas) if found.atlas else None,
    )


def find_mask(
    array: Array, voxel_mm: tuple[float, ...], look: Callable[[], BrainMaps]
) -> tuple[NDArray[np.bool_], str, BrainMaps | None]:
    """Mask a scan that comes without a mask.

    Parameters
    ----------
    array : ndarray [X, Y, Z]
        The scan.
    voxel_mm : tuple of three float
        Its voxel sizes.
    look : callable
        Runs the network on it, as :func:`find_brain`.

    Returns
    -------
    mask : ndarray of bool [X, Y, Z]
    method : {'background', 'builtin'}
        ``background``: what is not background in a skull-stripped scan. Where background is one
        value, air may have been set to it and the head be whole, so the network has to see a
        brain that fills what is left (:meth:`BrainMaps.is_bare`), or none at all.
    maps : BrainMaps or None
        What the network saw; None where it sees no brain.

    Raises
    ------
    DataError
        When no brain of at least 100 mL is seen in a scan that is not skull-stripped.
    ModelError
        When the network is missing or altered.
    """
    if not is_skull_stripped(array, (voxel_mm[0], voxel_mm[1], voxel_mm[2])):
        maps = look()
        return maps.mask() > 0, 'builtin', maps
    piece = background_mask(array)
    try:
        maps = look()
    except ModelError:
        # a damaged network says nothing about the scan
        raise
    except DataError:
        return piece, 'background', None
    if maps.is_bare(piece):
        return piece, 'background', maps
    return maps.mask() > 0, 'builtin', maps


@lru_cache(maxsize=1)
def _ensemble(path: Path, engine: str, threads: int | None) -> Ensemble:
    """Load once per process: a worker masks many scans."""
    return load_ensemble(load_bundle(path), engine=engine, threads=threads)


@dataclass(frozen=True)
class BrainMaps:
    """What the network saw, and where that lies in the image.

    Attributes
    ----------
    fields : ndarray, float32 [A, B, C, 9]
        Probabilities on the network's grid, RAS order.
    head : ndarray, float32 [A, B, C]
        What the network saw there.
    shape : tuple of int
        The image's grid in RAS order.
    mm : ndarray, float64 [3]
        Its voxel size in RAS order.
    net_mm : float
        Voxel size of the network's grid.
    centre : list of float
        Middle of the network's grid, mm from the middle of the image's first voxel in RAS order.
    to_ras : ndarray [3, 2]
        Orientation of the image.
    threshold : float
        Probability of brain from which a voxel belongs to it.
    atlas : Atlas, optional
        Places the zones; without it they are the network's.
    """

    fields: Array
    head: Array
    shape: tuple[int, ...]
    mm: Array
    net_mm: float
    centre: list[float]
    to_ras: Array
    threshold: float
    atlas: Atlas | None = None

    def mask(self) -> Array:
        """Return the brain, uint8 on the image's grid: one piece without holes."""
        brain = 1.0 - self.fields[..., Zone.BACKGROUND]
        full = from_network(brain, self.shape, self.mm, self.net_mm, self.centre)
        return self._as_image(_one_piece(full > self.threshold))

    def is_bare(self, piece: Array) -> bool:
        """Tell whether a piece of the image is a brain with nothing of the head around it.

        Parameters
        ----------
        piece : ndarray of bool [X, Y, Z]
            On the image's grid.

        Returns
        -------
        bool
            Whether half of its surface lies within :data:`BARE_MM` of the brain that the network
            sees. Where the image ends is no surface.
        """
        steps = [max(1, round(_SURFACE_MM / size)) for size in self.mm]
        every = tuple(slice(None, None, step) for step in steps)
        inside, brain = (
            nib.apply_orientation(array, self.to_ras)[every] > 0 for array in (piece, self.mask())
        )
        surface = inside & ~ndimage.binary_erosion(inside, border_value=1)
        away = ndimage.distance_transform_edt(~brain, sampling=self.mm * steps)
        return not surface.any() or bool(np.median(away[surface]) <= BARE_MM)

    def zones(self, mask: Array) -> Array:
        """Return the zone of every voxel of a mask, with its side.

        Parameters
        ----------
        mask : ndarray [X, Y, Z]
            The brain on the image's grid, by this network or any other means.

        Returns
        -------
        ndarray, uint8 [X, Y, Z]
            Values of :data:`shivacmb.imaging.zones.REGIONS`: the most probable zone, whatever the
            probability of background; 0 outside the mask, and where the network's grid ends.
        """
        inside = nib.apply_orientation(np.asarray(mask) > 0, self.to_ras)
        out = np.zeros(self.shape, np.uint8)
        window = _extent(inside)
        if window is None:
            return self._as_image(out)

        fields = self.fields
        if self.atlas is not None:
            fields = place_zones(fields, self.head, self.net_mm, self.atlas)

        def upsampled(number: int) -> Array:
            field = fields[..., number]
            return from_network(field, self.shape, self.mm, self.net_mm, self.centre, window)

        best = np.full([piece.stop - piece.start for piece in window], 1e-3, np.float32)
        zone = np.zeros(best.shape, np.uint8)
        for number in range(1, len(Zone)):
            chance = upsampled(number)
            better = chance > best
            zone[better] = number
            np.copyto(best, chance, where=better)
        left = upsampled(MAPS - 1) > 0.5
        side = np.where(left, np.uint8(SIDE_STEP * Side.LEFT), np.uint8(SIDE_STEP * Side.RIGHT))
        sided = np.array([n not in MIDLINE for n in range(len(Zone))])
        zone += np.where(sided[zone], side, np.uint8(0))
        out[window] = np.where(inside[window], zone, np.uint8(0))
        return self._as_image(out)

    def _as_image(self, array: Array) -> Array:
        """From RAS order to the image's."""
        return np.ascontiguousarray(nib.apply_orientation(array, _inverse(self.to_ras)), np.uint8)


def brain_from(
    image: nib.Nifti1Image,
    predict: Callable[[Array], Array],
    shape: Sequence[int],
    net_mm: float,
    threshold: float = 0.5,
    atlas: Atlas | None = None,
) -> BrainMaps:
    """Run any predictor; see :func:`find_brain`.

    The network's grid is laid on the middle of the scan's signal. Where the brain that it sees is
    off the middle, a second pass is laid on that brain.

    Parameters
    ----------
    image : nibabel.Nifti1Image
    predict : callable
        float32 ``shape`` in 0..1, RAS order, to probabilities ``[*shape, 9]``.
    shape : sequence of three int
    net_mm : float
        The network's grid.
    threshold : float
    atlas : Atlas, optional
        Of the zones.

    Returns
    -------
    BrainMaps
    """
    to_ras = nib.io_orientation(image.affine)
    array = nib.apply_orientation(np.asarray(image.dataobj, np.float32), to_ras)
    array = np.maximum(array, 0.0)
    sizes = np.sqrt((np.asarray(image.affine)[:3, :3] ** 2).sum(0))
    # row n of the orientation says which output axis the image's axis n becomes
    mm = np.empty(3)
    mm[to_ras[:, 0].astype(int)] = sizes
    centre = _signal_centre(array, mm)
    for _ in range(2):
        field = scale_input(to_network(array, mm, shape, net_mm, centre))
        fields = np.asarray(predict(field), np.float32)
        brain = 1.0 - fields[..., Zone.BACKGROUND]
        weight = np.where(brain > threshold, brain, 0.0)
        total = float(weight.sum())
        if total * net_mm**3 < _MIN_VOLUME_MM3:
            raise DataError(
                # not its file: in a run that is an intermediate one
                f'the built-in brain mask sees {total * net_mm**3 / 1000:.0f} mL of brain: check'
                ' that it is a head scan, or give a mask of your own'
            )
        index = [
            float((weight.sum(axis=tuple(b for b in range(3) if b != a)) * np.arange(n)).sum())
            / total
            for a, n in enumerate(shape)
        ]
        maps = BrainMaps(fields, field, array.shape, mm, net_mm, centre, to_ras, threshold, atlas)
        away = [(i - (n - 1) / 2) * net_mm for i, n in zip(index, shape, strict=True)]
        if max(map(abs, away)) <= _CENTRED_MM:
            break
        centre = [c + shift for c, shift in zip(centre, away, strict=True)]
    return maps


def _extent(mask: Array) -> tuple[slice, slice, slice] | None:
    """Smallest box around a mask; None where it is empty."""
    hits = [np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    if not hits[0].size:
        return None
    x, y, z = (slice(int(h[0]), int(h[-1]) + 1) for h in hits)
    return x, y, z


def _inverse(orientation: Array) -> Array:
    """Orientation that undoes another one."""
    inverse = np.empty_like(orientation)
    for axis, (out, flip) in enumerate(orientation):
        inverse[int(out)] = (axis, flip)
    return inverse


def _signal_centre(array: Array, mm: Array) -> list[float]:
    """Middle of the box around the signal, mm from the first voxel's middle.

    Signal is what exceeds a tenth of the 99th percentile in at least one voxel in fifty of its
    plane, so that single bright voxels of the background do not count.
    """
    some = array[::2, ::2, ::2]
    signal = some > 0.1 * np.percentile(some, 99)
    centre = []
    for axis in range(3):
        share = signal.mean(axis=tuple(a for a in range(3) if a != axis))
        planes = np.flatnonzero(share > 0.02)
        middle = (planes[0] + planes[-1]) if planes.size else some.shape[axis] - 1
        centre.append(float(middle * mm[axis]))
    return centre


def _one_piece(mask: Array) -> Array:
    """Keep the largest 26-connected piece and fill what it encloses."""
    import cc3d

    largest = cc3d.largest_k(mask, k=1, connectivity=26) > 0
    box = _extent(largest)
    if box is None:
        return np.asarray(largest, bool)
    around = np.pad(~largest[box], 1, constant_values=True)
    parts = cc3d.connected_components(around, connectivity=6)
    largest[box] = (parts != parts[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return np.asarray(largest, bool)
