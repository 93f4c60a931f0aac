"""Arrays and affines: load, reorient, resample, box, scale, and the way back.

Arrays have the voxel axes (i, j, k) of their image. Affines and maps are (4, 4) float64;
affines lead to scanner RAS mm, maps from one voxel grid to another. Nothing here knows BIDS,
nipype or a network.
"""

from __future__ import annotations

from shivacmb.imaging.back import (
    labels_to_input,
    mask_to_input,
    probability_to_input,
    zones_to_input,
)
from shivacmb.imaging.box import Box, box_affine, centred_box, crop, uncrop, voxels_outside
from shivacmb.imaging.brain import check_brain, check_mask_header, given_mask, read_mask
from shivacmb.imaging.chain import SpatialChain
from shivacmb.imaging.channels import on_grid_of, scale_channels
from shivacmb.imaging.grid import isotropic_to_std_map, std_to_input_map
from shivacmb.imaging.intensity import background_mask, is_skull_stripped, scale_intensity
from shivacmb.imaging.load import (
    LoadedScan,
    StoredVoxels,
    check_header,
    load_scan,
    read_grid,
    read_stored,
)
from shivacmb.imaging.reorient import reorient_to_std
from shivacmb.imaging.resample import resample_isotropic
from shivacmb.imaging.same import same_grid
from shivacmb.imaging.source import (
    SourceFacts,
    changed,
    disk_problem,
    read_source,
    reading_problem,
    server_problem,
)

__all__ = [
    'Box',
    'LoadedScan',
    'SourceFacts',
    'SpatialChain',
    'StoredVoxels',
    'background_mask',
    'box_affine',
    'centred_box',
    'changed',
    'check_brain',
    'check_header',
    'check_mask_header',
    'crop',
    'disk_problem',
    'given_mask',
    'is_skull_stripped',
    'isotropic_to_std_map',
    'labels_to_input',
    'load_scan',
    'mask_to_input',
    'on_grid_of',
    'probability_to_input',
    'read_grid',
    'read_mask',
    'read_source',
    'read_stored',
    'reading_problem',
    'reorient_to_std',
    'resample_isotropic',
    'same_grid',
    'scale_channels',
    'scale_intensity',
    'server_problem',
    'std_to_input_map',
    'uncrop',
    'voxels_outside',
    'zones_to_input',
]
