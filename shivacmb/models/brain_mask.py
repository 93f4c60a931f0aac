"""The built-in brain mask: a small network on a coarse grid, for any contrast."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import DataError, ModelError
from shivacmb.models.brain_grid import from_network, scale_input, to_network
from shivacmb.models.descriptor import load_bundle
from shivacmb.models.ensemble import load_ensemble
from shivacmb.models.locate import find_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shivacmb.models.bundle import Bundle
    from shivacmb.models.ensemble import Ensemble

Array = NDArray[Any]

#: The bundle that ships with the package.
BUILTIN = 'brain-mask'
_MIN_VOLUME_MM3 = 1e5


def predict_brain(
    image: nib.Nifti1Image,
    bundle: Bundle | Path | str = BUILTIN,
    *,
    engine: str = 'auto',
    threads: int | None = None,
    predict: Callable[[Array], Array] | None = None,
) -> Array:
    """Find the brain in a head scan.

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
        probability. By default the network is loaded in this process, once.

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
        1 in the brain, on the grid of ``image``: one 26-connected piece without holes.

    Raises
    ------
    DataError
        When no brain of at least 100 mL is seen.
    ModelError
        When the bundle is missing, altered or made for something else.
    """
    found = find_bundle(bundle) if isinstance(bundle, (str, Path)) else bundle
    if found.target != 'brain':
        msg = (
            f'model {found.name!r} in <{found.path}> finds {found.target!r}, not brains; take'
            f' {BUILTIN!r} or another bundle whose "target" is "brain"'
        )
        raise ModelError(msg)
    if predict is None:
        ensemble = _ensemble(found.path, engine, threads)

        def predict(field: Array) -> Array:
            maps = found.target_map(ensemble.predict(field[None, ..., None]))
            return np.asarray(maps[:, 0].mean(axis=0))

    return brain_from(
        image,
        predict,
        found.grid.shape,
        found.grid.voxel_mm[0],
        threshold=found.postprocess.threshold,
    )


@lru_cache(maxsize=1)
def _ensemble(path: Path, engine: str, threads: int | None) -> Ensemble:
    """Load once per process: a worker masks many scans."""
    return load_ensemble(load_bundle(path), engine=engine, threads=threads)


def brain_from(
    image: nib.Nifti1Image,
    predict: Callable[[Array], Array],
    shape: Sequence[int],
    net_mm: float,
    threshold: float = 0.5,
) -> Array:
    """Find the brain with any predictor; see :func:`predict_brain`.

    Two passes: the first with the network's grid on the middle of the scan's signal, the second
    on the middle of the brain that the first saw.

    Parameters
    ----------
    image : nibabel.Nifti1Image
    predict : callable
        float32 ``shape`` in 0..1, RAS order, to probability ``shape``.
    shape : sequence of three int
    net_mm : float
        The network's grid.
    threshold : float

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
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
        coarse = np.asarray(predict(field), np.float32)
        weight = np.where(coarse > threshold, coarse, 0.0)
        total = float(weight.sum())
        if total * net_mm**3 < _MIN_VOLUME_MM3:
            raise DataError(
                f'the built-in brain mask sees {total * net_mm**3 / 1000:.0f} mL of brain in'
                f' <{image.get_filename() or "an image"}>: check that it is a head scan, or give'
                ' a mask of your own'
            )
        index = [
            float((weight.sum(axis=tuple(b for b in range(3) if b != a)) * np.arange(n)).sum())
            / total
            for a, n in enumerate(shape)
        ]
        last = centre
        centre = [
            c + (i - (n - 1) / 2) * net_mm for c, i, n in zip(centre, index, shape, strict=True)
        ]
    mask = _one_piece(from_network(coarse, array.shape, mm, net_mm, last) > threshold)
    return np.ascontiguousarray(nib.apply_orientation(mask, _inverse(to_ras)), np.uint8)


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
    hits = [
        np.flatnonzero(largest.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)
    ]
    if not hits[0].size:
        return np.asarray(largest, bool)
    box = tuple(slice(int(h[0]), int(h[-1]) + 1) for h in hits)
    around = np.pad(~largest[box], 1, constant_values=True)
    parts = cc3d.connected_components(around, connectivity=6)
    largest[box] = (parts != parts[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return np.asarray(largest, bool)
