"""The card of the shipped model: what it is, what it learnt from, what it may be used for."""

from __future__ import annotations

from typing import Any

from shivacmb.train.loop import ARCHITECTURE
from shivacmb.train.pool import BOX

DESCRIPTION = (
    'Small 3-D U-Nets (713 000 parameters each) for cerebral microbleeds on T2*-GRE and SWI. '
    'Trained on simulated heads and simulated lesions only: never shown a scan of a person, and '
    'never shown the lesion of a patient. It is there for the app to work out of the box.'
)
#: Lesions end at this share of the threshold that finds them (docs/decisions/0126).
OUTLINE = 0.5
INTENDED_USE = (
    'Research use only: trying the app, tests, teaching. Not validated on patients; do not report '
    'its counts as findings. Use a model trained on labelled scans for studies.'
)


def metadata(
    *,
    version: str,
    threshold: float,
    min_voxels: int,
    min_parenchyma: dict[str, float],
    training: dict[str, Any],
    metrics: dict[str, Any],
    shape: tuple[int, int, int] = BOX,
) -> dict[str, Any]:
    """Content of ``model.json`` without its folds.

    Parameters
    ----------
    version : str
        Of the bundle.
    threshold, min_voxels, min_parenchyma : float, int, dict
        Operating point.
    training, metrics : dict
        What was done, what was measured.
    shape : tuple of three int
        Of the networks' input, in voxels of 1 mm.

    Returns
    -------
    dict
        For :func:`shivacmb.models.write_bundle`.
    """
    return {
        'name': 'synth-cmb',
        'version': version,
        'description': DESCRIPTION,
        'license': 'Apache-2.0',
        'citation': '',
        'url': '',
        'intended_use': INTENDED_USE,
        'training': training,
        'metrics': metrics,
        'architecture': {'family': 'unet3d', **ARCHITECTURE},
        'inputs': [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}],
        'grid': {'shape': list(shape), 'voxel_mm': [1.0, 1.0, 1.0], 'orientation': 'RAS'},
        'intensity': {'percentile': 99.0, 'clip': 1.0, 'divide': 1.0, 'masked': False},
        'classes': [{'value': 1, 'name': 'CMB'}],
        'postprocess': {
            'threshold': threshold,
            'min_voxels': min_voxels,
            'connectivity': 26,
            'min_parenchyma': min_parenchyma,
            'outline_threshold': round(OUTLINE * threshold, 4),
        },
    }
