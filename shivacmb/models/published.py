"""Checksums of the weights that the authors of SHIVA-CMB published.

From ``model_info_swi-cmb-v1.json`` and ``-v2.json`` in github.com/pboutinaud/SHIVA_CMB. The v1
files are HDF5 and may hold Lambda layers; these checksums are the authors' word for them.
"""

from __future__ import annotations

PUBLISHED_MD5 = frozenset(
    {
        # v1, Unet3Dv2-10.7.2-1.8, HDF5 files
        'cc5e9c4a75796020e63d54a9fb584abb',
        '358e3bce66fe9e502862abf43e4bfb1f',
        'da32ad7ebd2f3944449009df27c81147',
        # v2, ResUnet3D-8.9.2-1.5, SavedModel folders
        'a5ae990416b0149097e1698e2e28b00a',
        '23fd23c83a9b30fe6dab7bef5f3277ce',
        '667370eb8997718b4a8cd9e89d6c1bdd',
    }
)
