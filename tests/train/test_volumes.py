"""Prepared scans: labels that keep every lesion, files that are made once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, TemporaryError, UsageError
from shivacmb.imaging import Box, SpatialChain, centred_box, crop, reorient_to_std, uncrop
from shivacmb.models import Grid, Input, Intensity
from shivacmb.processes import machine, temporary_name
from shivacmb.train.dataset import LabelClass, LabelledScan, Query, find_labelled
from shivacmb.train.labels import IGNORED, class_map, components, lost, read_labels, to_grid
from shivacmb.train.volumes import (
    Preparation,
    names_in,
    note_pool,
    open_volume,
    prepare_all,
    prepare_scan,
)

GRID = Grid((48, 52, 44))
SHAPE = (50, 54, 48)
CMB = (LabelClass('CMB'),)


def how(**changes: object) -> Preparation:
    return Preparation(**{'grid': GRID, 'intensity': Intensity(), 'classes': CMB, **changes})


def scans_of(root: Path, *classes: str) -> tuple[LabelledScan, ...]:
    query = Query(
        (Input('swi', ('T2starw', 'swi')),), tuple(LabelClass(c) for c in classes or ('CMB',)),
        derivatives={'masks': root / 'labels'},
    )  # fmt: skip
    return find_labelled(root / 'raw', root / 'labels', query).scans


def test_images_and_labels_stay_aligned(labelled: Path, tmp_path: Path) -> None:
    assert prepare_all(tmp_path, scans_of(labelled), how())
    for scan in scans_of(labelled):
        volume = open_volume(tmp_path, scan.name)
        assert volume.image.shape == (*GRID.shape, 1)
        assert volume.image.dtype == np.float32
        inside = (np.asarray(volume.classes) == 1) & (np.asarray(volume.brain) == 1)
        # dots were painted at a fifth of the signal
        if inside.any():
            assert volume.image[..., 0][inside].max() < 0.3
        assert volume.facts['lesions']['CMB'] == components(np.asarray(volume.classes) == 1)[1]
        for point in volume.points:
            assert volume.classes[tuple(point)] == 1


@pytest.mark.parametrize('orientation', ['RAS', 'LPS', 'SAL'])
def test_no_lesion_is_lost_on_the_way(orientation: str) -> None:
    rng = np.random.default_rng(0)
    fine = np.zeros((96, 100, 90), np.uint8)
    for number in range(12):
        # single voxels of 0.5 mm: seven in eight fall between those of 1 mm
        fine[tuple(8 + 7 * (rng.permutation(11)[:3]) + number % 2)] = 1
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    image = nib.Nifti1Image(fine, affine)
    image = image.as_reoriented(nib.orientations.axcodes2ornt(tuple(orientation)))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    standard = reorient_to_std(image)
    chain = SpatialChain.from_images(image, standard, 1.0)
    brain = np.ones(chain.iso_shape, bool)
    chain = chain.with_box(centred_box(brain, chain.iso_shape))
    before = components(np.asarray(image.dataobj) > 0)
    after = crop(to_grid(np.asarray(image.dataobj), image, chain), chain.placed_box)
    found = components(after > 0)
    assert found[1] == before[1]
    back = uncrop(after, chain.placed_box, chain.iso_shape)
    moved = np.array([chain.iso_to_input @ [*p, 1] for p in np.argwhere(back)])[:, :3]
    for lesion in range(1, before[1] + 1):
        centre = np.argwhere(before[0] == lesion).mean(axis=0)
        assert np.linalg.norm(moved - centre, axis=1).min() <= 2


def test_classes_overlap_in_their_order_and_ignored_values_stay_out() -> None:
    one = np.array([0, 1, 1, 0, 9]).reshape(5, 1, 1)
    two = np.array([0, 0, 2, 3, 9]).reshape(5, 1, 1)
    classes = (LabelClass('CMB'), LabelClass('iron', (2, 3)))
    made = class_map([one, two], classes, [9], [Path('a'), Path('b')])
    assert made.ravel().tolist() == [0, 1, 1, 2, IGNORED]
    # what is left open by one map is no background of its class where another one has a lesion
    one = np.array([9, 9, 1, 0]).reshape(4, 1, 1)
    two = np.array([2, 0, 9, 9]).reshape(4, 1, 1)
    made = class_map([one, two], classes, [9], [Path('a'), Path('b')])
    assert made.ravel().tolist() == [IGNORED, IGNORED, 1, IGNORED]


def test_lesions_that_the_box_leaves_out_are_counted() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:4, 2:4, 2:4] = 1  # outside
    labels[4:7, 10, 10] = 1  # one voxel is inside
    labels[10, 10, 10] = 1
    labels[1, 1, 19] = 2
    box = Box((8, 8, 8), (6, 6, 6))
    assert (lost(labels, box, 1), lost(labels, box, 2), lost(labels, box, 3)) == (1, 1, 0)


def test_a_value_that_no_class_names_is_refused() -> None:
    values = np.array([0, 1, 2, 5]).reshape(4, 1, 1)
    classes = (LabelClass('CMB', (1,)), LabelClass('iron', (2,)))
    with pytest.raises(DataError, match=r'the class list does not match: <a> holds the value 5, '
                       r'and the classes are CMB=1, iron=2'):  # fmt: skip
        class_map([values, values], classes, [], [Path('a'), Path('a')])
    made = class_map([values, values], classes, [5], [Path('a'), Path('a')])
    assert made.ravel().tolist() == [0, 1, 2, IGNORED]


def test_labels_on_another_grid_or_that_are_no_labels_are_refused(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    scan = nib.load(tmp_path / 'raw/sub-01/anat/sub-01_T2starw.nii.gz')
    moved = np.eye(4)
    moved[0, 3] = 3
    far = save(tmp_path / 'far.nii.gz', np.zeros(SHAPE, np.uint8), moved)
    with pytest.raises(
        DataError, match=r'label map <.*far.nii.gz> has another grid than its scan'
    ):
        read_labels(far, scan)
    half = save(tmp_path / 'half.nii.gz', np.full(SHAPE, 0.4, np.float32))
    with pytest.raises(DataError, match=r'<.*half.nii.gz> holds values that are no labels'):
        read_labels(half, scan)
    coloured = np.zeros(SHAPE, [(name, 'u1') for name in 'RGB'])
    for bad in (coloured, np.full(SHAPE, 1e20), np.ones(SHAPE, np.complex64)):
        path = save(tmp_path / 'bad.nii.gz', bad)
        with pytest.raises(DataError, match=r'<.*bad.nii.gz> holds values that are no labels'):
            read_labels(path, scan)
    for shape in ((*SHAPE, 2), (2, 2)):
        several = save(tmp_path / 'several.nii.gz', np.zeros(shape, np.uint8))
        with pytest.raises(DataError, match=r'several.nii.gz> is not one 3-D volume but \(.*2\);'):
            read_labels(several, scan)
    one = save(tmp_path / 'one.nii.gz', np.ones((*SHAPE, 1), np.uint8))
    np.testing.assert_array_equal(read_labels(one, scan), np.ones(SHAPE))
    (tmp_path / 'text.nii.gz').write_text('no')
    with pytest.raises(DataError, match=r'<.*text.nii.gz> cannot be read'):
        read_labels(tmp_path / 'text.nii.gz', scan)
    (tmp_path / 'text.nii.gz').write_text('/annex/objects/MD5E-s9--0123.nii.gz\n')
    with pytest.raises(DataError, match=r'<.*text.nii.gz> stands for data that are not here'):
        read_labels(tmp_path / 'text.nii.gz', scan)


def test_a_file_server_that_fails_is_no_fault_of_the_labels(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    scan = nib.load(labelled / 'raw/sub-01/anat/sub-01_T2starw.nii.gz')
    monkeypatch.setattr('shivacmb.train.labels.nib.load', stale)
    with pytest.raises(TemporaryError, match=r'<.*labels\.nii>'):
        read_labels(tmp_path / 'labels.nii', scan)


def test_every_bad_scan_is_named_at_once(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None]
) -> None:
    for label in ('01', '02', '03'):
        write_scan(tmp_path, label, 1)
    scans = scans_of(tmp_path)
    for label in ('01', '03'):
        save(tmp_path / f'labels/sub-{label}/anat/sub-{label}_desc-CMB_dseg.nii.gz',
             np.zeros((9, 9, 9), np.uint8))  # fmt: skip
    with pytest.raises(
        DataError, match=r'2 of 3 scans cannot be used: .*sub-01_desc.*sub-03_desc'
    ):
        prepare_all(tmp_path / 'pool', scans, how())
    assert open_volume(tmp_path / 'pool', scans[1].name).facts['lesions'] == {'CMB': 1}


@pytest.mark.parametrize('workers', [1, 2])
def test_a_scan_without_signal_in_its_mask_is_named_with_its_channel(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None], workers: int
) -> None:
    for label in ('01', '02'):
        write_scan(tmp_path, label, 1)
        raw = tmp_path / f'raw/sub-{label}/anat'
        second = np.asarray(nib.load(raw / f'sub-{label}_T2starw.nii.gz').dataobj).copy()
        if label == '02':
            # signal outside the mask only
            second[1:-1, 1:-1, 1:-1] = 0
        save(raw / f'sub-{label}_T2w.nii.gz', second)
    query = Query(
        (Input('t2s', ('T2starw',)), Input('t2', ('T2w',))), CMB,
        derivatives={'m': tmp_path / 'labels'},
    )  # fmt: skip
    scans = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query).scans
    with pytest.raises(DataError) as error:
        prepare_all(tmp_path / 'pool', scans, how(), workers=workers)
    path = scans[1].images[1]
    assert str(error.value).startswith(
        f'1 of 2 scans cannot be used: {scans[1].name}: <{path}>: The 99th percentile inside the '
        'brain mask is 0'
    )
    with pytest.raises(DataError) as error:
        prepare_all(tmp_path / 'pool', scans[1:], how(), workers=workers)
    assert str(error.value).startswith(f'{scans[1].name}: <{path}>: The 99th')


def test_a_mask_too_small_brings_no_option_that_a_training_lacks(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    (scan,) = scans_of(tmp_path)
    assert scan.mask is not None
    dot = np.zeros(SHAPE, np.uint8)
    dot[20:24, 20:24, 20:24] = 1
    save(scan.mask, dot)
    with pytest.raises(DataError) as error:
        prepare_all(tmp_path / 'pool', [scan], how())
    assert f'{scan.name}: the brain mask (<{scan.mask}>) covers only 0 mL' in str(error.value)
    assert 'choose another --mask' not in str(error.value)


def test_a_scan_is_prepared_again_only_when_something_changed(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 2)
    (scan,) = scans_of(tmp_path)
    pool = tmp_path / 'pool'
    pool.mkdir()
    image = pool / f'{scan.name.replace("/", "__")}.image.npy'
    prepare_scan(pool, scan, how())
    os.utime(image, (1, 1))
    prepare_scan(pool, scan, how())
    assert image.stat().st_mtime == 1
    prepare_scan(pool, scan, how(intensity=Intensity(clip=1.3, divide=1.3)))
    assert image.stat().st_mtime > 1
    os.utime(image, (1, 1))
    write_scan(tmp_path, '01', 3)
    prepare_scan(pool, scan, how(intensity=Intensity(clip=1.3, divide=1.3)))
    assert image.stat().st_mtime > 1
    assert not list(pool.glob('.tmp*'))


def test_a_kill_between_arrays_leaves_nothing_that_looks_prepared(
    tmp_path: Path, write_scan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(tmp_path, '01', 2)
    (scan,) = scans_of(tmp_path)
    pool = tmp_path / 'pool'
    pool.mkdir()
    prepare_scan(pool, scan, how())
    image = pool / f'{scan.name.replace("/", "__")}.image.npy'
    first = image.read_bytes()

    def killed(path: Path, array: np.ndarray) -> None:
        np.save(image, array)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr('shivacmb.train.volumes._save', killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_scan(pool, scan, how(intensity=Intensity(clip=1.3, divide=1.3)))
    assert image.read_bytes() != first
    prepare_scan(pool, scan, how())
    assert image.read_bytes() == first


def test_channels_are_stacked_and_must_share_a_grid(
    tmp_path: Path, save: Callable[..., Path], write_scan: Callable[..., None]
) -> None:
    write_scan(tmp_path, '01', 1)
    raw = tmp_path / 'raw/sub-01/anat'
    first = np.asarray(nib.load(raw / 'sub-01_T2starw.nii.gz').dataobj)
    save(raw / 'sub-01_T2w.nii.gz', first[::-1].copy())
    query = Query(
        (Input('t2s', ('T2starw',)), Input('t2', ('T2w',))), CMB,
        derivatives={'m': tmp_path / 'labels'},
    )  # fmt: skip
    (scan,) = find_labelled(tmp_path / 'raw', tmp_path / 'labels', query).scans
    (tmp_path / 'pool').mkdir()
    prepare_scan(tmp_path / 'pool', scan, how())
    volume = open_volume(tmp_path / 'pool', scan.name)
    assert volume.image.shape == (*GRID.shape, 2)
    # the brain lies in the middle of the box, so that the mirror is that of the box
    np.testing.assert_allclose(volume.image[1:-1, ..., 1], volume.image[1:-1, ..., 0][::-1],
                               atol=0.05)  # fmt: skip
    other = np.random.default_rng(0).normal(100, 5, (60, 60, 60)).astype(np.float32)
    save(raw / 'sub-01_T2w.nii.gz', other)
    with pytest.raises(
        DataError, match=r'<.*T2w.nii.gz> has another grid than <.*T2starw.nii.gz>'
    ):
        prepare_scan(tmp_path / 'pool', scan, how())


def test_a_missing_volume_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r'the prepared scan x/y cannot be read .*; remove <.*x__y\.image\.npy>, '
        r'<.*x__y\.labels\.npy> and <.*x__y\.json>, and run the same command again',
    ):
        open_volume(tmp_path, 'x/y')


def test_what_a_killed_run_was_preparing_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / f'.tmp-{machine()}-999999999-0123abcd-raw__sub-01_T2starw.image.npy'
    left.write_bytes(b'half')
    own = tmp_path / temporary_name('raw__sub-02_T2starw.image.npy')
    own.write_bytes(b'of a process that lives')
    assert prepare_all(tmp_path, (), how())
    assert list(tmp_path.iterdir()) == [own]


@pytest.mark.parametrize('part', ['image', 'labels'])
def test_a_prepared_scan_that_is_cut_off_or_removed_is_made_again(
    tmp_path: Path, write_scan: Callable[..., None], part: str
) -> None:
    write_scan(tmp_path, '01', 2)
    (scan,) = scans_of(tmp_path)
    pool, channels = tmp_path / 'pool', ['swi=T2starw,swi']
    assert prepare_all(pool, [scan], how())
    note_pool(pool, [scan.name], how(), channels)
    assert names_in(pool, how(), channels) == [scan.name]
    path = pool / f'{scan.name.replace("/", "__")}.{part}.npy'
    whole = path.read_bytes()
    other = tmp_path / 'other.npy'
    np.save(other, np.zeros((3, 3, 3), np.float32))
    # headers by which numpy finds an unfinished text
    open_text = whole[:60].replace(b'descr', b"'''(((") + whole[60:]
    for damaged in (whole[: len(whole) // 2], whole[:40], b'', open_text, other.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match='not whole'):
            names_in(pool, how(), channels)
        assert prepare_all(pool, [scan], how())
        assert path.read_bytes() == whole
    path.unlink()
    with pytest.raises(DataError, match=r'remove <.*\.image\.npy>'):
        open_volume(pool, scan.name)
    assert prepare_all(pool, [scan], how())
    assert path.read_bytes() == whole


def test_the_box_cuts_labels_like_images(tmp_path: Path, write_scan: Callable[..., None]) -> None:
    write_scan(tmp_path, '01', 2)
    (scan,) = scans_of(tmp_path)
    whole, small = tmp_path / 'whole', tmp_path / 'small'
    for pool, shape in ((whole, (48, 52, 44)), (small, (20, 24, 20))):
        pool.mkdir()
        prepare_scan(pool, scan, how(grid=Grid(shape)))
    large, cut = (open_volume(pool, scan.name) for pool in (whole, small))
    box = centred_box(np.ones(GRID.shape), (20, 24, 20))
    np.testing.assert_array_equal(cut.image, crop(np.asarray(large.image), box))
    np.testing.assert_array_equal(cut.classes, crop(np.asarray(large.classes), box))
    assert any('the box leaves out' in text for text in cut.facts['warnings'])


def test_several_processes_prepare_the_same_and_stop_when_asked(
    labelled: Path, tmp_path: Path
) -> None:
    scans = scans_of(labelled)[:2]
    one, two = tmp_path / 'one', tmp_path / 'two'
    for workers in (1, 2):
        assert not prepare_all(one, scans, how(), workers=workers, stop=lambda: True)
    assert not list(one.iterdir())
    assert prepare_all(one, scans, how())
    told: list[str] = []
    assert prepare_all(two, scans, how(), workers=2, tell=told.append)
    assert sorted(told) == [f'prepared {scan.name}' for scan in scans]
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }


@pytest.mark.parametrize('healthy', [0, 1])
def test_a_process_that_is_killed_while_it_prepares_is_told(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: int
) -> None:
    class Executor:
        """One whose process ends before the next scan is handed over."""

        def __init__(self, *_: object) -> None:
            self.left = healthy

        def submit(self, *_: object) -> Future[None]:
            if not self.left:
                raise BrokenProcessPool
            self.left -= 1
            done: Future[None] = Future()
            done.set_result(None)
            return done

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr('shivacmb.train.volumes.ProcessPoolExecutor', Executor)
    with pytest.raises(TemporaryError, match='ended without a word, most often because memory'):
        prepare_all(tmp_path, scans_of(labelled), how(), workers=2)


def test_a_scan_without_a_mask_is_prepared_again_with_another_mask_network(
    tmp_path: Path, write_scan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(tmp_path, '01', 2)
    (scan,) = scans_of(tmp_path)
    masked = replace(scan, mask=scan.labels[0])
    bare = replace(scan, mask=None)
    before = how().key(masked), how().key(bare)
    monkeypatch.setattr('shivacmb.train.volumes._builtin_mask', lambda: 'another network')
    after = how().key(masked), how().key(bare)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_pool_is_taken_whole_and_as_it_was_prepared(labelled: Path, tmp_path: Path) -> None:
    scans = scans_of(labelled)[:2]
    names, channels = [scan.name for scan in scans], ['swi=T2starw,swi']
    with pytest.raises(DataError, match=r'holds no prepared scans \(its pool\.json is missing'):
        names_in(tmp_path, how(), channels)
    note_pool(tmp_path, names, how(), channels)
    prepare_scan(tmp_path, scans[0], how())
    with pytest.raises(
        DataError, match=rf'1 of 2 scans are not prepared so, or not whole, in <.*{names[1]}'
    ):
        names_in(tmp_path, how(), channels)
    prepare_scan(tmp_path, scans[1], how(intensity=Intensity(clip=1.3, divide=1.3)))
    with pytest.raises(DataError, match='1 of 2 scans are not prepared so, or not whole'):
        names_in(tmp_path, how(), channels)
    prepare_scan(tmp_path, scans[1], how())
    assert names_in(tmp_path, how(), channels) == sorted(names)
    with pytest.raises(UsageError, match='were prepared with another intensity; give'):
        names_in(tmp_path, how(intensity=Intensity(clip=1.3, divide=1.3)), channels)
    with pytest.raises(UsageError, match='another channel list, class list; give'):
        names_in(tmp_path, how(classes=(LabelClass('CMB', (1,)),)), ['swi=swi'])
