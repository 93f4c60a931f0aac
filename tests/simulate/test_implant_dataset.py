from __future__ import annotations

import gzip
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import PassedOver, find_scans
from shivacmb.exceptions import DataError, NoInputError, UsageError
from shivacmb.imaging import load_scan
from shivacmb.simulate.implant_dataset import ImplantOrder, implant_dataset
from shivacmb.simulate.implant_files import load_host
from shivacmb.simulate.implant_phase import phase_path
from shivacmb.simulate.truth import truth_names

pytestmark = pytest.mark.usefixtures('all_white_matter')


def dataset(root: Path, *, phase: bool = False) -> Path:
    """A dataset of one scan, with its brain mask."""
    rng = np.random.default_rng(0)
    axes = [np.arange(n) - n / 2 for n in (48, 52, 26)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    brain = (x / 20) ** 2 + (y / 22) ** 2 + (2 * z / 20) ** 2 < 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = [-24, -26, -26]
    values = np.abs(np.where(brain, 500.0, 0.0) + 10 * rng.normal(size=x.shape))
    images = {'anat/sub-01_T2starw': values.astype(np.int16)}
    if phase:
        images['anat/sub-01_part-phase_T2starw'] = (4095 * np.sin(x / 9)).astype(np.int16)
    masks = root / 'derivatives/masks/sub-01'
    for folder, names in (
        (root / 'sub-01', images),
        (masks, {'anat/sub-01_desc-brain_mask': brain.astype(np.uint8)}),
    ):
        (folder / 'anat').mkdir(parents=True)
        for name, stored in names.items():
            image = nib.Nifti1Image(stored, affine)
            image.set_sform(affine, 1)
            image.set_qform(affine, 1)
            image.to_filename(folder / f'{name}.nii.gz')
    (root / 'sub-01/anat/sub-01_T2starw.json').write_text(
        json.dumps({'EchoTime': 0.025, 'MagneticFieldStrength': 1.5})
    )
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


ORDER = ImplantOrder(seed=1, lesions=(2, 2), radius_mm=(2.0, 2.5), chi_ppm=(1.0, 1.0))


def implanted(bids: Path, out: Path, said: list[str] | None = None, **options: Any) -> Any:
    """Run ``--into`` with the masks of a dataset."""
    options = {'derivatives': {'masks': bids / 'derivatives/masks'}, **options}
    return implant_dataset(bids, out, ORDER, say=None if said is None else said.append, **options)


def test_another_modality_or_mask_is_no_resumption(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    folder = bids / 'sub-01/anat'
    for end in ('.nii.gz', '.json'):
        shutil.copy(folder / f'sub-01_T2starw{end}', folder / f'sub-01_swi{end}')
    assert implanted(bids, out, modality='swi')[0] == ['sub-01']
    with pytest.raises(UsageError, match=r'other settings \(modality'):
        implanted(bids, out, modality='t2s')
    shutil.copytree(bids / 'derivatives/masks', tmp_path / 'other')
    with pytest.raises(UsageError, match=r'other settings \(derivatives'):
        implanted(bids, out, modality='swi', derivatives={'masks': tmp_path / 'other'})
    pattern = str(
        tmp_path / 'other/sub-{participant}/anat/sub-{participant}_desc-brain_mask.nii.gz'
    )
    with pytest.raises(UsageError, match=r'other settings \(mask_pattern'):
        implanted(bids, out, modality='swi', mask_pattern=pattern)
    record = json.loads((out / 'code/simulate.json').read_text())
    record['settings']['simulator'] -= 1
    (out / 'code/simulate.json').write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r'other settings \(simulator'):
        implanted(bids, out, modality='swi')


def test_a_replaced_scan_phase_sidecar_or_mask_is_made_anew(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    folder = bids / 'sub-01/anat'

    def changed() -> bool:
        said: list[str] = []
        made, failures, kept = implanted(bids, out, said)
        assert not failures
        assert (made, kept) in ((['sub-01'], []), ([], ['sub-01']))
        assert any('made anew' in text for text in said) == bool(made)
        return bool(made)

    implanted(bids, out)
    assert not changed()
    scan = nib.load(folder / 'sub-01_T2starw.nii.gz')
    values = np.asarray(scan.dataobj) * 3
    nib.Nifti1Image(values, scan.affine, scan.header).to_filename(folder / 'sub-01_T2starw.nii.gz')
    assert changed()
    assert np.asarray(nib.load(out / 'sub-01/anat/sub-01_T2starw.nii.gz').dataobj).max() > 1400
    (folder / 'sub-01_T2starw.json').write_text('{"EchoTime": 0.03, "MagneticFieldStrength": 3}')
    assert changed()
    (folder / 'sub-01_part-phase_T2starw.json').write_text('{"ImageType": ["P"]}')
    assert changed()
    path = bids / 'derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    mask = nib.load(path)
    nib.Nifti1Image(np.asarray(mask.dataobj) * 2, mask.affine).to_filename(path)
    assert changed()
    # what a copy no longer has must not stay
    for name in ('sub-01_part-phase_T2starw.nii.gz', 'sub-01_part-phase_T2starw.json'):
        (folder / name).unlink()
    assert changed()
    here = {path.name for path in (out / 'sub-01/anat').iterdir()}
    assert here == {'sub-01_T2starw.nii.gz', 'sub-01_T2starw.json'}
    # nor does a scan count as there when its contrast is another now, or its copy is gone
    for end in ('.nii.gz', '.json'):
        (folder / f'sub-01_T2starw{end}').rename(folder / f'sub-01_swi{end}')
    assert changed()
    assert {path.name for path in (out / 'sub-01/anat').iterdir()} == {
        'sub-01_swi.nii.gz', 'sub-01_swi.json',
    }  # fmt: skip
    (out / 'sub-01/anat/sub-01_swi.nii.gz').unlink()
    assert changed()
    assert not changed()


def test_a_copy_whose_source_broke_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    implanted(bids, out)
    copy = out / 'sub-01/anat/sub-01_T2starw.nii.gz'
    before = copy.read_bytes()
    (bids / 'sub-01/anat/sub-01_T2starw.nii.gz').write_bytes(b'broken')
    said: list[str] = []
    made, failures, kept = implanted(bids, out, said)
    assert (made, list(failures), kept) == ([], ['sub-01'], [])
    assert said[-1] == (
        f'sub-01_T2starw.nii.gz: what an earlier run made of it is still there, in <{copy.parent}>'
    )
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    ('dtype', 'kind'),
    [(np.complex64, 'complex'), ([('R', 'u1'), ('G', 'u1'), ('B', 'u1')], 'colour')],
)
def test_a_phase_that_is_no_real_number_is_refused(tmp_path: Path, dtype: Any, kind: str) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    path = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    image = nib.load(path)
    nib.Nifti1Image(np.zeros(image.shape, dtype), image.affine).to_filename(path)
    with pytest.raises(DataError, match=f'_part-phase_T2starw.nii.gz> holds {kind} values; write'):
        load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})


