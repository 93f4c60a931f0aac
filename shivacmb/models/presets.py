"""The two recipes under which networks of the SHIVA family are run.

``shiva-paper`` is what Tsuchida 2024 describes, ``shivai`` is what the SHiVAi pipeline does
(0.5.9): other box, other contrast (the 99th percentile lands on 1/1.3 = 0.769), other threshold
and no minimum size. A network must be run under the recipe that it was trained with.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from shivacmb.exceptions import ModelError

_PRESETS: dict[str, dict[str, Any]] = {
    'shiva-paper': {
        'grid': {'shape': [160, 216, 176], 'voxel_mm': [1.0, 1.0, 1.0], 'orientation': 'RAS'},
        'intensity': {'percentile': 99.0, 'clip': 1.0, 'divide': 1.0, 'masked': False},
        'postprocess': {
            'threshold': 0.4,
            'min_voxels': 3,
            'connectivity': 26,
            'min_parenchyma': {},
            'outline_threshold': None,
        },
    },
    'shivai': {
        'grid': {'shape': [160, 214, 176], 'voxel_mm': [1.0, 1.0, 1.0], 'orientation': 'RAS'},
        'intensity': {'percentile': 99.0, 'clip': 1.3, 'divide': 1.3, 'masked': False},
        'postprocess': {
            'threshold': 0.5,
            'min_voxels': 1,
            'connectivity': 26,
            'min_parenchyma': {},
            'outline_threshold': None,
        },
    },
}

PRESET_NAMES = tuple(_PRESETS)


def preset(name: str) -> dict[str, Any]:
    """Return the ``grid``, ``intensity`` and ``postprocess`` of a named recipe.

    Parameters
    ----------
    name : {'shiva-paper', 'shivai'}
        Recipe.

    Returns
    -------
    dict
        A copy, in the form of ``model.json``.

    Raises
    ------
    ModelError
        The name is not known.
    """
    try:
        return deepcopy(_PRESETS[name])
    except KeyError:
        msg = f'there is no preset {name!r}; choose one of {", ".join(PRESET_NAMES)}'
        raise ModelError(msg) from None
