"""``shivacmb.detect`` and the command give the same answer."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import shivacmb
from shivacmb.exceptions import DataError, ModelError, UsageError
from shivacmb.imaging.zones import Zone
from shivacmb.lesions import lesions_to_tsv
from shivacmb.preparation import Prepared, prepare

DEMO = Path(__file__).parents[1] / 'bids_examples' / 'demo'
SCAN = DEMO / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz'


@pytest.fixture(scope='module')
def brain(tmp_path_factory: pytest.TempPathFactory) -> nib.Nifti1Image:
    """A rough mask: the test is about agreement, not about the mask."""
    scan = nib.load(SCAN)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in scan.shape), indexing='ij', sparse=True)
    inside = sum(axis**2 for axis in grid) < 0.6
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    mask = nib.Nifti1Image(inside.astype(np.uint8), scan.affine, header)
    path = tmp_path_factory.mktemp('mask') / 'mask.nii.gz'
    mask.to_filename(path)
    return nib.load(path)


@pytest.mark.parametrize('threshold', [0.2, 0.45])  # below the model's outlines, and above
def test_detect_and_the_command_agree(
    brain: nib.Nifti1Image, make_spot_bundle: Any, tmp_path: Path, threshold: float
) -> None:
    post = {'threshold': 0.4, 'min_voxels': 3, 'outline_threshold': 0.3}
    bundle = make_spot_bundle(tmp_path / 'model', postprocess=post)
    found = shivacmb.detect(
        nib.load(SCAN), mask=brain, model=bundle, threshold=threshold, threads=2,
        contrast='T2starw',
    )  # fmt: skip
    command = Path(sys.executable).with_name('shivacmb-tools')
    subprocess.run(
        [
            command, 'scan', SCAN, '-m', brain.get_filename(), '-o', tmp_path,
            '--model', bundle, '--threshold', str(threshold),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    table = tmp_path / 'sub-01_T2starw_desc-CMB_dseg.tsv'
    assert lesions_to_tsv(found.lesions) == table.read_text()
    assert len(found.lesions) > 0
    written = nib.load(tmp_path / 'sub-01_T2starw_desc-CMB_dseg.nii.gz')
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.labels.dataobj))
    np.testing.assert_array_equal(written.affine, found.labels.affine)
    assert set(np.unique(found.labels.dataobj)) == {0, *(row.index for row in found.lesions)}


def test_a_mask_on_another_grid_is_refused(brain: nib.Nifti1Image) -> None:
    moved = brain.affine.copy()
    moved[0, 3] += 5
    other = nib.Nifti1Image(np.asarray(brain.dataobj), moved)
    twice = nib.Nifti1Image(np.stack([np.asarray(brain.dataobj)] * 2, axis=3), brain.affine)
    for mask in (other, twice):
        with pytest.raises(DataError, match='another grid'):
            shivacmb.detect(SCAN, mask=mask)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match='nothing_here'):
        _ = shivacmb.nothing_here


def test_rules_of_a_contrast_need_the_contrast(
    make_head: Any, make_spot_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = {'threshold': 0.4, 'min_parenchyma': {'T2starw': 0.5}}
    bundle = make_spot_bundle(tmp_path / 'model', postprocess=post)

    def in_fluid(*args: Any, **options: Any) -> Prepared:
        found = prepare(*args, **options)
        return dataclasses.replace(found, zones=np.full(found.brain.shape, Zone.FLUID, np.uint8))

    monkeypatch.setattr('shivacmb.detection.prepare', in_fluid)
    counts = {}
    for contrast in (None, 'swi', 'T2starw'):
        found = shivacmb.detect(make_head(), model=bundle, contrast=contrast)
        counts[contrast] = (len(found.lesions), found.left_out)
    assert counts[None] == counts['swi'] == (3, 0)
    assert counts['T2starw'] == (0, 3)
    with pytest.raises(UsageError, match="contrast is T2starw or swi, not 'SWI'"):
        shivacmb.detect(make_head(), model=bundle, contrast='SWI')  # type: ignore[arg-type]


def test_a_model_for_another_contrast_is_refused(
    make_head: Any, make_spot_bundle: Any, tmp_path: Path
) -> None:
    inputs = [{'name': 't2s', 'contrasts': ['T2starw']}]
    bundle = make_spot_bundle(tmp_path / 'model', inputs=inputs)
    with pytest.raises(ModelError, match='model spots takes T2starw and an image is swi; choose'):
        shivacmb.detect(make_head(), model=bundle, contrast='swi')


def test_an_image_in_memory_keeps_its_name_and_no_message_names_another(tmp_path: Path) -> None:
    path = tmp_path / 'scan.nii'
    nib.Nifti1Image(np.ones((60, 60, 60), np.float32), np.eye(4)).to_filename(path)
    image = nib.load(path)
    with pytest.raises(DataError, match=r'^an image is constant'):
        shivacmb.detect(image)
    assert image.get_filename() == str(path)
