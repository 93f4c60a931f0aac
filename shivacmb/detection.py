"""Microbleeds of one image in memory: the same steps as the workflows, without files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import (
    SpatialChain,
    background_mask,
    centred_box,
    crop,
    is_skull_stripped,
    labels_to_input,
    load_scan,
    probability_to_input,
    reorient_to_std,
    resample_isotropic,
    same_grid,
    scale_intensity,
    uncrop,
)
from shivacmb.lesions import Lesion, find_clusters, lesion_table

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Detected:
    """What was found in one image.

    Attributes
    ----------
    lesions : tuple of Lesion
        Largest first; positions in scanner RAS mm.
    labels : Nifti1Image
        One value per lesion, on the grid of the image.
    probability : Nifti1Image
        Mean over the folds, on the grid of the image.
    """

    lesions: tuple[Lesion, ...]
    labels: nib.Nifti1Image
    probability: nib.Nifti1Image


def detect(
    image: str | Path | nib.Nifti1Image,
    mask: str | Path | nib.Nifti1Image | None = None,
    model: str | Path = 'default',
    *,
    threshold: float | None = None,
    min_voxels: int | None = None,
    threads: int | None = None,
) -> Detected:
    """Find cerebral microbleeds in one T2*-GRE or SWI image.

    Parameters
    ----------
    image : path or Nifti1Image
        3-D, any orientation and voxel size.
    mask : path or Nifti1Image, optional
        Brain mask on the same grid. Without it, the background of a skull-stripped image or the
        built-in network.
    model : str or path
        Name or folder of a model bundle.
    threshold : float, optional
        Probability from which a voxel counts; the bundle's by default.
    min_voxels : int, optional
        Smallest cluster kept, voxels of the network's grid; the bundle's by default.
    threads : int, optional
        Processor threads.

    Returns
    -------
    Detected
        Lesions, label and probability images.

    Raises
    ------
    DataError
        If the image or the mask cannot be used.
    ModelError
        If the model is incomplete, altered, or needs more than one image.
    """
    from shivacmb.models import find_bundle, load_ensemble

    bundle = find_bundle(model)
    if len(bundle.inputs) != 1:
        raise ModelError(f'model {bundle.name} needs {len(bundle.inputs)} images, not one')
    scan = _load(image)
    voxel_mm = bundle.grid.voxel_mm[0]
    standard = reorient_to_std(scan)
    iso = resample_isotropic(standard, voxel_mm)
    values = np.asarray(iso.dataobj, dtype=np.float32)
    brain = _brain(scan, iso, mask, voxel_mm, threads)
    box = centred_box(brain, bundle.grid.shape)
    chain = SpatialChain.from_images(scan, standard, voxel_mm, box)
    intensity, postprocess = bundle.intensity, bundle.postprocess
    scaled = scale_intensity(
        values,
        brain,
        percentile=intensity.percentile,
        clip=intensity.clip,
        divide=intensity.divide,
        masked=intensity.masked,
    )
    ensemble = load_ensemble(bundle, threads=threads)
    maps = ensemble.predict(crop(scaled, box)[np.newaxis, ..., np.newaxis])
    folds = bundle.foreground(maps)[:, 0, ..., 0] * crop(brain, box)
    mean = folds.mean(axis=0, dtype=np.float32)
    level = postprocess.threshold if threshold is None else threshold
    labels = find_clusters(
        mean,
        threshold=level,
        min_voxels=postprocess.min_voxels if min_voxels is None else min_voxels,
        connectivity=postprocess.connectivity,
    )
    lesions = lesion_table(
        uncrop(labels, box, iso.shape),
        uncrop(mean, box, iso.shape),
        [uncrop(fold, box, iso.shape) for fold in folds],
        iso.affine,
        brain_mask=brain,
        threshold=level,
    )
    return Detected(
        lesions=tuple(lesions),
        labels=_like(
            labels_to_input(labels, mean, chain.box_to_input, scan.shape).astype(np.uint16), scan
        ),
        probability=_like(probability_to_input(mean, chain.box_to_input, scan.shape), scan),
    )


def _load(image: str | Path | nib.Nifti1Image) -> nib.Nifti1Image:
    """Check an image the way files are checked, wherever it comes from."""
    if isinstance(image, (str, Path)):
        return load_scan(image).image
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'image.nii'
        image.to_filename(path)
        return load_scan(path).image


def _brain(
    scan: nib.Nifti1Image,
    iso: nib.Nifti1Image,
    mask: str | Path | nib.Nifti1Image | None,
    voxel_mm: float,
    threads: int | None,
) -> npt.NDArray[np.bool_]:
    """Brain mask on the isotropic grid."""
    if mask is None:
        values = np.asarray(iso.dataobj)
        if is_skull_stripped(values):
            return background_mask(values)
        from shivacmb.models.brain_mask import predict_brain

        return np.asarray(predict_brain(iso, engine='openvino', threads=threads)) > 0
    given = nib.load(mask) if isinstance(mask, (str, Path)) else mask
    if not same_grid(given, scan):
        raise DataError(f'the mask has another grid than the image: {given.shape}, {scan.shape}')
    on_scan = _like((np.asarray(given.dataobj).reshape(scan.shape) > 0).astype(np.uint8), scan)
    resampled = resample_isotropic(reorient_to_std(on_scan), voxel_mm, 'nearest')
    return np.asarray(resampled.dataobj) > 0


def _like(values: npt.NDArray[np.generic], scan: nib.Nifti1Image) -> nib.Nifti1Image:
    header = scan.header.copy()
    header.set_data_dtype(values.dtype)
    return nib.Nifti1Image(values, scan.affine, header)
