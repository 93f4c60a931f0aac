"""Brain masks that are given."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging import (
    check_brain,
    check_mask_header,
    given_mask,
    read_mask,
    reorient_to_std,
    resample_isotropic,
)


@pytest.mark.parametrize(('litres', 'fits'), [(0.099, False), (0.101, True)])
def test_brain_of_less_than_a_tenth_of_a_litre_is_refused(*, litres: float, fits: bool) -> None:
    mask = np.zeros((60, 60, 60), bool)
    mask.flat[: round(litres * 1e6)] = True
    if fits:
        check_brain(mask, 1.0, 'bet')
    else:
        with pytest.raises(DataError, match=r'\(bet\) covers only 99 mL; look at the scan'):
            check_brain(mask, 1.0, 'bet')


def _scan() -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.ones((12, 10, 8), np.float32), np.diag([-1, 1, 2, 1]))
    image.set_sform(image.affine, 1)
    return image


def test_mask_follows_its_scan_onto_the_isotropic_grid() -> None:
    scan = _scan()
    values = np.zeros(scan.shape, np.uint8)
    values[3, 4, 2] = 1
    brain = given_mask(nib.Nifti1Image(values, scan.affine), scan, 1.0, 'm')
    iso = resample_isotropic(reorient_to_std(scan))
    assert brain.shape == iso.shape
    positions = nib.affines.apply_affine(iso.affine, np.argwhere(brain))
    np.testing.assert_allclose(positions.mean(axis=0), (scan.affine @ [3, 4, 2, 1])[:3], atol=0.51)


def test_mask_on_another_grid_is_refused() -> None:
    scan = _scan()
    other = nib.Nifti1Image(np.ones(scan.shape, np.uint8), np.eye(4))
    with pytest.raises(DataError, match='the brain mask m has another grid than its scan'):
        given_mask(other, scan, 1.0, 'm')


def test_mask_of_several_volumes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'mask.nii.gz'
    nib.Nifti1Image(np.ones((4, 4, 4, 2), np.uint8), np.eye(4)).to_filename(path)
    with pytest.raises(DataError, match='is not one 3-D volume'):
        read_mask(path)


def test_mask_with_one_volume_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'mask.nii.gz'
    nib.Nifti1Image(np.ones((4, 4, 4, 1), np.uint8), np.eye(4)).to_filename(path)
    assert read_mask(path).shape == (4, 4, 4)


@pytest.mark.parametrize('dtype', [np.int64, np.uint64, np.float64, np.int8])
def test_mask_of_any_numbers_is_read(tmp_path: Path, dtype: type[np.generic]) -> None:
    path, values = tmp_path / 'mask.nii.gz', np.zeros((4, 4, 4), dtype)
    values[1:3] = 2
    nib.Nifti1Image(values, np.eye(4), dtype=dtype).to_filename(path)
    np.testing.assert_array_equal(np.asarray(read_mask(path).dataobj), values // 2)


@pytest.mark.parametrize('dtype', [[('R', 'u1'), ('G', 'u1'), ('B', 'u1')], np.complex64])
def test_mask_of_colours_is_refused(tmp_path: Path, dtype: Any) -> None:
    scan, path = _scan(), tmp_path / 'mask.nii.gz'
    nib.Nifti1Image(np.zeros(scan.shape, dtype), scan.affine).to_filename(path)
    with pytest.raises(DataError, match='holds colours or complex values'):
        read_mask(path)
    with pytest.raises(DataError, match='holds colours or complex values'):
        check_mask_header(path, scan)


def test_broken_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'mask.nii.gz'
    path.write_bytes(b'nothing')
    with pytest.raises(DataError, match='cannot be read'):
        read_mask(path)


def test_mask_that_was_not_fetched_is_to_be_fetched(tmp_path: Path) -> None:
    path = tmp_path / 'mask.nii.gz'
    path.write_text('/annex/objects/MD5E-s9--0123.nii.gz\n')
    for read in (read_mask, lambda path: check_mask_header(path, _scan())):
        with pytest.raises(DataError, match=r'mask\.nii\.gz> stands for data that are not here'):
            read(path)


def test_a_header_alone_tells_of_another_grid(tmp_path: Path) -> None:
    scan, path = _scan(), tmp_path / 'mask.nii.gz'
    nib.Nifti1Image(np.ones((*scan.shape, 1), np.uint8), scan.affine).to_filename(path)
    check_mask_header(path, scan)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:400]))
    check_mask_header(path, scan)
    path.write_bytes(gzip.compress(whole[:300]))
    with pytest.raises(DataError, match='cannot be read'):
        check_mask_header(path, scan)
    nib.Nifti1Image(np.ones(scan.shape, np.uint8), np.eye(4)).to_filename(path)
    with pytest.raises(DataError, match=rf'the brain mask <{path}> has another grid'):
        check_mask_header(path, scan)


def test_a_surface_is_no_mask(tmp_path: Path) -> None:
    path = tmp_path / 'mask.gii'
    points = nib.gifti.GiftiDataArray(np.zeros((3, 3), np.float32))
    nib.GiftiImage(darrays=[points]).to_filename(path)
    with pytest.raises(DataError, match='cannot be read'):
        read_mask(path)
    with pytest.raises(DataError, match='cannot be read'):
        check_mask_header(path, _scan())