@pytest.mark.parametrize(
    ('sidecar', 'field', 'echo'),
    [({'MagneticFieldStrength': '1.5', 'EchoTime': '0.03'}, 1.5, 0.03),
     ({'MagneticFieldStrength': ' 7 ', 'EchoTime': '25'}, 7, 0.025),
     ({'MagneticFieldStrength': 'n/a', 'EchoTime': None}, 3, 0.02)],
)  # fmt: skip
def test_numbers_in_text_are_read(
    tmp_path: Path, sidecar: dict[str, Any], field: float, echo: float
) -> None:
    bids = dataset(tmp_path / 'bids')
    (bids / 'sub-01/anat/sub-01_T2starw.json').write_text(json.dumps(sidecar))
    found = load_host(find_scans(bids).scans[0], derivatives={'m': bids / 'derivatives/masks'})
    assert found.host.protocol.field_t == field
    assert found.host.protocol.echo_s == pytest.approx(echo)


@pytest.mark.parametrize(
    ('sidecar', 'message'),
    [({'MagneticFieldStrength': 30000}, 'is 30000 in .*give one between 0.1 and 20 T'),
     ({'MagneticFieldStrength': '3000'}, 'is 3000 in .*give one between 0.1 and 20 T'),
     ({'MagneticFieldStrength': 0}, 'is 0 in'), ({'MagneticFieldStrength': 'NaN'}, 'is NaN in'),
     ({'MagneticFieldStrength': '3 tesla'}, "is no number in .*: '3 tesla'"),
     ({'MagneticFieldStrength': True}, 'is no number in'),
     ({'EchoTime': 20000}, 'EchoTime is 20000 in .*give one between 0.001 and 0.2 s'),
     ({'EchoTime': [0.02, 0.03]}, 'EchoTime is no number in')],
)  # fmt: skip
def test_impossible_protocols_stop_their_scan_and_name_the_sidecar(
    tmp_path: Path, sidecar: dict[str, Any], message: str
) -> None:
    bids = dataset(tmp_path / 'bids')
    (bids / 'sub-01/anat/sub-01_T2starw.json').unlink()
    # inherited: the file that has the value is named
    (bids / 'T2starw.json').write_text(json.dumps(sidecar))
    _, failures, _ = implanted(bids, tmp_path / 'out')
    with pytest.raises(DataError, match=message) as caught:
        raise failures['sub-01']
    assert f'<{bids / "T2starw.json"}>' in str(caught.value)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
