from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, UsageError
from shivacmb.simulate.detectability import (
    Grid,
    ScanTrials,
    Trial,
    match,
    measure_detectability,
    protocol_name,
    summarise,
    tolerance_mm,
    try_scan,
    wilson,
)
from shivacmb.simulate.detectability_plot import write_plots
from shivacmb.simulate.implant import Host, draw_positions
from shivacmb.simulate.lesions import Protocol

pytestmark = pytest.mark.usefixtures('all_white_matter')

GRID = Grid((0.6, 1.6), (0.2, 2.0), repeats=2, seed=3)


def host() -> Host:
    rng = np.random.default_rng(0)
    axes = [np.arange(n) - n / 2 for n in (70, 80, 66)]
    x, y, z = np.meshgrid(*axes, indexing='ij')
    brain = (x / 32) ** 2 + (y / 37) ** 2 + (z / 30) ** 2 < 1
    values = (np.where(brain, 500, 0) + 8 * rng.normal(size=x.shape)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = [-35, -40, -33]
    return Host(np.abs(values), affine, brain, Protocol(3.0, 0.02))


def dark_spots(
    image: nib.Nifti1Image, mask: nib.Nifti1Image, contrast: str
) -> list[tuple[float, ...]]:
    """A detector by definition: voxels in the brain that lost 60 % of the usual signal."""
    from scipy import ndimage

    values, brain = image.get_fdata(), np.asarray(mask.dataobj) > 0
    labels, count = ndimage.label((values < 0.4 * np.median(values[brain])) & brain)
    middles = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
    return [tuple(nib.affines.apply_affine(image.affine, middle)) for middle in middles]


def nothing(image: Any, mask: Any, contrast: str) -> list[tuple[float, float, float]]:
    return []


@pytest.mark.parametrize(
    ('found', 'of', 'low', 'high'),
    # Wilson intervals as printed in Newcombe 1998, table I (81/263, 15/148, 0/20, 1/29)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718), (0, 0, 0.0, 1.0), (20, 20, 0.8389, 1.0)],
)  # fmt: skip
def test_wilson_intervals_are_the_published_ones(
    found: int, of: int, low: float, high: float
) -> None:
    assert wilson(found, of) == pytest.approx((low, high), abs=6e-5)


def test_strong_lesions_are_found_and_weak_ones_are_not() -> None:
    scan = host()
    tried = try_scan('sub-01', 'T2starw', scan, GRID, dark_spots)
    assert tried.protocol == 'T2starw 3 T, TE 20 ms, 1x1x1 mm'
    assert tried.already == 0
    rows = {(row['radius_mm'], row['chi_ppm']): row for row in summarise([tried], GRID)}
    assert rows[1.6, 2.0]['sensitivity'] == 1.0
    assert rows[0.6, 0.2]['found'] == 0
    assert rows[1.6, 2.0]['implanted'] == 2
    assert rows[1.6, 2.0]['peak_drop'] > rows[0.6, 0.2]['peak_drop']


def test_a_blind_detector_finds_nothing_and_the_same_seed_repeats() -> None:
    one = try_scan('sub-01', 'swi', host(), GRID, nothing)
    assert not any(trial.found for trial in one.trials)
    assert one == try_scan('sub-01', 'swi', host(), GRID, nothing)
    assert one.trials != try_scan('sub-02', 'swi', host(), GRID, nothing).trials


def test_what_was_there_before_is_no_find() -> None:
    # a detector that always reports the same ten places knows nothing of the implants
    rng = np.random.default_rng(5)
    places = [tuple(point) for point in rng.uniform(-15, 15, (6, 3))]

    def stubborn(image: Any, mask: Any, contrast: str) -> list[tuple[float, ...]]:
        return places

    tried = try_scan('sub-01', 'swi', host(), GRID, stubborn)
    assert tried.already == 6
    assert tried.trials
    assert not any(trial.found for trial in tried.trials)


def test_a_hit_lies_within_three_millimetres_or_the_blooming() -> None:
    assert tolerance_mm(0.5) == 3.0
    assert tolerance_mm(4.0) == 5.5


def test_a_detection_counts_for_one_lesion() -> None:
    lesions = np.array([[0.0, 0, 0], [4, 0, 0], [30, 0, 0]])
    between, tolerances = np.array([[2.5, 0, 0]]), np.array([3.0, 3.0, 3.0])
    assert match(lesions, between, tolerances).tolist() == [False, True, False]
    # two detections of one lesion are no find of its neighbour; most pairs come first
    two = np.array([[1.8, 0, 0], [-2.0, 0, 0]])
    assert match(lesions, two, tolerances).tolist() == [True, True, False]
    assert match(lesions, two - [0.9, 0, 0], tolerances).tolist() == [True, False, False]
    assert not match(lesions, np.empty((0, 3)), tolerances).any()
    assert match(np.empty((0, 3)), two, np.empty(0)).shape == (0,)


def test_large_lesions_lie_as_far_apart_as_their_tolerance_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, drawn = host(), []

    def spy(*args: Any, **options: Any) -> Any:
        drawn.append(draw_positions(*args, **options))
        return drawn[-1]

    monkeypatch.setattr('shivacmb.simulate.detectability.draw_positions', spy)
    there = (20.0, 0.0, 0.0)
    tried = try_scan(
        'sub-01', 'swi', scan, Grid((0.6, 5.0), (0.2, 1.0), repeats=2), lambda *_: [there]
    )
    widest = max(tolerance_mm(trial.apparent_radius_mm) for trial in tried.trials)
    assert widest > 8
    for places, _ in drawn:
        assert len(places) >= 2
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
        assert gaps[np.triu_indices(len(places), 1)].min() > 2 * widest
        away = np.linalg.norm(places + scan.affine[:3, 3] - there, axis=1)
        assert away.min() > widest + 2


def test_a_detector_that_marks_everything_leaves_no_place() -> None:
    everywhere = [(x, y, z) for x in range(-30, 31, 10) for y in range(-40, 41, 10)
                  for z in range(-30, 31, 10)]  # fmt: skip
    with pytest.raises(DataError, match='sub-01: no tissue lies far enough from the 441 places'):
        try_scan('sub-01', 'swi', host(), GRID, lambda *_: everywhere)


def trials(protocol: str, found: list[bool]) -> ScanTrials:
    made = tuple(Trial(0.6, 0.2, 0.9, 0.3, True, hit) for hit in found)
    return ScanTrials('sub', protocol, 0, made)


def test_scans_of_one_protocol_are_counted_together() -> None:
    grid = Grid((0.6,), (0.2,))
    rows = summarise([trials('A', [True, False]), trials('A', [True]), trials('B', [])], grid)
    assert [(row['protocol'], row['scans'], row['found'], row['implanted']) for row in rows] == [
        ('A', 2, 2, 3), ('B', 1, 0, 0),
    ]  # fmt: skip
    assert rows[1]['sensitivity'] is None
    assert (rows[1]['ci_low'], rows[1]['ci_high']) == (0, 1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [({'radii_mm': ()}, 'radius in mm'), ({'radii_mm': (2.0, 1.0)}, 'smallest first'),
     ({'chi_ppm': (0.0, 1.0)}, 'between 0.01 and 10'), ({'radii_mm': (50.0,)}, 'between 0.1')],
)  # fmt: skip
def test_impossible_grids_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Grid(**options)


def dataset(root: Path) -> Path:
    scan = host()
    for name in ('sub-01', 'sub-02'):
        folder = root / name / 'anat'
        folder.mkdir(parents=True)
        # skull-stripped, so that its background is the mask
        values = np.where(scan.brain, scan.magnitude, 0).astype(np.int16)
        image = nib.Nifti1Image(values, scan.affine)
        image.set_sform(scan.affine, 1)
        image.to_filename(folder / f'{name}_T2starw.nii.gz')
        (folder / f'{name}_T2starw.json').write_text(
            json.dumps({'EchoTime': 0.02, 'MagneticFieldStrength': 3})
        )
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def test_tables_and_plots_are_written_and_finished_scans_kept(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    grid = Grid((0.8, 1.6), (0.5, 2.0), repeats=1)
    rows, failures = measure_detectability(bids, out, grid, dark_spots, detector_name='spots')
    assert not failures
    assert [row['scans'] for row in rows] == [2] * 4
    table = (out / 'detectability.tsv').read_text().splitlines()
    assert len(table) == 5
    content = json.loads((out / 'detectability.json').read_text())
    assert content['cells'] == rows
    assert set(content['scans']) == {'sub-01', 'sub-02'}
    (plot,) = write_plots(out, rows, 'spots')
    assert plot.read_bytes()[:4] == b'\x89PNG'

    def broken(image: Any, mask: Any, contrast: str) -> list[Any]:
        raise AssertionError('this scan was finished')

    again, _ = measure_detectability(bids, out, grid, broken, detector_name='spots')
    assert again == rows
    assert math.isclose(sum(row['found'] for row in rows), sum(r['found'] for r in again))


def test_results_are_kept_for_the_same_model_scan_and_mask_only(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    grid = Grid((1.6,), (2.0,), repeats=1)
    calls: list[int] = []

    def counting(image: Any, mask: Any, contrast: str) -> list[Any]:
        calls.append(1)
        return []

    def tried(**options: Any) -> int:
        calls.clear()
        _, failures = measure_detectability(
            bids, out, grid, counting, detector_name='same name',
            **{'detector_key': {'folds': ['a']}, **options},
        )  # fmt: skip
        assert not failures
        # one run on the scan as it is and one for each repeat
        return len(calls) // 2

    assert tried() == 2
    assert tried() == 0
    # a model trained anew under its old name
    assert tried(detector_key={'folds': ['b']}) == 2
    assert tried(detector_key={'folds': ['b']}) == 0
    key = {'detector_key': {'folds': ['b']}}
    path = bids / 'sub-01/anat/sub-01_T2starw.nii.gz'
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[values > 0] += 1
    nib.Nifti1Image(values, image.affine, image.header).to_filename(path)
    assert tried(**key) == 1
    masks = tmp_path / 'masks'
    masks.mkdir()
    for name in ('sub-01', 'sub-02'):
        scan = host()
        nib.Nifti1Image(scan.brain.astype(np.uint8), scan.affine).to_filename(
            masks / f'{name}.nii.gz'
        )
    key['mask_pattern'] = str(masks / 'sub-{participant}.nii.gz')
    assert tried(**key) == 2
    assert tried(**key) == 0
    smaller = nib.Nifti1Image(host().brain.astype(np.uint8) * 2, host().affine)
    smaller.to_filename(masks / 'sub-02.nii.gz')
    assert tried(**key) == 1
    (bids / 'sub-01/anat/sub-01_T2starw.json').write_text(
        json.dumps({'EchoTime': 0.03, 'MagneticFieldStrength': 3})
    )
    assert tried(**key) == 1


def test_a_broken_scan_is_named_and_stops_no_other(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    (bids / 'sub-02/anat/sub-02_T2starw.nii.gz').write_bytes(b'no image')
    said: list[str] = []
    rows, failures = measure_detectability(
        bids, tmp_path / 'out', Grid((1.6,), (2.0,), repeats=1), nothing, detector_name='x',
        say=said.append,
    )  # fmt: skip
    assert set(failures) == {'sub-02'}
    assert rows[0]['scans'] == 1
    assert 'sub-02_T2starw.nii.gz' in said[0]


def test_who_was_asked_for_and_is_not_there_counts_as_failed(tmp_path: Path) -> None:
    bids = dataset(tmp_path / 'bids')
    said: list[str] = []
    rows, failures = measure_detectability(
        bids, tmp_path / 'out', Grid((1.6,), (2.0,), repeats=1), nothing, detector_name='x',
        participants=['01', '99'], say=said.append,
    )  # fmt: skip
    assert rows[0]['scans'] == 1
    assert set(failures) == {'sub-99'}
    assert said == [f'no sub-99 in <{bids}>']


def test_a_protocol_has_one_name_however_its_scans_are_tilted() -> None:
    names = {
        protocol_name('swi', replace(host(), affine=np.diag([0.625 + off, 1.25 - off, 2.0, 1.0])))
        for off in (0.0, 1e-7, -1e-7, 1e-16)
    }
    assert names == {'swi 3 T, TE 20 ms, 0.63x1.3x2 mm'}


def test_a_cell_without_a_lesion_has_no_size() -> None:
    empty = ScanTrials('sub-01', 'p', 0)
    for row in summarise([empty], GRID):
        assert (row['implanted'], row['apparent_radius_mm'], row['peak_drop']) == (0, None, None)


def test_plots_are_those_of_the_table_beside_them(tmp_path: Path) -> None:
    grid = Grid((0.6,), (0.2,))
    long, short = (
        summarise([ScanTrials('sub-1', f'T2starw 3 T, TE {echo} ms, 0.9x0.9x1e+01 mm', 0)], grid)
        for echo in (30, 20)
    )
    mine = tmp_path / 'detectability_of_our_site.png'
    mine.touch()
    write_plots(tmp_path, [*long, *short], 'x')
    assert len(list(tmp_path.iterdir())) == 3
    assert {*write_plots(tmp_path, short, 'x'), mine} == set(tmp_path.iterdir())


def test_tables_of_an_earlier_run_are_told(tmp_path: Path) -> None:
    bids, out = dataset(tmp_path / 'bids'), tmp_path / 'out'
    said: list[str] = []
    options: dict[str, Any] = {'detector_name': 'x', 'participants': ['01'], 'say': said.append}
    assert measure_detectability(bids, out, Grid((1.6,), (2.0,)), nothing, **options)[0]
    assert not any('earlier run' in text for text in said)
    (bids / 'sub-01/anat/sub-01_T2starw.nii.gz').write_bytes(b'no image')
    assert not measure_detectability(bids, out, Grid((1.6,), (2.0,)), nothing, **options)[0]
    assert 'are those of an earlier run' in said[-1]
