"""Arrays and affines: reorient, resample, mask, crop, scale, and the way back."""

from __future__ import annotations

from shivacmb.imaging.box import Box, centred_box, crop, uncrop, voxels_outside
from shivacmb.imaging.chain import SpatialChain
from shivacmb.imaging.check import LoadedScan, load_scan, same_grid
from shivacmb.imaging.intensity import scale_intensity
from shivacmb.imaging.native import labels_to_input, mask_to_input, probability_to_input
from shivacmb.imaging.reorient import reorient_to_std
from shivacmb.imaging.resample import resample_isotropic
from shivacmb.imaging.stripped import background_mask, is_skull_stripped

__all__ = [
    'Box',
    'LoadedScan',
    'SpatialChain',
    'background_mask',
    'centred_box',
    'crop',
    'is_skull_stripped',
    'labels_to_input',
    'load_scan',
    'mask_to_input',
    'probability_to_input',
    'reorient_to_std',
    'resample_isotropic',
    'same_grid',
    'scale_intensity',
    'uncrop',
    'voxels_outside',
]
