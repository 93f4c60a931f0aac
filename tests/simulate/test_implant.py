from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import find_scans
from shivacmb.exceptions import DataError, NoInputError, UsageError
from shivacmb.simulate.implant import (
    Host,
    draw_lesions,
    draw_positions,
    field_direction,
    implant,
    noise_level,
    room,
)
from shivacmb.simulate.implant_dataset import (
    ImplantOrder,
    check_folders,
    implant_dataset,
    scan_stream,
)
from shivacmb.simulate.implant_files import load_host, write_like
from shivacmb.simulate.implant_phase import phase_path, phase_scale
from shivacmb.simulate.lesions import Protocol, lesion_signal, phase_reach

pytestmark = pytest.mark.usefixtures('all_white_matter')


def host(phase: bool = False, noise: float = 10.0, sign: int = 1) -> Host:
    rng = np.random.default_rng(0)
    axes = [np.arange(n) - n / 2 for n in (48, 52, 26)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    brain = (x / 20) ** 2 + (y / 22) ** 2 + (2 * z / 20) ** 2 < 1
    magnitude = np.where(brain, 500.0, 0.0)
    magnitude = np.abs(magnitude + noise * rng.normal(size=x.shape)
                       + 1j * noise * rng.normal(size=x.shape)).astype(np.float32)  # fmt: skip
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = [-24, -26, -26]
    turned = (0.01 * x).astype(np.float32) if phase else None
    return Host(magnitude, affine, brain, Protocol(3.0, 0.02), turned, sign)


def lesions_in(scan: Host, count: int = 3, chi: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(1)
    places = draw_positions(rng, scan, room(scan), count, apart_mm=12.0)
    return draw_lesions(rng, scan, *places, radius_mm=(2.0, 2.5), chi_ppm=(chi, chi))


def test_the_field_runs_along_scanner_z_whatever_the_axes() -> None:
    assert field_direction(np.diag([2.0, 2.0, 3.0, 1.0])) == pytest.approx((0, 0, 1))
    sagittal = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    assert field_direction(sagittal) == pytest.approx((0, -1, 0))


def test_noise_is_measured_within_the_brain() -> None:
    scan = host(noise=10.0)
    assert noise_level(scan.magnitude, scan.brain) == pytest.approx(10.0, rel=0.1)


def test_positions_lie_in_the_room_and_apart() -> None:
    scan = host()
    free = room(scan)
    spots, zones = draw_positions(np.random.default_rng(2), scan, free, 6, apart_mm=10.0)
    assert len(spots) >= 4
    assert zones == ['brain'] * len(spots)
    voxels = np.rint(spots / scan.voxel_mm).astype(int)
    assert scan.brain[tuple(voxels.T)].all()
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)
    assert gaps[np.triu_indices(len(spots), 1)].min() > 8.5


def test_fluid_and_vessels_are_no_room() -> None:
    scan = host()
    scan.magnitude[20:28, 22:30, 10:16] = 1500
    assert not room(scan)[22:26, 24:28, 12:14].any()
    with pytest.raises(DataError, match='hold a lesion'):
        room(Host(scan.magnitude, scan.affine, np.zeros_like(scan.brain), scan.protocol))


def test_lesions_lie_in_the_tissue_of_their_zones() -> None:
    scan = host()
    zones = np.where(scan.brain, 22, 0).astype(np.uint8)
    zones[:, :20] = np.where(scan.brain, 11, 0)[:, :20]
    # deep in a pool everything is as bright as its surroundings
    pool = scan.magnitude.copy()
    pool[:, 26:] = 1500
    assert room(replace(scan, magnitude=pool))[24, 40, 13]
    fluid = zones.copy()
    fluid[:, 26:] = 7
    known = replace(scan, magnitude=pool, zones=fluid)
    assert not room(known)[:, 26:].any()
    # fluid that the zones take for tissue is still much brighter than that
    scan.magnitude[:, 26:34] = 1500
    fluid = zones.copy()
    fluid[:, 26:33] = 7
    known = replace(scan, zones=fluid)
    free = room(known)
    assert not free[:, 26:34].any()
    assert free[24, 38, 13]
    spots, names = draw_positions(np.random.default_rng(2), known, free, 12, apart_mm=5.0)
    voxels = np.rint(spots / scan.voxel_mm).astype(int)
    assert set(names) == {'cortex', 'white_matter'}
    assert (np.array(names) == 'cortex').tolist() == (voxels[:, 1] < 20).tolist()
    lesions = draw_lesions(np.random.default_rng(2), known, spots, names)
    assert [lesion.zone for lesion in lesions] == names


def test_lesions_darken_their_boxes_and_nothing_else() -> None:
    scan = host()
    before = scan.magnitude.copy()
    new = implant(np.random.default_rng(3), scan, lesions_in(scan))
    np.testing.assert_array_equal(scan.magnitude, before)
    changed = np.zeros(scan.shape, bool)
    for box in new.boxes:
        changed[box] = True
    np.testing.assert_array_equal(new.magnitude[~changed], before[~changed])
    assert set(np.unique(new.labels)) == {0, 1, 2, 3}
    for number in (1, 2, 3):
        where = new.labels == number
        assert new.magnitude[where].mean() < 0.6 * before[where].mean()


def test_noise_stays_where_the_signal_goes() -> None:
    scan = host(noise=20.0)
    strong = lesions_in(scan, 3, chi=2.4)
    levels = []
    for seed in range(12):
        new = implant(np.random.default_rng(seed), scan, strong)
        core = new.magnitude[new.labels > 0]
        levels.append(core[core < 0.15 * 500])
    # Rician background of that noise: mean 1.25, deviation 0.66 of it; a bare product gives 0
    assert np.concatenate(levels).mean() > 15


def test_phase_changes_with_the_sign_of_the_convention() -> None:
    turned = []
    for sign in (1, -1):
        scan = host(phase=True, noise=0.0, sign=sign)
        new = implant(np.random.default_rng(3), scan, lesions_in(scan, 1))
        turned.append(np.angle(np.exp(1j * (new.phase - scan.phase))))
    np.testing.assert_allclose(turned[0], -turned[1], atol=1e-4)
    assert np.abs(turned[0]).max() > 0.5


@pytest.mark.parametrize(
    ('low', 'high', 'one', 'expected'),
    [(-3.14, 3.14, 1.0, 1.0), (-4096, 4094, 2048, np.pi / 2), (0, 4095, 3072, np.pi / 2),
     (0, 6.28, 3.0, 3.0 - np.pi), (-3142, 3141, 1500, 1.5), (0, 6283, 1500, 1.5 - np.pi),
     (-180, 179, 90, np.pi / 2), (0, 359, 90, -np.pi / 2),
      (-4000, 4090, 4096, np.pi), (-2047, 2047, 1024, np.pi / 2)],
)  # fmt: skip
def test_stored_phase_becomes_rad(low: float, high: float, one: float, expected: float) -> None:
    factor, summand = phase_scale(low, high)
    assert one * factor + summand == pytest.approx(expected)


def test_phase_is_found_by_its_name(tmp_path: Path) -> None:
    for name in ('sub-1_part-phase_T2starw.nii.gz', 'sub-2_echo-1_part-phase_MEGRE.nii'):
        (tmp_path / name).touch()
    assert phase_path(tmp_path / 'sub-1_T2starw.nii.gz').name == 'sub-1_part-phase_T2starw.nii.gz'
    assert phase_path(tmp_path / 'sub-2_echo-1_part-mag_MEGRE.nii') is not None
    assert phase_path(tmp_path / 'sub-3_T2starw.nii.gz') is None


@pytest.mark.parametrize('dtype', [np.int16, np.uint16, np.float32, '>i2'])
@pytest.mark.parametrize('slope', [1.0, 0.5])
def test_only_the_boxes_of_a_file_change(tmp_path: Path, dtype: Any, slope: float) -> None:
    values = np.random.default_rng(0).integers(0, 900, (6, 7, 5)).astype(dtype)
    header = nib.Nifti1Header(endianness='>' if dtype == '>i2' else '<')
    image = nib.Nifti1Image(values, np.diag([1, 2, 3, 1]), header)
    image.header.set_slope_inter(slope, 0)
    image.header['descrip'] = b'keep me'
    source, target = tmp_path / 'a.nii', tmp_path / 'b.nii.gz'
    image.to_filename(source)
    before = np.asarray(nib.load(source).dataobj, np.float32)
    new = before * 2
    box = (slice(1, 3), slice(2, 4), slice(0, 2))
    write_like(source, target, new, [box])
    old, fresh = source.read_bytes(), gzip.decompress(target.read_bytes())
    assert len(old) == len(fresh)
    assert old[:352] == fresh[:352]
    after = np.asarray(nib.load(target).dataobj, np.float32)
    changed = np.zeros(values.shape, bool)
    changed[box] = True
    np.testing.assert_array_equal(after[~changed], before[~changed])
    np.testing.assert_allclose(after[box], new[box], atol=0.5 * slope)


def dataset(root: Path, *, phase: bool = False, sidecar: bool = True) -> Path:
    scan = host(phase=phase)
    folder = root / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / 'participants.tsv').write_text('participant_id\tage\nsub-01\t70\nsub-09\t60\n')
    image = nib.Nifti1Image(scan.magnitude.astype(np.int16), scan.affine)
    image.set_sform(scan.affine, 1)
    image.set_qform(scan.affine, 1)
    image.to_filename(folder / 'sub-01_T2starw.nii.gz')
    if sidecar:
        (folder / 'sub-01_T2starw.json').write_text(
            json.dumps({'EchoTime': 0.025, 'MagneticFieldStrength': 1.5})
        )
    if phase:
        stored = np.rint(scan.phase / np.pi * 4096).astype(np.int16)
        stored[0, 0, 0], stored[0, 0, 1] = -4096, 4095
        nib.Nifti1Image(stored, image.affine).to_filename(
            folder / 'sub-01_part-phase_T2starw.nii.gz'
        )
    masks = root / 'derivatives' / 'masks' / 'sub-01' / 'anat'
    masks.mkdir(parents=True)
    nib.Nifti1Image(scan.brain.astype(np.uint8), image.affine).to_filename(
        masks / 'sub-01_desc-brain_mask.nii.gz'
    )
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def test_a_dataset_is_copied_with_lesions_and_truth(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    before = snapshot(bids)
    masks = {'masks': bids / 'derivatives' / 'masks'}
    order = ImplantOrder(seed=1, lesions=(3, 3), radius_mm=(2.0, 2.5), chi_ppm=(1.0, 1.0))
    done = implant_dataset(bids, out, order, derivatives=masks)
    assert done == (['sub-01'], {}, [])
    assert snapshot(bids) == before
    old = nib.load(bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz')
    new = nib.load(out / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz')
    changed = np.asarray(old.dataobj) != np.asarray(new.dataobj)
    assert 0 < changed.mean() < 0.5
    truth = out / 'derivatives/truth/sub-01/anat'
    labels = np.asarray(nib.load(truth / 'sub-01_desc-CMB_dseg.nii.gz').dataobj)
    assert labels.max() == 3
    facts = json.loads((truth / 'sub-01_desc-CMB_dseg.json').read_text())
    assert (facts['EchoTime'], facts['FieldStrength']) == (0.025, 1.5)
    assert 'median of the brain in scans of people' in facts['peak_drop']['Description']
    people = (out / 'participants.tsv').read_text()
    assert 'sub-01' in people
    assert 'sub-09' not in people
    # again: nothing to do; other settings: refused
    first = snapshot(out)
    assert implant_dataset(bids, out, order, derivatives=masks) == ([], {}, ['sub-01'])
    assert snapshot(out) == first
    with pytest.raises(UsageError, match=r'other settings \(seed'):
        implant_dataset(bids, out, ImplantOrder(seed=2), derivatives=masks)
    implant_dataset(bids, tmp_path / 'twin', order, derivatives=masks)
    assert snapshot(tmp_path / 'twin') == first


def test_silent_sidecars_are_told(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids', sidecar=False)
    scan = find_scans(bids).scans[0]
    found = load_host(scan, derivatives={'masks': bids / 'derivatives/masks'})
    assert found.host.protocol.echo_s == 0.020
    assert any('no EchoTime' in note for note in found.notes)
    assert any('no MagneticFieldStrength' in note for note in found.notes)


def phase_of(bids: Path, values: Any, **sidecar: Any) -> tuple[Path, np.ndarray]:
    """Give the scan of a dataset another phase with a sidecar of its own."""
    path = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    image = nib.load(path)
    nib.Nifti1Image(np.asarray(values, np.float32), image.affine).to_filename(path)
    if sidecar:
        (path.parent / 'sub-01_part-phase_T2starw.json').write_text(json.dumps(sidecar))
    return path, np.asarray(values, np.float32)


@pytest.mark.parametrize('span', [1.0, 8.0])
def test_phase_in_rad_is_taken_as_it_is(tmp_path: Path, span: float) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    ramp = np.broadcast_to(np.linspace(-span, span, 48)[:, None, None], host().shape)
    path, stored = phase_of(bids, ramp, Units='rad', ImageType=['P'])
    masks = {'masks': bids / 'derivatives/masks'}
    found = load_host(find_scans(bids).scans[0], derivatives=masks)
    np.testing.assert_array_equal(found.host.phase, stored)
    assert found.notes == ()
    order = ImplantOrder(lesions=(2, 2), radius_mm=(2.0, 2.5), chi_ppm=(1.0, 1.0))
    implant_dataset(bids, out, order, derivatives=masks)
    new = nib.load(out / path.relative_to(bids)).get_fdata()
    # whole turns are those of the file
    most = np.pi + (span if span < np.pi else 0.01)
    assert 0 < np.abs(new - stored).max() < most
    sidecar = json.loads((out / 'sub-01/anat/sub-01_part-phase_T2starw.json').read_text())
    # its own fields, and what it inherits
    assert sidecar == {
        'Units': 'rad', 'ImageType': ['P'], 'EchoTime': 0.025, 'MagneticFieldStrength': 1.5,
    }  # fmt: skip
    beside = json.loads((out / 'sub-01/anat/sub-01_T2starw.json').read_text())
    assert 'ImageType' not in beside


@pytest.mark.parametrize(('sidecar', 'units'), [({}, 'arbitrary'), ({'Units': 'a.u.'}, 'a.u.')])
def test_a_guessed_unit_of_the_phase_is_told(
    tmp_path: Path, sidecar: dict[str, str], units: str
) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    phase_of(bids, np.linspace(-4096, 4095, 48)[:, None, None] * np.ones((1, 52, 26)), **sidecar)
    said: list[str] = []
    implant_dataset(
        bids, out, ImplantOrder(lesions=(1, 1)),
        derivatives={'masks': bids / 'derivatives/masks'}, say=said.append,
    )  # fmt: skip
    assert len(said) == 1
    assert 'stored values of -4096 to 4095 were taken for rad after times 0.00076699' in said[0]
    written = json.loads((out / 'sub-01/anat/sub-01_part-phase_T2starw.json').read_text())
    assert written['Units'] == units
    assert 'times 0.00076699' in written['UnitsGuessed']


@pytest.mark.parametrize(
    ('options', 'message'),
    [({'chi_ppm': (0.0, 1.0)}, 'susceptibility in ppm 0-1: .* between 0.01 and 10'),
     ({'radius_mm': (0.0, 0.0)}, 'radius in mm 0-0: .* between 0.2 and 10'),
     ({'lesions': (0, 70000)}, 'lesions 0-70000: .* between 0 and 120'),
     ({'lesion_free': 1.5}, 'lesion-free subjects, 1.5')],
)  # fmt: skip
def test_impossible_orders_are_refused_before_anything_is_begun(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ImplantOrder(**options)


def test_a_phase_on_another_grid_stops_that_scan_only(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_filename(
        bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    )
    said: list[str] = []
    made, failures, _ = implant_dataset(
        bids, tmp_path / 'out', ImplantOrder(lesions=(1, 1)),
        derivatives={'masks': bids / 'derivatives/masks'}, say=said.append,
    )  # fmt: skip
    assert made == []
    assert 'another grid than its magnitude' in str(failures['sub-01'])
    assert len(said) == 1
    assert not list((tmp_path / 'out').glob('sub-*'))


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    mask = bids / 'derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(mask)
    with pytest.raises(DataError, match='resample it to the scan'):
        load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})


def test_scans_are_never_written_into(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    for out in (bids, bids / 'new', tmp_path):
        with pytest.raises(UsageError, match='so that the scans stay as they are'):
            check_folders(bids, out)
    check_folders(bids, bids / 'derivatives' / 'lesions')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').touch()
    with pytest.raises(UsageError, match='is not empty'):
        implant_dataset(bids, tmp_path / 'full', ImplantOrder())
    empty = tmp_path / 'empty'
    (empty / 'sub-1').mkdir(parents=True)
    (empty / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    with pytest.raises(NoInputError, match='no T2'):
        implant_dataset(empty, tmp_path / 'out', ImplantOrder())


ORDER = ImplantOrder(seed=1, lesions=(2, 2), radius_mm=(2.0, 2.5), chi_ppm=(1.0, 1.0))


def implanted(bids: Path, out: Path, said: list[str] | None = None, **options: Any) -> Any:
    """Run ``--into`` with the masks of a dataset."""
    options = {'derivatives': {'masks': bids / 'derivatives/masks'}, **options}
    return implant_dataset(bids, out, ORDER, say=None if said is None else said.append, **options)


def wrapped() -> np.ndarray:
    """Phase that wraps several times, in rad from -pi to pi."""
    x = np.arange(48)[:, None, None] * np.ones(host().shape)
    return np.angle(np.exp(0.4j * x))


@pytest.mark.parametrize(
    ('to_rad', 'low', 'units'),
    [(1e-3, -1, None), (1e-3, 0, None), (1e-3, -1, 'mrad'), (1e-3, 0, 'mrad'),
     (np.pi / 180, -1, None), (np.pi / 180, 0, None), (np.pi / 180, 0, 'Degrees'),
     (np.pi / 180, -1, 'deg'), (np.pi / 4096, -1, None), (1.0, -1, 'Rad')],
)  # fmt: skip
def test_phase_turns_alike_in_every_unit(
    tmp_path: Path, to_rad: float, low: int, units: str | None
) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    path = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    stored = (wrapped() if low else wrapped() % (2 * np.pi)) / to_rad
    # extremes as a whole brain has them
    stored[0, 0, 0], stored[0, 0, 1] = np.pi / to_rad * low, np.pi / to_rad * (low + 2)
    kind = np.float32 if to_rad == 1 else np.int16 if low else np.uint16
    stored = stored.astype(np.float32) if to_rad == 1 else np.rint(stored).astype(kind)
    nib.Nifti1Image(stored, nib.load(path).affine).to_filename(path)
    if units is not None:
        path.with_name('sub-01_part-phase_T2starw.json').write_text(json.dumps({'Units': units}))
    implanted(bids, tmp_path / 'out')
    new = nib.load(tmp_path / 'out' / path.relative_to(bids)).get_fdata()
    inner = (slice(1, None), slice(1, None), slice(1, None))
    turned = np.angle(np.exp(1j * (new - stored) * to_rad))[inner]
    # what the lesions do to that phase, without any file
    options = {'derivatives': {'m': bids / 'derivatives/masks'}}
    found = load_host(find_scans(bids).scans[0], **options).host
    rng = scan_stream(ORDER.seed, 'sub-01')
    rng.integers(2, 3)
    places = draw_positions(rng, found, room(found), 2)
    lesions = draw_lesions(rng, found, *places, radius_mm=ORDER.radius_mm, chi_ppm=ORDER.chi_ppm)
    scan = replace(found, phase=wrapped().astype(np.float32))
    expected = np.zeros(scan.shape)
    for lesion in lesions:
        box, factor, _ = lesion_signal(
            lesion, scan.voxel_mm, scan.shape, scan.protocol, reach_mm=phase_reach(lesion)
        )
        expected[box] += np.angle(factor)
    strong = scan.brain[inner] & (np.abs(expected[inner]) > 0.2) & (np.abs(expected[inner]) < 1)
    assert strong.sum() > 20
    assert np.median(turned[strong] / expected[inner][strong]) == pytest.approx(1, abs=0.03)
    # turns are those of the file
    assert new.min() >= float(stored.min()) - 1
    assert new.max() <= float(stored.max()) + 1


def test_one_infinite_voxel_does_not_decide_the_unit(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    values = 4096 / np.pi * wrapped()
    values[0, 0, 0], values[0, 0, 1] = np.inf, -4096
    values[0, 1, 0] = np.nan
    phase_of(bids, values)
    found = load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})
    assert found.phase_scale == pytest.approx((np.pi / 4096, 0))
    assert np.abs(found.host.phase[0, 0, 0]) <= np.pi
    np.testing.assert_allclose(found.host.phase[1:], wrapped()[1:], atol=1e-4)
    path, _ = phase_of(bids, np.full(host().shape, np.nan))
    with pytest.raises(DataError, match=f'{path.name}> has no finite value'):
        load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})


def test_the_same_scan_loses_more_as_swi(tmp_path: Path) -> None:
    dark = []
    for suffix, masked in (('T2starw', False), ('swi', True), ('part-mag_swi', False)):
        bids, out = dataset(tmp_path / suffix), tmp_path / f'out-{suffix}'
        folder = bids / 'sub-01/anat'
        for end in ('.nii.gz', '.json'):
            (folder / f'sub-01_T2starw{end}').rename(folder / f'sub-01_{suffix}{end}')
        found = load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})
        # a magnitude of that sequence has no mask
        assert found.host.swi == masked
        implanted(bids, out)
        old, new = (np.asarray(nib.load(root / f'sub-01/anat/sub-01_{suffix}.nii.gz').dataobj)
                    for root in (bids, out))  # fmt: skip
        dark.append(int((new < 0.6 * old).sum()))
        (sidecar,) = (out / 'derivatives/truth/sub-01/anat').glob('*_desc-CMB_dseg.json')
        assert ('of the SWI' in json.loads(sidecar.read_text())['Note']) == masked
    assert dark[1] > 1.2 * dark[0] > 0


@pytest.mark.parametrize('phase', [True, False])
@pytest.mark.parametrize('swi', [True, False])
def test_background_below_zero_stays_as_it_is(phase: bool, swi: bool) -> None:
    scan = replace(host(phase=phase), swi=swi)
    scan.magnitude[~scan.brain] = -400
    scan.magnitude[~scan.brain & (np.arange(26) % 2 == 0)] = 0
    # one at the edge of the brain
    centre = (24.0 - 18.0, 26.0, 26.0)
    (lesion, *_) = lesions_in(scan, 1)
    new = implant(np.random.default_rng(3), scan, [replace(lesion, centre=centre)])
    changed = np.zeros(scan.shape, bool)
    changed[new.boxes[0]] = True
    assert (changed & ~scan.brain).sum() > 50
    np.testing.assert_array_equal(new.magnitude[~scan.brain], scan.magnitude[~scan.brain])
    assert (new.magnitude != scan.magnitude)[changed & scan.brain].mean() > 0.9
