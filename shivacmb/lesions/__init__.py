"""Clusters of voxels to lesions, and lesions to tables."""

from __future__ import annotations

from shivacmb.lesions.clusters import find_clusters, grow_clusters
from shivacmb.lesions.find import FoundLesions, find_lesions
from shivacmb.lesions.measure import Lesion, lesion_table
from shivacmb.lesions.regions import group_counts, with_regions
from shivacmb.lesions.surroundings import parenchyma, parenchyma_fractions
from shivacmb.lesions.table import (
    LESION_COLUMNS,
    Totals,
    burden_class,
    lesion_totals,
    lesions_to_tsv,
    read_lesions,
)

__all__ = [
    'LESION_COLUMNS',
    'FoundLesions',
    'Lesion',
    'Totals',
    'burden_class',
    'find_clusters',
    'find_lesions',
    'group_counts',
    'grow_clusters',
    'lesion_table',
    'lesion_totals',
    'lesions_to_tsv',
    'parenchyma',
    'parenchyma_fractions',
    'read_lesions',
    'with_regions',
]
