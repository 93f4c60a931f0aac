"""Which scans have labels, and what is said when they have none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import DatasetError, FilterError, NoInputError, UsageError
from shivacmb.models import Input
from shivacmb.train.dataset import LabelClass, Query, find_labelled, parse_class, parse_input

SWI = (Input('swi', ('T2starw', 'swi')),)
SHAPE = (50, 54, 48)
CMB = (LabelClass('CMB'),)
DEMO = Path(__file__).parents[2] / 'bids_examples' / 'demo'


def test_the_demo_is_found_with_its_sessions() -> None:
    truth = DEMO / 'derivatives' / 'truth'
    found = find_labelled(DEMO, truth, Query(SWI, CMB, derivatives={'truth': truth}))
    assert [scan.name for scan in found.scans] == [
        'demo/sub-01_T2starw', 'demo/sub-02_ses-1_acq-highres_swi', 'demo/sub-03_T2starw',
    ]  # fmt: skip
    assert [scan.person for scan in found.scans] == ['demo/sub-01', 'demo/sub-02', 'demo/sub-03']
    assert all(scan.mask and 'desc-brain_mask' in scan.mask.name for scan in found.scans)
    assert found.passed_over == ()


def test_a_scan_without_labels_is_passed_over_and_one_person_counts_once(labelled: Path) -> None:
    found = find_labelled(labelled / 'raw', labelled / 'labels', Query(SWI, CMB))
    assert [scan.stem for scan in found.scans] == [
        'sub-01', 'sub-02', 'sub-03', 'sub-04_ses-a', 'sub-04_ses-b',
    ]  # fmt: skip
    assert len({scan.person for scan in found.scans}) == 4
    pattern = 'sub-01/anat/sub-{participant}_desc-{label}_dseg.nii.gz'
    only = find_labelled(labelled / 'raw', labelled / 'labels', Query(SWI, CMB, pattern=pattern))
    assert [scan.stem for scan in only.scans] == ['sub-01']
    assert len(only.passed_over) == 4
    assert only.passed_over[0][1] == 'no label map'


def test_masks_of_the_app_serve_as_labels(tmp_path: Path, write_scan: Callable[..., None]) -> None:
    write_scan(tmp_path, '01', 1)
    folder = tmp_path / 'labels' / 'sub-01' / 'anat'
    (folder / 'sub-01_desc-CMB_dseg.nii.gz').rename(folder / 'sub-01_label-CMB_mask.nii.gz')
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(SWI, CMB))
    assert found.scans[0].labels[0].name == 'sub-01_label-CMB_mask.nii.gz'


def test_a_map_without_entities_belongs_to_the_only_scan(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    raw, labels = (tmp_path / name / 'sub-01' / 'anat' for name in ('raw', 'labels'))
    shared = labels / 'sub-01_desc-CMB_dseg.nii.gz'
    (raw / 'sub-01_T2starw.nii.gz').rename(raw / 'sub-01_acq-a_T2starw.nii.gz')

    def maps() -> dict[str, str]:
        found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(SWI, CMB)).scans
        return {scan.stem: scan.labels[0].name for scan in found}

    assert maps() == {'sub-01_acq-a': shared.name}
    shutil.copy(raw / 'sub-01_acq-a_T2starw.nii.gz', raw / 'sub-01_acq-b_T2starw.nii.gz')
    with pytest.raises(NoInputError, match=r'dseg.nii.gz> could belong to sub-01_acq-a_T2starw.*'
                       r' or sub-01_acq-b_T2starw.*; give it the entities'):  # fmt: skip
        maps()
    shutil.copy(shared, labels / 'sub-01_acq-b_desc-CMB_dseg.nii.gz')
    assert maps() == {
        'sub-01_acq-a': shared.name, 'sub-01_acq-b': 'sub-01_acq-b_desc-CMB_dseg.nii.gz',
    }  # fmt: skip
    # a scan of just that name has it for its own
    shutil.copy(raw / 'sub-01_acq-a_T2starw.nii.gz', raw / 'sub-01_T2starw.nii.gz')
    assert maps() == {
        'sub-01': shared.name, 'sub-01_acq-b': 'sub-01_acq-b_desc-CMB_dseg.nii.gz',
    }  # fmt: skip


def test_no_labels_at_all(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'there is no folder of labels <.*nowhere>'):
        find_labelled(labelled / 'raw', tmp_path / 'nowhere', Query(SWI, CMB))
    with pytest.raises(DatasetError, match=r'none of the 5 scans of <.*> has a label in <.*>; '
                       r'expected \*_desc-CMB_dseg\.nii\.gz'):  # fmt: skip
        find_labelled(labelled / 'raw', tmp_path, Query(SWI, CMB))


def test_no_scan_at_all(tmp_path: Path, write_scan: Callable[..., None]) -> None:
    write_scan(tmp_path, '01', 1)
    folders = tmp_path / 'raw', tmp_path / 'labels'
    with pytest.raises(FilterError, match=r'no scan of <.*raw> is swi, as --input a says; change'):
        find_labelled(*folders, Query((Input('a', ('swi',)),), CMB))
    with pytest.raises(FilterError, match='--exclude-participant-label removes all that are ask'):
        find_labelled(*folders, Query(SWI, CMB, exclude=['01']))
    scan = tmp_path / 'raw/sub-01/anat/sub-01_T2starw.nii.gz'
    scan.rename(scan.with_name('sub-01_part-phase_T2starw.nii.gz'))
    with pytest.raises(DatasetError, match=r'to train on \(<sub-01/anat/sub-01_part-phase_.*>: p'):
        find_labelled(*folders, Query(SWI, CMB))
    (scan.with_name('sub-01_part-phase_T2starw.nii.gz')).rename(
        scan.with_name('sub-01_T1w.nii.gz')
    )
    with pytest.raises(DatasetError, match=r'raw> has no scan \(T2starw or swi\) to train on; se'):
        find_labelled(*folders, Query(SWI, CMB))


def test_a_class_that_some_scans_lack(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None]
) -> None:
    iron = np.zeros(SHAPE, np.uint8)
    write_scan(tmp_path, '01', 1, iron=iron)
    write_scan(tmp_path, '02', 1)
    query = Query(SWI, (*CMB, LabelClass('iron')))
    with pytest.raises(NoInputError, match=r'the class list does not match: <.*sub-02_T2starw.*> '
                       r'has a label map for CMB but none for iron; .*--labels'):  # fmt: skip
        find_labelled(tmp_path / 'raw', tmp_path / 'labels', query)
    save(tmp_path / 'labels/sub-02/anat/sub-02_label-iron_mask.nii.gz', iron)
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query)
    assert [len(scan.labels) for scan in found.scans] == [2, 2]


def test_classes_in_one_map_need_values(labelled: Path) -> None:
    query = Query(SWI, (*CMB, LabelClass('iron')), pattern='{stem}_dseg.nii.gz')
    with pytest.raises(UsageError, match=r'names one map for 2 classes; say which value'):
        find_labelled(labelled / 'raw', labelled / 'labels', query)
    with pytest.raises(UsageError, match='--class microbleed: one must be called CMB, the class'):
        find_labelled(labelled / 'raw', labelled, Query(SWI, (LabelClass('microbleed', (1,)),)))
    with pytest.raises(UsageError, match='CMB, CMB repeat a name or a value'):
        find_labelled(labelled / 'raw', labelled / 'labels', Query(SWI, CMB * 2))


@pytest.mark.parametrize('field', ['{stem.x}', '{stem[x]}', '{stem!x}', '{stem:5d}', '{', '{}'])
def test_a_field_of_a_field_is_refused(labelled: Path, field: str) -> None:
    with pytest.raises(UsageError, match='may stand in braces'):
        find_labelled(labelled / 'raw', labelled, Query(SWI, CMB, pattern=field + '.nii'))


def test_a_wrong_pattern_is_named(labelled: Path) -> None:
    with pytest.raises(UsageError, match=r"--labels '\{subject\}.nii': only \{participant\}"):
        find_labelled(labelled / 'raw', labelled, Query(SWI, CMB, pattern='{subject}.nii'))
    with pytest.raises(UsageError, match=r'<~nobody-here/x\.nii> begins with a home folder'):
        find_labelled(labelled / 'raw', labelled, Query(SWI, CMB, pattern='~nobody-here/x.nii'))


def test_further_channels_lie_beside_the_first(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    folder = tmp_path / 'raw' / 'sub-01' / 'anat'
    two = (Input('t2s', ('T2starw',)), Input('t2', ('T2w',)))
    with pytest.raises(NoInputError, match=r"no image for the channel 't2' \(T2w\) beside <"):
        find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(two, CMB))
    shutil.copy(folder / 'sub-01_T2starw.nii.gz', folder / 'sub-01_acq-a_T2w.nii.gz')
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(two, CMB))
    assert [path.name for path in found.scans[0].images] == [
        'sub-01_T2starw.nii.gz', 'sub-01_acq-a_T2w.nii.gz',
    ]  # fmt: skip
    shutil.copy(folder / 'sub-01_T2starw.nii.gz', folder / 'sub-01_acq-b_T2w.nii.gz')
    with pytest.raises(NoInputError, match=r"several images fit the channel 't2'"):
        find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(two, CMB))
    shutil.copy(folder / 'sub-01_T2starw.nii.gz', folder / 'sub-01_T2w.nii.gz')
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', Query(two, CMB))
    assert found.scans[0].images[1].name == 'sub-01_T2w.nii.gz'


def test_further_channels_are_magnitude_images_of_one_echo(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1, suffix='swi')
    folder = tmp_path / 'raw' / 'sub-01' / 'anat'

    def add(name: str, sidecar: str = '{}') -> None:
        shutil.copy(folder / 'sub-01_swi.nii.gz', folder / f'{name}.nii.gz')
        (folder / f'{name}.json').write_text(sidecar)

    def second(channel: Input) -> str:
        query = Query((Input('swi', ('swi',)), channel), CMB)
        (scan,) = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query).scans
        return scan.images[1].name

    t2s, t2 = Input('t2s', ('T2starw',)), Input('t2', ('T2w',))
    for part in ('phase', 'real', 'imag'):
        add(f'sub-01_part-{part}_T2starw')
        add(f'sub-01_part-{part}_T2w')
    for channel in (t2s, t2):
        with pytest.raises(NoInputError, match=f"no image for the channel '{channel.name}'"):
            second(channel)
    add('sub-01_part-mag_T2w')
    assert second(t2) == 'sub-01_part-mag_T2w.nii.gz'
    for echo, seconds in ((1, 0.008), (2, 0.019), (3, 0.03)):
        add(f'sub-01_echo-{echo}_part-mag_T2starw', f'{{"EchoTime": {seconds}}}')
        add(f'sub-01_echo-{echo}_part-phase_T2starw', f'{{"EchoTime": {seconds}}}')
    assert second(t2s) == 'sub-01_echo-2_part-mag_T2starw.nii.gz'


def test_the_first_channel_places_the_box(labelled: Path) -> None:
    with pytest.raises(UsageError, match="the first --input 't2' must take T2starw or swi"):
        find_labelled(labelled / 'raw', labelled / 'labels', Query((Input('t2', ('T2w',)),), CMB))


def test_classes_and_channels_are_read_from_text() -> None:
    assert parse_class('CMB') == LabelClass('CMB')
    assert parse_class('iron=2,3') == LabelClass('iron', (2, 3))
    assert parse_input('swi=t2starw,SWI') == Input('swi', ('T2starw', 'swi'))
    assert parse_input('T2w') == Input('T2w', ('T2w',))
    for text in ('CMB=0', 'CMB=a', '', 'a b'):
        with pytest.raises(UsageError, match='expected NAME, or NAME=VALUE'):
            parse_class(text)
    for text in ('', 'a=', 'a=b/c'):
        with pytest.raises(UsageError, match='expected NAME=CONTRAST'):
            parse_input(text)


def test_a_second_name_of_a_map_is_told_of_and_never_in_the_way(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    raw, maps = tmp_path / 'raw/sub-01/anat', tmp_path / 'labels/sub-01/anat'
    own = maps / 'sub-01_desc-CMB_dseg.nii.gz'
    for name in ('a', 'b'):
        shutil.copy(raw / 'sub-01_T2starw.nii.gz', raw / f'sub-01_acq-{name}_T2starw.nii.gz')
        shutil.copy(own, maps / f'sub-01_acq-{name}_desc-CMB_dseg.nii.gz')
    (raw / 'sub-01_T2starw.nii.gz').unlink()
    # whose this one is nobody can tell, and nobody has to
    own.rename(maps / 'sub-01_label-CMB_mask.nii.gz')
    query = Query((Input('swi', ('T2starw', 'swi')),), (LabelClass('CMB'),))
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query)
    assert [scan.labels[0].name for scan in found.scans] == [
        f'sub-01_acq-{name}_desc-CMB_dseg.nii.gz' for name in ('a', 'b')
    ]
    assert found.two_maps == ()
    for end in ('nii.gz', 'nii'):
        shutil.copy(
            maps / 'sub-01_label-CMB_mask.nii.gz', maps / f'sub-01_acq-a_label-CMB_mask.{end}'
        )
    found = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query)
    assert found.two_maps == ('sub-01/anat/sub-01_acq-a_T2starw.nii.gz',)
    assert found.scans[0].labels[0].name == 'sub-01_acq-a_desc-CMB_dseg.nii.gz'
