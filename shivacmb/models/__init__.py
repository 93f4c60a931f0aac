"""Model bundles, architectures, engines and ensembles."""

from __future__ import annotations

from shivacmb.models.bundle import (
    Bundle,
    ClassLabel,
    Fold,
    Grid,
    Input,
    Intensity,
    IntermediateForm,
    Postprocess,
)
from shivacmb.models.descriptor import load_bundle
from shivacmb.models.ensemble import (
    DEVICES,
    ENGINES,
    Ensemble,
    check_engine,
    check_gpu,
    choose_engine,
    load_ensemble,
)
from shivacmb.models.locate import find_bundle, list_bundles, user_models_dir
from shivacmb.models.presets import PRESET_NAMES, preset
from shivacmb.models.unet3d import build_unet3d
from shivacmb.models.write import write_bundle

__all__ = [
    'DEVICES',
    'ENGINES',
    'PRESET_NAMES',
    'Bundle',
    'ClassLabel',
    'Ensemble',
    'Fold',
    'Grid',
    'Input',
    'Intensity',
    'IntermediateForm',
    'Postprocess',
    'build_unet3d',
    'check_engine',
    'check_gpu',
    'choose_engine',
    'find_bundle',
    'list_bundles',
    'load_bundle',
    'load_ensemble',
    'preset',
    'user_models_dir',
    'write_bundle',
]
