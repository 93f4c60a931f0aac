"""The native toolkit against files made with FSL 6.0.0: every voxel, both forms, the header."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging.grid import isotropic_to_std_map, qform_of, sform_of, std_to_input_map
from shivacmb.imaging.reorient import reorient_to_std
from shivacmb.imaging.resample import resample_isotropic

GOLDEN = Path(__file__).parents[1] / 'data' / 'fsl-golden'
NO_CODES = 'c13_no_codes'
FIELDS = (
    'dim', 'datatype', 'pixdim', 'scl_slope', 'scl_inter', 'xyzt_units', 'descrip', 'cal_min',
    'cal_max', 'sform_code', 'qform_code', 'dim_info', 'slice_start', 'slice_end', 'slice_code',
    'slice_duration', 'toffset', 'intent_code', 'intent_p1', 'intent_p2', 'intent_p3',
    'intent_name', 'aux_file',
)  # fmt: skip


def cases(suffix: str) -> list[str]:
    names = sorted(
        p.name.removesuffix(f'_{suffix}.nii.gz') for p in GOLDEN.glob(f'*_{suffix}.nii.gz')
    )
    return [name for name in names if not name.endswith('_label')]


def load(name: str) -> nib.Nifti1Image:
    return nib.load(GOLDEN / f'{name}.nii.gz')


def std(name: str, kind: str = '') -> nib.Nifti1Image:
    img = load(name + kind)
    return img if name == NO_CODES else reorient_to_std(img)


def through_disk(img: nib.Nifti1Image) -> nib.Nifti1Image:
    if img.get_filename():  # already in order: handed back as it came
        return img
    return nib.Nifti1Image.from_bytes(img.to_bytes())


def assert_same(got: nib.Nifti1Image, name: str, tolerance: float = 0.0) -> None:
    got, want = through_disk(got), load(name)
    assert got.shape == want.shape
    assert got.get_data_dtype() == want.get_data_dtype()
    a, b = np.asarray(got.dataobj.get_unscaled()), np.asarray(want.dataobj.get_unscaled())
    if tolerance:
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    else:
        assert np.count_nonzero(a != b) == 0
    np.testing.assert_allclose(sform_of(got.header), sform_of(want.header), rtol=0, atol=2e-6)
    np.testing.assert_allclose(qform_of(got.header), qform_of(want.header), rtol=0, atol=2e-6)
    for field in FIELDS:
        np.testing.assert_array_equal(got.header[field], want.header[field], err_msg=field)


def test_every_case_is_here():
    assert len(cases('iso')) == 26
    assert len(cases('isonn')) == 26
    assert len(cases('reorient')) == 25


@pytest.mark.parametrize('kind', ['', '_label'])
@pytest.mark.parametrize('name', cases('reorient'))
def test_reorient(name, kind):
    assert_same(reorient_to_std(load(name + kind)), f'{name}{kind}_reorient')


def test_reorient_refuses_an_image_without_codes():
    with pytest.raises(DataError, match=r'sform and qform codes 0, so its orientation is unknown'):
        reorient_to_std(load(NO_CODES))


@pytest.mark.parametrize('name', cases('iso'))
def test_trilinear(name):
    assert_same(resample_isotropic(std(name)), f'{name}_iso')


@pytest.mark.parametrize('name', cases('isonn'))
def test_nearest(name):
    assert_same(resample_isotropic(std(name, '_label'), 1.0, 'nearest'), f'{name}_isonn')


@pytest.mark.parametrize('name', cases('isoraw'))
def test_trilinear_without_reorientation(name):
    assert_same(resample_isotropic(load(name)), f'{name}_isoraw')


@pytest.mark.parametrize('name', cases('isomask'))
def test_masks(name):
    mask = load(f'{name}_mask')
    assert_same(resample_isotropic(mask), f'{name}_isomask')
    assert_same(resample_isotropic(mask, 1.0, 'nearest'), f'{name}_isomasknn')


@pytest.mark.parametrize('name', cases('isosinc'))
def test_sinc(name):
    assert_same(resample_isotropic(std(name), 1.0, 'sinc'), f'{name}_isosinc', tolerance=7.4e-4)


@pytest.mark.parametrize('name', cases('isospline'))
def test_spline(name):
    got = resample_isotropic(std(name), 1.0, 'spline')
    assert_same(got, f'{name}_isospline', tolerance=3.1e-5)


@pytest.mark.parametrize('name', cases('reorient'))
def test_voxel_maps_agree_with_the_forms(name):
    img = load(name)
    standard = reorient_to_std(img)
    iso = resample_isotropic(standard)
    shape, to_std = isotropic_to_std_map(standard)
    assert iso.shape == shape
    for form in (sform_of, qform_of):
        code = 'sform_code' if form is sform_of else 'qform_code'
        if int(img.header[code]) > 0:
            start = form(img.header)
            np.testing.assert_allclose(
                start @ std_to_input_map(img), form(standard.header), rtol=0, atol=5e-6
            )
            np.testing.assert_allclose(
                form(standard.header) @ to_std, form(iso.header), rtol=0, atol=5e-6
            )
