"""Loading: every bad scan ends in one sentence that names the file and a remedy."""

from __future__ import annotations

import gzip
import struct
import warnings

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging import load_scan, read_grid, reorient_to_std, resample_isotropic
from shivacmb.imaging.checks import looks_like_phase


@pytest.fixture
def save(make_scan, tmp_path):
    """Write a scan, or ``values`` with its header; return the path."""

    def write(values=None, *, name='scan.nii.gz', kind=nib.Nifti1Image, **scan):
        img = make_scan(**scan)
        header = img.header
        values = np.asarray(img.dataobj) if values is None else values
        out = kind(values, img.affine, dtype=values.dtype)
        out.set_sform(img.affine, int(header['sform_code']))
        out.set_qform(img.affine, int(header['qform_code']))
        path = tmp_path / name
        raw = out.to_bytes()
        path.write_bytes(gzip.compress(raw, 1) if name.lower().endswith('.gz') else raw)
        return path

    return write


def patch(path, offset, fmt, *numbers):
    """Overwrite header fields in a .nii file byte by byte."""
    data = bytearray(path.read_bytes())
    struct.pack_into('<' + fmt, data, offset, *numbers)
    path.write_bytes(bytes(data))
    return path


def refused(path, text):
    with pytest.raises(DataError, match=text) as caught:
        load_scan(path)
    message = str(caught.value)
    assert f'<{path}>' in message
    assert '\n' not in message
    assert ';' in message or ':' in message  # the remedy follows


@pytest.mark.parametrize('name', ['scan.nii', 'scan.nii.gz', 'SCAN.NII.GZ'])
@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_a_good_scan(save, make_scan, name, kind):
    loaded = load_scan(save(name=name, kind=kind))
    want = make_scan()
    assert loaded.warnings == ()
    assert type(loaded.image) is nib.Nifti1Image
    assert loaded.image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(loaded.image.dataobj), np.asarray(want.dataobj))
    np.testing.assert_allclose(loaded.image.affine, want.affine, atol=1e-5)
    for field in ('sform_code', 'qform_code', 'pixdim'):
        np.testing.assert_array_equal(loaded.image.header[field], want.header[field])


