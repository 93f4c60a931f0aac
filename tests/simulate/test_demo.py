from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.simulate.demo import SCANS, DemoScan, main, write_scan

DEMO = Path(__file__).parents[2] / 'bids_examples' / 'demo'


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_the_dataset_is_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob('*') if path.is_file()) < 3e6


@pytest.mark.parametrize('demo', SCANS, ids=lambda demo: demo.participant)
def test_image_mask_and_lesions_share_one_grid(demo: DemoScan) -> None:
    truth = DEMO / 'derivatives' / 'truth' / demo.folder
    image = nib.load(DEMO / demo.folder / f'{demo.stem}_{demo.suffix}.nii.gz')
    labels = nib.load(truth / f'{demo.stem}_desc-CMB_dseg.nii.gz')
    mask = nib.load(truth / f'{demo.stem}_desc-brain_mask.nii.gz')
    assert ''.join(nib.aff2axcodes(image.affine)) == demo.orientation
    assert image.get_data_dtype() == np.int16
    for other in (labels, mask):
        assert other.shape == image.shape
        np.testing.assert_allclose(other.affine, image.affine)
    np.testing.assert_allclose(
        np.sort(image.header.get_zooms()), np.sort(demo.acquisition.voxel_mm), atol=1e-5
    )


@pytest.mark.parametrize('demo', SCANS, ids=lambda demo: demo.participant)
def test_the_table_says_where_the_lesions_are(demo: DemoScan) -> None:
    truth = DEMO / 'derivatives' / 'truth' / demo.folder
    labels = nib.load(truth / f'{demo.stem}_desc-CMB_dseg.nii.gz')
    array = np.asarray(labels.dataobj)
    table = rows(truth / f'{demo.stem}_desc-CMB_dseg.tsv')
    assert len(table) == demo.lesions == array.max()
    for row in table:
        middle = np.argwhere(array == int(row['index'])).mean(axis=0)
        found = nib.affines.apply_affine(labels.affine, middle)
        stated = [float(row[axis]) for axis in 'xyz']
        assert np.linalg.norm(found - stated) < 2.5
        assert (array == int(row['index'])).sum() * np.prod(
            demo.acquisition.voxel_mm
        ) == pytest.approx(float(row['volume_mm3']), abs=0.1)


def test_participants_have_the_stated_number_of_lesions() -> None:
    stated = {
        row['participant_id']: int(row['lesions']) for row in rows(DEMO / 'participants.tsv')
    }
    assert stated == {f'sub-{demo.participant}': demo.lesions for demo in SCANS}
    assert 0 in stated.values()


@pytest.mark.slow
def test_a_run_writes_the_dataset_and_a_second_scan_the_same_bytes(tmp_path: Path) -> None:
    assert main(['-o', str(tmp_path / 'one')]) == 0
    files = sorted(p.relative_to(tmp_path / 'one') for p in (tmp_path / 'one').rglob('*.*'))
    assert files == sorted(p.relative_to(DEMO) for p in DEMO.rglob('*.*'))
    # one alone, with lesions, after the others
    write_scan(tmp_path / 'two', SCANS[0])
    again = [p for p in (tmp_path / 'two').rglob('*.*') if p.is_file()]
    assert len(again) == 6
    for file in again:
        other = tmp_path / 'one' / file.relative_to(tmp_path / 'two')
        assert file.read_bytes() == other.read_bytes()


def test_kinds_of_mimics_are_those_that_the_simulator_draws() -> None:
    kinds = {row['kind'] for path in DEMO.rglob('*_desc-mimics_dseg.tsv') for row in rows(path)}
    assert {'calcification_pineal', 'iron_pallidum', 'perivascular_space'} <= kinds
    # where a calcification lies is part of its name: what has no place is none
    assert 'calcification' not in kinds
