"""Microbleeds of one image in memory: the same steps as the workflows, without files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import nibabel as nib
import numpy as np

from shivacmb.exceptions import UsageError
from shivacmb.imaging import crop, labels_to_input, probability_to_input, uncrop
from shivacmb.lesions import Lesion, find_lesions
from shivacmb.preparation import name_of, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True)
class Detected:
    """What was found in one image.

    Attributes
    ----------
    lesions : tuple of Lesion
        Largest first; positions in scanner RAS mm. ``region`` is the zone of the brain, '' where
        it is not known.
    labels : Nifti1Image
        One value per lesion, on the grid of the image.
    probability : Nifti1Image
        Mean over the folds, on the grid of the image.
    left_out : int or None
        Candidates that do not count, as too little of what surrounds them is brain tissue; None
        where the zones are not known.
    """

    lesions: tuple[Lesion, ...]
    labels: nib.Nifti1Image
    probability: nib.Nifti1Image
    left_out: int | None = None


def detect(
    image: str | Path | nib.Nifti1Image,
    mask: str | Path | nib.Nifti1Image | None = None,
    model: str | Path = 'default',
    *,
    channels: Sequence[str | Path | nib.Nifti1Image] = (),
    threshold: float | None = None,
    min_voxels: int | None = None,
    min_parenchyma: float | None = None,
    contrast: Literal['T2starw', 'swi'] | None = None,
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
    channels : sequence of path or Nifti1Image
        Images on the same grid for the further channels of the model, in their order.
    threshold : float, optional
        Probability from which a voxel counts; the bundle's by default.
    min_voxels : int, optional
        Smallest cluster kept, voxels of the network's grid; the bundle's by default.
    min_parenchyma : float, optional
        Least share of a cluster's surroundings that must be brain tissue; the bundle's for the
        contrast by default.
    contrast : {'T2starw', 'swi'}, optional
        What the image shows. Without it, no rule of the bundle for one contrast applies, and
        whether the model was made for it is not checked.
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
        If the model is incomplete, altered, made for another contrast, or has another number of
        channels.
    UsageError
        If the contrast is none of the two.
    """
    from shivacmb.models import find_bundle, load_ensemble

    if contrast not in (None, 'T2starw', 'swi'):
        raise UsageError(f'contrast is T2starw or swi, not {contrast!r}')
    bundle = find_bundle(model)
    bundle.check_detects()
    bundle.check_channels(1 + len(channels))
    if contrast is not None:
        bundle.check_contrast(contrast, name_of(image))
    prepared = prepare(
        [image, *channels],
        mask,
        grid=bundle.grid,
        intensity=bundle.intensity,
        threads=threads,
        zones=True,
    )
    scan, brain, chain = prepared.scan, prepared.brain, prepared.chain
    box, postprocess = chain.placed_box, bundle.postprocess
    least = min_parenchyma
    if least is None:
        least = 0.0 if contrast is None else postprocess.parenchyma_for(contrast)
    ensemble = load_ensemble(bundle, threads=threads)
    maps = ensemble.predict(prepared.network[np.newaxis])
    folds = bundle.microbleeds(maps)[:, 0] * crop(brain, box)
    found = find_lesions(
        folds,
        to_whole=lambda array: uncrop(array, box, chain.iso_shape),
        affine=prepared.iso_affine,
        brain_mask=brain,
        zones=prepared.zones,
        threshold=postprocess.threshold if threshold is None else threshold,
        min_voxels=postprocess.min_voxels if min_voxels is None else min_voxels,
        connectivity=postprocess.connectivity,
        min_parenchyma=least,
        outline_threshold=postprocess.outline_threshold,
    )
    labels = labels_to_input(found.labels, found.mean, chain.box_to_input, scan.shape)
    probability = probability_to_input(found.mean, chain.box_to_input, scan.shape)
    return Detected(
        lesions=tuple(found.lesions),
        labels=_like(labels.astype(np.uint16), scan),
        probability=_like(probability, scan),
        left_out=found.left_out,
    )


def _like(values: npt.NDArray[np.generic], scan: nib.Nifti1Image) -> nib.Nifti1Image:
    header = scan.header.copy()
    header.set_data_dtype(values.dtype)
    return nib.Nifti1Image(values, scan.affine, header)
