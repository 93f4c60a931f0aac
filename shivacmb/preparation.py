"""From images as found to what a network sees: one chain for prediction and for training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import nibabel as nib
import numpy as np

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import (
    SpatialChain,
    centred_box,
    check_brain,
    given_mask,
    load_scan,
    on_grid_of,
    read_mask,
    reorient_to_std,
    resample_isotropic,
    scale_channels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from shivacmb.models import Grid, Intensity
    from shivacmb.models.brain_mask import BrainMaps

    Image: TypeAlias = str | Path | nib.Nifti1Image


@dataclass(frozen=True)
class Prepared:
    """Images of one acquisition in the box of a network.

    Attributes
    ----------
    network : (X, Y, Z, C) float32 ndarray
        What the network sees, a channel for each image.
    brain : (X, Y, Z) bool ndarray
        The brain on the isotropic grid, not cut by the box.
    chain : SpatialChain
        The grids and the maps between them, the box placed.
    iso_affine : (4, 4) ndarray
        Isotropic voxel -> scanner RAS mm.
    scan : Nifti1Image
        The first image, checked, on its own grid.
    zones : (X, Y, Z) uint8 ndarray or None
        Zones of the brain on the isotropic grid, where they were asked for and a brain was seen.
    """

    network: npt.NDArray[np.float32]
    brain: npt.NDArray[np.bool_]
    chain: SpatialChain
    iso_affine: npt.NDArray[np.float64]
    scan: Any
    zones: npt.NDArray[np.uint8] | None = None


def prepare(
    images: Sequence[Image],
    mask: Image | None = None,
    *,
    grid: Grid,
    intensity: Intensity,
    threads: int | None = None,
    zones: bool = False,
) -> Prepared:
    """Check, reorient, resample, mask, crop and scale the images of one acquisition.

    Parameters
    ----------
    images : sequence of path or Nifti1Image
        One per channel, all on the same grid. The first places the box.
    mask : path or Nifti1Image, optional
        Brain mask on that grid. Without it, the background of a skull-stripped first image, or
        the built-in network.
    grid : Grid
        Box and voxel size of the network.
    intensity : Intensity
        How each channel is scaled, each by its own percentile in the brain.
    threads : int, optional
        Processor threads of the built-in network.
    zones : bool
        Find the zones of the brain in the first image, too.

    Returns
    -------
    Prepared
        The same numbers as in a run of the app with ``--toolkit native``.

    Raises
    ------
    DataError
        If an image or the mask cannot be used, or the images have different grids.
    """
    voxel_mm = grid.voxel_mm[0]
    scan = _load(images[0])
    standard = reorient_to_std(scan)
    iso = resample_isotropic(standard, voxel_mm)
    brain, maps = _brain(scan, iso, mask, voxel_mm, threads)
    box = centred_box(brain, grid.shape)
    isotropic = [iso]
    for image in images[1:]:
        aligned = on_grid_of(_load(image), scan, name_of(image), name_of(images[0]))
        isotropic.append(resample_isotropic(reorient_to_std(aligned), voxel_mm))
    network = scale_channels(
        [channel.dataobj for channel in isotropic],
        brain,
        box,
        names=[name_of(image) for image in images],
        percentile=intensity.percentile,
        clip=intensity.clip,
        divide=intensity.divide,
        masked=intensity.masked,
    )
    return Prepared(
        network=network,
        brain=brain,
        chain=SpatialChain.from_images(scan, standard, voxel_mm, box),
        iso_affine=np.asarray(iso.affine),
        scan=scan,
        zones=_zones(iso, brain, maps, threads) if zones else None,
    )


def name_of(image: Image) -> str:
    """Name an image for a message: its file in ``<>``, or ``an image``."""
    return f'<{image}>' if isinstance(image, (str, Path)) else 'an image'


def _load(image: Image) -> nib.Nifti1Image:
    """Check an image the way files are checked, wherever it comes from."""
    if isinstance(image, (str, Path)):
        return load_scan(image).image
    with tempfile.TemporaryDirectory() as folder:
        path, files = Path(folder) / 'image.nii', image.file_map
        try:
            image.to_filename(path)
            return load_scan(path).image
        except DataError as error:
            raise DataError(str(error).replace(f'<{path}>', name_of(image))) from error
        finally:
            # nibabel has the caller's image name the file that it was written to
            image.file_map = files


def _brain(
    scan: nib.Nifti1Image,
    iso: nib.Nifti1Image,
    mask: Image | None,
    voxel_mm: float,
    threads: int | None,
) -> tuple[npt.NDArray[np.bool_], BrainMaps | None]:
    """Brain mask on the isotropic grid, and what the network saw where it was asked."""
    source, maps = 'found in the scan', None
    if mask is not None:
        image = read_mask(Path(mask)) if isinstance(mask, (str, Path)) else mask
        source = f'<{mask}>' if isinstance(mask, (str, Path)) else 'given'
        brain = given_mask(image, scan, voxel_mm, source)
    else:
        from shivacmb.models.brain_mask import find_brain, find_mask

        brain, _, maps = find_mask(
            np.asarray(iso.dataobj),
            (voxel_mm,) * 3,
            lambda: find_brain(iso, engine='openvino', threads=threads),
        )
    check_brain(brain, voxel_mm, source)
    return brain, maps


def _zones(
    iso: nib.Nifti1Image,
    brain: npt.NDArray[np.bool_],
    maps: BrainMaps | None,
    threads: int | None,
) -> npt.NDArray[np.uint8] | None:
    """Zones in the mask; None where the network sees no brain."""
    from shivacmb.models.brain_mask import find_brain

    try:
        seen = maps or find_brain(iso, engine='openvino', threads=threads)
    except ModelError:
        # a damaged network says nothing about the scan
        raise
    except DataError:
        return None
    return np.asarray(seen.zones(brain))