@pytest.mark.parametrize('dtype', ['u1', 'i1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'f4', 'f8'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_types_scaling_and_byte_order(tmp_path, make_scan, dtype, order):
    affine = make_scan().affine
    values = (np.arange(44 * 55 * 44) % 120).reshape(44, 55, 44).astype(dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    img = nib.Nifti1Image(values, affine, header)
    img.header.set_slope_inter(0.25, 3)
    img.set_sform(affine, 1)
    nib.save(img, tmp_path / 'a.nii')
    want = np.asarray(nib.load(tmp_path / 'a.nii').dataobj)
    got = np.asarray(load_scan(tmp_path / 'a.nii').image.dataobj)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_one_volume_in_more_dimensions_is_squeezed(save, make_scan):
    values = np.asarray(make_scan().dataobj)[..., None, None]
    assert load_scan(save(values)).image.shape == (44, 55, 44)


def test_files_that_are_no_scan(save, tmp_path):
    refused(tmp_path / 'absent.nii.gz', 'There is no file')
    refused(tmp_path, 'is a folder')
    empty = tmp_path / 'empty.nii.gz'
    empty.touch()
    refused(empty, r'is empty \(0 bytes\)')
    empty.write_bytes(gzip.compress(b''))
    refused(empty, 'is not a NIfTI file')
    empty.write_text('participant_id\tage\n' * 99)
    refused(empty, 'is not a NIfTI file')
    empty.write_bytes(gzip.compress(b'x' * 5000))
    refused(empty, 'is not a NIfTI file')
    empty.write_text('/annex/objects/SHA256E-s9--0123.nii.gz\n')
    refused(empty, 'stands for data that are not here: fetch them')
    good = save(name='good.nii')
    pair = tmp_path / 'pair.nii'
    pair.write_bytes(good.read_bytes().replace(b'n+1\x00', b'ni1\x00', 1))
    refused(pair, 'is not a single-file NIfTI')


@pytest.mark.parametrize('name', ['cut.nii', 'cut.nii.gz'])
@pytest.mark.parametrize('share', [0.002, 0.3, 0.9, 0.9999])
def test_truncated(save, name, share):
    path = save(name=name, values=np.random.default_rng(0).random((44, 55, 44)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, 'truncated|ends within its header')


def test_a_damaged_byte_in_the_middle(save):
    path = save(values=np.random.default_rng(0).random((44, 55, 44)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    refused(path, 'truncated or damaged')


def test_unreadable(save, monkeypatch):
    path = save()

    def deny(*_, **__):
        raise PermissionError

    monkeypatch.setattr('shivacmb.imaging.source.Path.open', deny)
    refused(path, 'may not be read')


def test_not_one_volume_of_real_numbers(save):
    four = np.ones((44, 55, 44, 5), np.float32)
    refused(save(four), 'holds 5 volumes; one is needed')
    refused(save(np.ones((44, 55), np.float32)), r'is 2-D \(44 x 55 voxels\)')
    refused(save(np.ones((44, 55, 1), np.float32)), r'is 2-D \(44 x 55 x 1 voxels\)')
    refused(save(np.ones((44, 55, 44), np.complex64)), 'holds complex values')
    rgb = np.zeros((44, 55, 44), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    refused(save(rgb), 'holds RGB values')
    refused(patch(save(name='a.nii'), 70, 'h', 999), 'holds unknown type 999 values')


def test_values(save, make_scan):
    values = np.asarray(make_scan().dataobj).copy()
    refused(save(values * np.nan), 'holds no finite value')
    refused(save(values * 0 + 7), r'is constant \(every voxel is 7\)')
    part = values.copy()
    part[:3] = np.nan
    part[4, 4, 4] = np.inf
    loaded = load_scan(save(part))
    assert loaded.warnings == (f'{3 * 55 * 44 + 1} voxels were NaN or infinite and are set to 0',)
    assert not np.asarray(loaded.image.dataobj)[:3].any()
    part = values.copy()
    part[0, 0, :2] = -3
    assert load_scan(save(part)).warnings == ('2 voxels are negative (down to -3) and count as 0',)


PIXDIM, CODES, SROW = 76, 252, 280


@pytest.mark.parametrize('size', [0.0, -2.5, 0.05, 10.5, np.nan, np.inf, 2500.0])
def test_voxel_sizes(save, size):
    refused(
        patch(save(name='a.nii'), PIXDIM + 4, 'f', size), 'has voxels of .* mm; sizes from 0.1'
    )


def test_a_handedness_of_0_counts_as_1(save):
    """NIfTI-1, method 2: pixdim[0] should be 1 or -1, and 0 counts as 1."""
    path = save(name='a.nii')
    before = load_scan(path).image
    loaded = load_scan(patch(path, PIXDIM, 'f', 0.0)).image
    np.testing.assert_array_equal(loaded.affine, before.affine)
    np.testing.assert_array_equal(loaded.get_qform(), before.get_qform())


def test_orientation(save):
    path = save(name='a.nii')
    refused(patch(path, CODES, 'hh', 0, 0), 'sform and qform codes 0, so its orientation')
    path = save(name='a.nii')
    refused(patch(path, SROW, 'f', -2.5), 'opposite handedness')
    path = save(name='a.nii')
    refused(patch(path, SROW, '4f', 0, 0, 0, 0), 'has a singular sform')
    path = save(name='a.nii')
    refused(patch(path, SROW, '4f', np.nan, 0, 0, 0), 'has a singular sform')
    path = save(name='a.nii')
    refused(patch(path, SROW, 'f', 5.0), 'by its header but of 5 x 2 x 2.5 mm by its sform')
    path = save(name='a.nii')
    refused(patch(path, 256, '3f', 1, 1, 1), 'quaternion is no rotation')


def test_forms_that_differ(save):
    near = patch(save(name='a.nii'), SROW + 12, 'f', -50.05)
    assert load_scan(near).warnings == ()
    far = patch(save(name='a.nii'), SROW + 12, 'f', -53.0)
    assert load_scan(far).warnings == (
        'sform and qform differ by up to 3.0 mm; the sform is used',
    )
    one = patch(save(name='a.nii'), PIXDIM + 4, 'f', 2.6)
    assert any('header and affine differ by 3.8 %' in w for w in load_scan(one).warnings)


def test_coverage(save):
    refused(save(shape=(44, 55, 12)), 'covers 110 x 110 x 30 mm only, a slab')
    (note,) = load_scan(save(shape=(44, 55, 30))).warnings
    assert note == 'The scan covers 110 x 110 x 75 mm: parts of the brain may be missing'
    (note,) = load_scan(save(shape=(44, 55, 22), zooms=(2.5, 2.0, 5.0))).warnings
    assert note == 'Voxels are 2.5 x 2 x 5 mm: small lesions may be lost in thick slices'


def wrapped_phase(shape=(44, 55, 44), top=np.pi):
    """A smooth field wrapped to +-top inside a ball, uniform noise around it."""
    generator = np.random.default_rng(5)
    grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij')
    field = np.angle(np.exp(1j * (7 * grids[0] + 5 * grids[1] ** 2))) / np.pi * top
    noise = generator.uniform(-top, top, shape)
    return np.where(sum(g**2 for g in grids) < 0.8, field, noise)


@pytest.mark.parametrize('top', [np.pi, 4096.0])
def test_phase_is_refused(save, top):
    refused(save(wrapped_phase(top=top).astype(np.float32)), 'looks like a phase image')


def test_what_is_not_phase(make_scan):
    head = np.asarray(make_scan().dataobj, dtype=float)
    generator = np.random.default_rng(6)
    noisy = head + generator.normal(0, 20, head.shape)
    assert not looks_like_phase(head)
    assert not looks_like_phase(noisy)  # negative values after bias correction or denoising
    hounsfield = np.clip(noisy * 3 - 1024, -1024, 3071)
    assert not looks_like_phase(hounsfield)
    score = (noisy - noisy.mean()) / noisy.std()
    assert not looks_like_phase(score)
    clipped = np.clip(generator.normal(0, 0.4, head.shape), -np.pi, np.pi)
    clipped.flat[:2] = -np.pi, np.pi
    assert not looks_like_phase(clipped)  # the extremes of phase, but nothing near them
    assert looks_like_phase(wrapped_phase())


def outcome(path):
    """The message of a refusal, or the image; a warning on the way is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        try:
            return None, load_scan(path).image
        except DataError as error:
            return str(error), None


@pytest.mark.parametrize('name', ['f.nii', 'f.nii.gz'])
@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_corrupted_headers_end_in_a_data_error_or_a_scan(save, make_scan, tmp_path, name, kind):
    """150 damaged headers per format: a scan or a DataError, and no warning on the way."""
    path = save(name='seed.nii', kind=kind, shape=(25, 25, 25), zooms=(2.0, 2.0, 2.0))
    data = path.read_bytes()
    generator = np.random.default_rng(7)
    out, outcomes = tmp_path / name, {'scan': 0, 'refused': 0}
    header = 348 if kind is nib.Nifti1Image else 540
    for _ in range(150):
        bad = np.frombuffer(data, np.uint8).copy()
        where = generator.integers(0, header, generator.integers(1, 12))
        bad[where] = generator.choice([0, 1, 127, 128, 255, 65], where.size)
        out.write_bytes(gzip.compress(bad, 1) if name.endswith('.gz') else bad.tobytes())
        message, image = outcome(out)
        outcomes['refused' if message else 'scan'] += 1
        assert message is None or f'<{out}>' in message
        if image is not None:
            assert np.isfinite(np.asarray(image.dataobj)).all()
            assert np.isfinite(image.affine).all()
            grid = read_grid(out)
            assert grid.shape == image.shape
            np.testing.assert_array_equal(grid.affine, image.affine)
            resample_isotropic(reorient_to_std(image), 2.0)
    assert min(outcomes.values()) > 10, outcomes


def test_random_bytes_anywhere(save, tmp_path):
    """Damage to the compressed stream itself is found too."""
    data = save(shape=(25, 25, 25), zooms=(2.0, 2.0, 2.0)).read_bytes()
    generator = np.random.default_rng(8)
    out = tmp_path / 'g.nii.gz'
    for _ in range(100):
        bad = bytearray(data)
        bad[generator.integers(10, len(bad))] ^= int(generator.integers(1, 256))
        out.write_bytes(bytes(bad))
        with pytest.raises(DataError, match=r'truncated|damaged|NIfTI|has|holds'):
            load_scan(out)