def test_a_name_that_lies_about_the_compression_stops_nothing(
    tmp_path: Path, kind: Any, zipped: bool
) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    usual = bids / 'sub-01/anat/sub-01_T2starw.nii.gz'
    image = nib.load(usual)
    kind(np.asarray(image.dataobj), image.affine, image.header).to_filename(usual)
    packed, path = usual.read_bytes(), usual
    if zipped:
        path = usual.rename(usual.with_suffix(''))
    else:
        path.write_bytes(gzip.decompress(packed))
    assert implanted(bids, out)[0] == ['sub-01']
    new = nib.load(out / path.relative_to(bids))
    assert type(new) is kind
    old = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(packed)).dataobj
                     if kind is nib.Nifti1Image
                     else nib.Nifti2Image.from_bytes(gzip.decompress(packed)).dataobj)  # fmt: skip
    changed = np.asarray(new.dataobj) != old
    assert 0 < changed.mean() < 0.1


def test_texts_in_another_encoding_are_named_before_the_first_scan(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    names = ('.bidsignore', 'participants.tsv', 'participants.json')
    contents = ('# f\u00fcr uns\n', 'participant_id\tsite\nsub-01\tZ\u00fcrich\n', '{"\u00fc": 1}')
    for name, content in zip(names, contents, strict=True):
        (bids / name).write_bytes(content.encode('latin-1'))
    (bids / 'sub-01/anat/sub-01_T2starw.json').unlink()
    said: list[str] = []
    assert implanted(bids, out, said)[0] == ['sub-01']
    assert [f'<{bids / name}> was left out' in text
            for name, text in zip(names, said[:3], strict=True)] == [True] * 3  # fmt: skip
    assert 'no EchoTime' in said[3]
    assert not (out / 'participants.tsv').exists()
    for name, content in zip(names, contents, strict=True):
        (bids / name).write_text(content, encoding='utf-8')
    implanted(bids, out, said)
    assert 'Z\u00fcrich' in (out / 'participants.tsv').read_text('utf-8')
    assert '# f\u00fcr uns' in (out / '.bidsignore').read_text('utf-8')


def test_who_was_asked_for_and_is_not_there_is_named(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    (bids / 'sub-02' / 'anat').mkdir(parents=True)
    said: list[str] = []
    made, failures, _ = implanted(bids, out, said, participants=['01', '02', '99'])
    assert made == ['sub-01']
    assert {name: error.exit_code for name, error in failures.items()} == {
        'sub-02': 66, 'sub-99': 66,
    }  # fmt: skip
    assert said == ['sub-02 has no usable scan (see --dry-run)', f'no sub-99 in <{bids}>']
    # nobody asked for sub-02 here
    said.clear()
    assert implanted(bids, out, said) == ([], {}, ['sub-01'])
    assert said == ['sub-02 has no usable scan (see --dry-run)']
    with pytest.raises(NoInputError):
        implanted(bids, out, said, participants=['99'])
    assert said[-1] == f'no sub-99 in <{bids}>'


def test_what_is_odd_about_a_scan_is_told(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    (bids / 'sub-01/anat/sub-01_T2starw.json').write_text(
        json.dumps({'EchoTime': 20, 'MagneticFieldStrength': 3})
    )
    said: list[str] = []
    implanted(bids, tmp_path / 'out', said)
    assert said == ['sub-01_T2starw.nii.gz: EchoTime 20 was read as milliseconds']


def test_folders_that_cannot_be_listed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bids = dataset(tmp_path / 'bids')
    found = find_scans(bids)
    folder = bids / 'sub-03'
    odd = replace(found, missing=('03',), unreadable=(PassedOver(folder, 'it cannot be listed'),))
    monkeypatch.setattr('shivacmb.simulate.implant_find.find_scans', lambda *_, **__: odd)
    said: list[str] = []
    _, failures, _ = implanted(bids, tmp_path / 'out', said)
    assert [error.exit_code for error in failures.values()] == [75]
    assert said == [
        f'<{folder}> was left out, it cannot be listed; run the same command again when it can be'
    ]


@pytest.mark.parametrize('cell', ['"a" and "b', 140_000 * 'x'], ids=['quotes', 'long'])
def test_participants_keep_their_cells(tmp_path: Path, cell: str) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    table = f'participant_id\tnote\nsub-00\t"5 mm\n\nsub-01\t{cell}\n'
    (bids / 'participants.tsv').write_text(table)
    implanted(bids, out)
    assert (out / 'participants.tsv').read_text() == f'participant_id\tnote\nsub-01\t{cell}\n'


def lose(bids: Path, out: Path) -> float:
    """How much of the signal in the label is left in the copy."""
    name = 'sub-01/anat/sub-01'
    labels = np.asarray(
        nib.load(out / 'derivatives/truth' / f'{name}_desc-CMB_dseg.nii.gz').dataobj
    )
    old, new = (
        load_scan(root / f'{name}_T2starw.nii.gz').image.get_fdata()[labels > 0]
        for root in (bids, out)
    )
    assert labels.any()
    return float(new.mean() / old.mean())


@pytest.mark.parametrize(
    ('at', 'kind', 'value'),
    [(108, '<f', 0.0), (108, '<f', 348.0), (116, '<f', np.nan)],
    ids=['no offset', 'offset of the header', 'no summand'],
)
def test_lesions_lie_where_the_loader_reads_them(
    tmp_path: Path, at: int, kind: str, value: float
) -> None:
    """Headers that the app reads in its own way are written to in the same way."""
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    path = bids / 'sub-01/anat/sub-01_T2starw.nii.gz'
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(kind, content, at, value)
    if value == 348:
        del content[348:352]
    struct.pack_into('<f', content, 112, 1.0)
    path.write_bytes(gzip.compress(bytes(content)))
    assert implanted(bids, out)[0] == ['sub-01']
    assert lose(bids, out) < 0.6
    copy = gzip.decompress((out / path.relative_to(bids)).read_bytes())
    assert copy[:348] == bytes(content[:348])


@pytest.mark.parametrize('damage', ['cut', 'checksum'])
def test_a_damaged_phase_stops_its_scan_alone(tmp_path: Path, damage: str) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    shutil.copytree(bids / 'sub-01', bids / 'sub-02')
    shutil.copytree(bids / 'derivatives/masks/sub-01', bids / 'derivatives/masks/sub-02')
    for path in [*bids.glob('**/sub-02/anat/*')]:
        path.rename(path.with_name(path.name.replace('sub-01', 'sub-02')))
    path = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    content = bytearray(path.read_bytes())
    if damage == 'cut':
        del content[-4:]
    else:
        content[-6] ^= 1
    path.write_bytes(content)
    made, failures, _ = implanted(bids, out)
    assert (made, list(failures)) == (['sub-02'], ['sub-01'])
    assert f'<{path}> cannot be read to its end' in str(failures['sub-01'])


def test_a_unit_that_cannot_be_is_refused(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    sidecar = bids / 'sub-01/anat/sub-01_part-phase_T2starw.json'
    sidecar.write_text('{"Units": "rad"}')
    _, failures, _ = implanted(bids, tmp_path / 'out')
    said = str(failures['sub-01'])
    assert ', which are not in rad, as its sidecars say; correct "Units" there, or' in said
    sidecar.unlink()
    assert implanted(bids, tmp_path / 'out')[0] == ['sub-01']


def test_the_phase_may_be_compressed_otherwise_and_must_have_the_shape(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids', phase=True)
    path = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    image.to_filename(path.with_suffix(''))
    path.unlink()
    assert implanted(bids, tmp_path / 'out')[0] == ['sub-01']
    assert (tmp_path / 'out/sub-01/anat/sub-01_part-phase_T2starw.nii').is_file()
    turned = nib.Nifti1Image(values.reshape(52, 48, 26), image.affine)
    turned.to_filename(path.with_suffix(''))
    _, failures, _ = implanted(bids, tmp_path / 'other')
    assert 'has another grid than its magnitude: (52, 48, 26)' in str(failures['sub-01'])
    assert [phase_path(bids / 'sub-01/anat/sub-01_part-magnitude_T2starw.nii.gz')] == [
        path.with_suffix('')
    ]


@pytest.mark.parametrize(
    'name',
    ['sub-01/anat/sub-01_T2starw.json',
     *(f'derivatives/truth/sub-01/anat/{name}' for name in truth_names('sub-01'))],
)  # fmt: skip
def test_a_copy_that_lacks_a_file_is_made_anew(tmp_path: Path, name: str) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    implanted(bids, out)
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    assert implanted(bids, out)[2] == ['sub-01']
    (out / name).unlink()
    assert implanted(bids, out)[0] == ['sub-01']
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == before


def test_what_is_no_number_stays_none(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    mask = nib.load(bids / 'derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    outside = np.asarray(mask.dataobj) == 0
    names = ('sub-01/anat/sub-01_T2starw.nii.gz', 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz')
    for name in names:
        image = nib.load(bids / name)
        values = image.get_fdata(dtype=np.float32)
        values[outside] = np.nan
        nib.Nifti1Image(values, image.affine).to_filename(bids / name)
    assert implanted(bids, out)[0] == ['sub-01']
    for name in names:
        old, new = (nib.load(root / name).get_fdata() for root in (bids, out))
        np.testing.assert_array_equal(np.isnan(new), outside)
        # boxes of lesions reach beyond the brain
        assert (new != old)[~outside].any()


def test_a_normalised_scan_is_refused(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    path = bids / 'sub-01/anat/sub-01_T2starw.nii.gz'
    image = nib.load(path)
    values = image.get_fdata()
    values = (values - values[values > 250].mean()) / values.std()
    nib.Nifti1Image(values.astype(np.float32), image.affine).to_filename(path)
    made, failures, _ = implanted(bids, tmp_path / 'out')
    assert not made
    assert 'is negative, as after z-scores' in str(failures['sub-01'])


def test_half_a_character_in_a_sidecar_stops_nothing(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    name = 'sub-01/anat/sub-01_T2starw.json'
    facts = {'EchoTime': 0.02, 'MagneticFieldStrength': 3, 'Operator': 'M\udcfcller, Zoë'}
    (bids / name).write_text(json.dumps(facts))
    assert implanted(bids, out)[0] == ['sub-01']
    assert json.loads((out / name).read_text('utf-8')) == facts


def test_a_phase_that_was_not_fetched_is_told(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids', phase=True), tmp_path / 'out'
    phase = bids / 'sub-01/anat/sub-01_part-phase_T2starw.nii.gz'
    content = phase.read_bytes()
    phase.unlink()
    phase.symlink_to(tmp_path / 'annex')
    said: list[str] = []
    assert implanted(bids, out, said)[0] == ['sub-01']
    assert any('is a link to a file that is not here' in text for text in said)
    assert not list(out.rglob('*part-phase*'))
    (tmp_path / 'annex').write_bytes(content)
    said.clear()
    assert implanted(bids, out, said)[0] == ['sub-01']
    assert not any('not here' in text for text in said)
    assert len(list(out.rglob('*part-phase*'))) == 2
