"""From files to lesions on one grid, and what is refused."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.evaluate.pairs import Pair, find_sources, pair_up
from shivacmb.evaluate.reading import HowToRead, read_probability, read_sides, to_grid
from shivacmb.evaluate.rules import rule_sets, used
from shivacmb.exceptions import DataError

HOW = HowToRead()


def save(path: Path, values: Any, affine: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def one_pair(pred: Path, truth: Path, pred_kind: Any = 'auto', truth_kind: Any = 'auto') -> Pair:
    (pair,) = pair_up(
        find_sources(pred, 'predictions', kind=pred_kind),
        find_sources(truth, 'truth', kind=truth_kind),
    ).pairs
    return pair


def volume(*places: tuple[int, int, int], values: Any = None, dtype: Any = np.int16) -> Any:
    found = np.zeros((12, 12, 12), dtype)
    for number, place in enumerate(places):
        found[place] = 1 if values is None else values[number]
    return found


def test_values_of_a_plain_map_decide(tmp_path: Path) -> None:
    apart = [(2, 2, 2), (8, 8, 8)]
    binary = save(tmp_path / 'b.nii.gz', volume(*apart))
    more = [*apart, (5, 5, 5)]
    numbered = save(tmp_path / 'n.nii.gz', volume(*more, values=[5, 5, 2], dtype=np.uint8))
    sides = read_sides(one_pair(binary, numbered), HOW)
    assert (sides.n_pred, sides.n_truth) == (2, 2)
    merged = read_sides(one_pair(binary, numbered), replace(HOW, merge=True))
    assert (merged.n_pred, merged.n_truth) == (2, 3)
    as_mask = read_sides(one_pair(binary, numbered, truth_kind='mask'), HOW)
    assert as_mask.n_truth == 3
    as_instances = read_sides(one_pair(binary, numbered, pred_kind='instances'), HOW)
    assert as_instances.n_pred == 1


def test_touching_instances_stay_apart_unless_merged(tmp_path: Path) -> None:
    labels = save(tmp_path / 'a.nii.gz', volume((2, 2, 2), (2, 2, 3), values=[1, 2]))
    assert read_sides(one_pair(labels, labels), HOW).n_truth == 2
    assert read_sides(one_pair(labels, labels), replace(HOW, merge=True)).n_truth == 1


def test_class_of_a_shared_map(tmp_path: Path) -> None:
    labels = save(tmp_path / 'a.nii.gz', volume((2, 2, 2), (5, 5, 5), (9, 9, 9), values=[1, 2, 2]))
    assert read_sides(one_pair(labels, labels), replace(HOW, class_value=2)).n_truth == 2
    assert read_sides(one_pair(labels, labels), replace(HOW, class_value=1)).n_truth == 1


def test_whole_numbers_stored_as_float_are_fine(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.nii.gz', volume((2, 2, 2), values=[3.0], dtype=np.float32))
    assert read_sides(one_pair(path, path), HOW).n_pred == 1


def test_image_of_colours_or_complex_numbers_is_refused(tmp_path: Path) -> None:
    good = save(tmp_path / 'good.nii.gz', volume())
    colours = np.zeros((12, 12, 12), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    colours['R'][2, 2, 2] = 255
    for values in (colours, volume((2, 2, 2)).astype(np.complex64)):
        bad = save(tmp_path / 'bad.nii.gz', values)
        with pytest.raises(DataError, match=r'bad.nii.gz> \(predictions\) holds colours or comp'):
            read_sides(one_pair(bad, good), HOW)


@pytest.mark.parametrize(
    ('at', 'content', 'message'),
    [
        (70, (999).to_bytes(2, 'little'), r'no NIfTI image that can be read \(data code 999'),
        (280 + 20, bytes(4), 'affine under which voxels have no volume'),  # y of the second row
        (280, np.float32(np.nan).tobytes(), 'affine under which voxels have no volume'),
    ],
)
def test_header_that_makes_no_sense_is_named(
    tmp_path: Path, at: int, content: bytes, message: str
) -> None:
    good = save(tmp_path / 'good.nii', volume((2, 2, 2)))
    raw = bytearray(good.read_bytes())
    raw[at : at + len(content)] = content
    (tmp_path / 'bad.nii').write_bytes(raw)
    for pair in (one_pair(tmp_path / 'bad.nii', good), one_pair(good, tmp_path / 'bad.nii')):
        with pytest.raises(DataError, match=f'bad.nii> .*{message}'):
            read_sides(pair, HOW)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (volume((2, 2, 2), values=[0.5], dtype=np.float32), 'not whole, so it is no label map'),
        (volume((2, 2, 2), values=[np.nan], dtype=np.float32), 'not numbers'),
        (volume((2, 2, 2), values=[-1]), 'negative numbers'),
        (np.zeros((4, 4, 4, 2), np.uint8), r'shape 4x4x4x2; one 3-D volume.*file of its own'),
        (np.zeros((4, 4), np.uint8), r'shape 4x4; one 3-D volume'),
    ],
)
def test_unsuitable_truth_is_named(tmp_path: Path, values: Any, message: str) -> None:
    good = save(tmp_path / 'good.nii.gz', volume())
    bad = save(tmp_path / 'bad.nii.gz', values)
    with pytest.raises(DataError, match=rf'bad.nii.gz> \(truth\).*{message}'):
        read_sides(one_pair(good, bad), HOW)


def test_trailing_axis_of_one_is_dropped(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.nii.gz', volume((2, 2, 2))[..., None])
    assert read_sides(one_pair(path, path), HOW).n_pred == 1


def test_damaged_files_are_named(tmp_path: Path) -> None:
    good = save(tmp_path / 'good.nii.gz', volume((2, 2, 2)))
    bad = tmp_path / 'bad.nii.gz'
    bad.write_bytes(b'no image')
    with pytest.raises(DataError, match=r'bad.nii.gz> \(predictions\) is no NIfTI'):
        read_sides(one_pair(bad, good), HOW)
    noise = np.random.default_rng(0).integers(0, 9, (30, 30, 30)).astype(np.int16)
    cut = save(tmp_path / 'cut.nii.gz', noise)
    cut.write_bytes(cut.read_bytes()[:4000])
    with pytest.raises(DataError, match=r'cut.nii.gz> \(truth\) is damaged'):
        read_sides(one_pair(good, cut), replace(HOW, resample='truth'))


def test_wrong_checksum_is_damage(tmp_path: Path) -> None:
    # stored, not packed: a bit of a voxel can be turned, and nothing but the checksum tells
    good = save(tmp_path / 'good.nii', volume((2, 2, 2), values=[1]))
    content = bytearray(gzip.compress(good.read_bytes(), 0))
    bad = tmp_path / 'bad.nii.gz'
    bad.write_bytes(content)
    assert read_sides(one_pair(bad, good), HOW).n_pred == 1
    content[-1000] ^= 1
    bad.write_bytes(content)
    with pytest.raises(DataError, match=r'bad.nii.gz> \(predictions\) is damaged \(CRC check'):
        read_sides(one_pair(bad, good), HOW)
    with pytest.raises(DataError, match=r'bad.nii.gz> \(truth\) is damaged \(CRC check'):
        read_sides(one_pair(good, bad, truth_kind='probability'), HOW)


@pytest.mark.parametrize('tail', [b'\x1a', b'junk', b'\0' * 512])
def test_bytes_after_a_right_checksum_are_no_damage(tmp_path: Path, tail: bytes) -> None:
    path = save(tmp_path / 'a.nii.gz', volume((2, 2, 2), values=[1]))
    path.write_bytes(path.read_bytes() + tail)
    assert read_sides(one_pair(path, path), HOW).n_pred == 1
    content = bytearray(path.read_bytes())
    content[-len(tail) - 8] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'a.nii.gz> \(predictions\) is damaged \(CRC check'):
        read_sides(one_pair(path, path), HOW)


def test_grids_that_differ_are_both_named(tmp_path: Path) -> None:
    pred = save(tmp_path / 'p.nii.gz', volume((2, 2, 2)), np.diag([1, 1, 2, 1.0]))
    truth = save(tmp_path / 't.nii.gz', volume((2, 2, 2)))
    with pytest.raises(DataError) as caught:
        read_sides(one_pair(pred, truth), HOW)
    for words in ('p.nii.gz', 't.nii.gz', '12x12x12 voxels of 1x1x2 mm', '--resample truth'):
        assert words in str(caught.value)


def test_shifted_grid_of_the_same_shape_differs(tmp_path: Path) -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 5
    pred = save(tmp_path / 'p.nii.gz', volume((7, 2, 2)))
    truth = save(tmp_path / 't.nii.gz', volume((2, 2, 2)), shifted)
    with pytest.raises(DataError, match='lie elsewhere in space'):
        read_sides(one_pair(pred, truth), HOW)
    sides = read_sides(one_pair(pred, truth), replace(HOW, resample='truth'))
    assert sides.pred is not None
    assert sides.truth is not None
    assert sides.truth.centres_mm.tolist() == sides.pred.centres_mm.tolist() == [[7, 2, 2]]
    assert sides.notes[0].startswith('the truth was resampled to the other grid')
    sides = read_sides(one_pair(pred, truth), replace(HOW, resample='predictions'))
    assert sides.notes[0].startswith('the predictions were resampled to the other grid')


def test_flipped_axes_describe_the_same_place(tmp_path: Path) -> None:
    values = volume((2, 3, 4))
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 11
    pred = save(tmp_path / 'p.nii.gz', values)
    truth = save(tmp_path / 't.nii.gz', values[::-1].copy(), flipped)
    for side in ('truth', 'predictions'):
        sides = read_sides(one_pair(pred, truth), replace(HOW, resample=side))
        assert sides.pred is not None
        assert sides.truth is not None
        assert sides.pred.voxels.tolist() == sides.truth.voxels.tolist()


def test_no_lesion_is_lost_on_thick_slices(make_lesions: Any) -> None:
    # 12 lesions one above the other, 3 mm apart, go to 8 slices of 5 mm
    fine = make_lesions(*[((5, 5, k), (2, 2, 1)) for k in range(0, 36, 3)])
    thick = to_grid(fine, (40, 40, 8), np.diag([1, 1, 5, 1.0]))
    assert thick.names.tolist() == list(range(1, 13))
    away = np.linalg.norm(thick.centres_mm - fine.centres_mm, axis=1)
    assert away.max() < 5
    single = make_lesions(((5, 5, 3), (1, 1, 1)))
    kept = to_grid(single, (40, 40, 8), np.diag([1, 1, 5, 1.0]))
    assert kept.centres.tolist() == [[5, 5, 1]]


def test_resampling_leaves_volumes_as_they_are(make_lesions: Any) -> None:
    # 1, 2 and 12 voxels of 1 mm3 on slices of 5 mm: two stay too small for shiva-mm3
    fine = make_lesions(((5, 5, 3), (1, 1, 1)), ((5, 20, 4), (2, 1, 1)), ((20, 5, 4), (3, 2, 2)))
    thick = to_grid(fine, (40, 40, 8), np.diag([1, 1, 5, 1.0]))
    assert thick.sizes.tolist() == [1, 1, 6]
    assert thick.volumes_mm3.tolist() == [1, 2, 12]
    assert thick.amount_mm3 == 15
    (rule,) = (rule for rule in rule_sets(['shiva']) if rule.name == 'shiva-mm3')
    assert used(thick, rule).tolist() == used(fine, rule).tolist() == [False, False, True]


def test_lesion_outside_the_other_grid_is_gone(make_lesions: Any) -> None:
    there = make_lesions(((5, 5, 39), (1, 1, 1)), ((5, 5, 5), (1, 1, 1)))
    assert to_grid(there, (40, 40, 20), np.eye(4)).names.tolist() == [2]


def test_zones_and_probabilities_of_the_table_beside(tmp_path: Path) -> None:
    path = save(
        tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (8, 8, 8), values=[3, 9])
    )
    path.with_name('sub-1_desc-CMB_dseg.tsv').write_text(
        'index\tzone\tp_max\n9\tlobar\t0.75\n3\tdeep\tn/a\n', encoding='utf-8'
    )
    sides = read_sides(one_pair(path, path), HOW)
    assert sides.truth_zones == ('deep', 'lobar')
    assert sides.pred is not None
    np.testing.assert_array_equal(sides.pred.scores, [np.nan, 0.75])


@pytest.mark.parametrize('form', ['{}', '{}.0', '0{}'])
def test_numbers_of_a_table_may_be_written_as_decimals(tmp_path: Path, form: str) -> None:
    path = save(
        tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (8, 8, 8), values=[3, 9])
    )
    lines = [f'{form.format(value)}\t{zone}' for value, zone in ((9, 'lobar'), (3, 'deep'))]
    path.with_name('sub-1_desc-CMB_dseg.tsv').write_text(
        'index\tzone\n' + '\n'.join([*lines, 'n/a\tlobar', 'all\tdeep', 'inf\tdeep']) + '\n'
    )
    assert read_sides(one_pair(path, path), HOW).truth_zones == ('deep', 'lobar')


def test_zones_have_one_vocabulary(tmp_path: Path) -> None:
    truth = save(tmp_path / 't' / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2)))
    truth.with_name('sub-1_desc-CMB_dseg.tsv').write_text(
        'index\tname\tzone\n1\tCMB001\twhite_matter\n', encoding='utf-8'
    )
    pred = save(
        tmp_path / 'p' / 'sub-1_desc-CMB_dseg.nii.gz',
        volume((2, 2, 2), (5, 5, 5), (8, 8, 8), values=[1, 2, 3]),
    )
    pred.with_name('sub-1_desc-CMB_dseg.tsv').write_text(
        'index\tregion\n1\tleft cerebral white matter\n2\tbrainstem\n3\tn/a\n', encoding='utf-8'
    )
    sides = read_sides(one_pair(pred, truth), HOW)
    assert sides.pred_zones == ('cerebral white matter', 'brainstem', 'n/a')
    assert sides.truth_zones == ('cerebral white matter',)
    points = tmp_path / 'points.tsv'
    points.write_text('x\ty\tz\tregion\n2\t2\t2\tright thalamus\n', encoding='utf-8')
    assert read_sides(one_pair(pred, points), HOW).truth_zones == ('thalamus',)


def test_points_against_a_map(tmp_path: Path) -> None:
    pred = save(tmp_path / 'p.nii.gz', volume((2, 2, 2), (8, 8, 8), values=[1, 2]))
    truth = tmp_path / 't.tsv'
    truth.write_text('x\ty\tz\n2\t2\t2\n50\t0\t0\n', encoding='utf-8')
    sides = read_sides(one_pair(pred, truth), HOW)
    assert (sides.n_pred, sides.n_truth) == (2, 2)
    assert sides.truth is not None
    assert sides.truth.points
    assert '1 point(s) have no voxel' in sides.notes[0]
    wide = read_sides(one_pair(pred, truth), replace(HOW, point_radius_mm=2.0))
    assert wide.truth is not None
    assert wide.truth.sizes[0] == 33  # whole numbers with x2 + y2 + z2 <= 4


def test_points_against_points(tmp_path: Path) -> None:
    table = tmp_path / 'p.tsv'
    table.write_text('x\ty\tz\n2.2\t-40\t2\n', encoding='utf-8')
    sides = read_sides(one_pair(table, table), HOW)
    assert sides.pred is not None
    np.testing.assert_allclose(sides.pred.centres_mm, [[2.2, -40, 2]])
    empty = tmp_path / 'e.tsv'
    empty.write_text('x\ty\tz\n', encoding='utf-8')
    assert read_sides(one_pair(empty, empty), HOW).n_pred == 0


def test_counts_against_a_map(tmp_path: Path) -> None:
    pred = save(
        tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (8, 8, 8), values=[1, 2])
    )
    truth = tmp_path / 'counts.tsv'
    truth.write_text('participant_id\tcount\nsub-1\t5\n', encoding='utf-8')
    sides = read_sides(one_pair(pred, truth), HOW)
    assert (sides.n_pred, sides.n_truth, sides.pred) == (2, 5, None)


def test_probability_maps(tmp_path: Path, make_lesions: Any) -> None:
    values = np.zeros((40, 40, 40), np.float32)
    values[5, 5, 5:9] = 0.6
    path = save(tmp_path / 'sub-1_label-CMB_probseg.nii.gz', values)
    like = make_lesions(((5, 5, 5), (1, 1, 1)))
    assert np.array_equal(read_probability(path, like, HOW), values)
    other = make_lesions(((5, 5, 2), (1, 1, 1)), affine=np.diag([1, 1, 2, 1.0]))
    with pytest.raises(DataError, match=r'grid of .* differs'):
        read_probability(path, other, HOW)
    moved = read_probability(path, other, replace(HOW, resample='truth'))
    assert moved[5, 5, 3] == pytest.approx(0.6)
    bad = save(tmp_path / 'sub-2_label-CMB_probseg.nii.gz', values * 100)
    with pytest.raises(DataError, match='outside 0 to 1'):
        read_probability(bad, like, HOW)


def test_name_of_instances_does_not_make_a_mask_one_lesion(tmp_path: Path) -> None:
    masks = tmp_path / 'm'
    path = save(masks / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (8, 8, 8)))
    path.with_name('sub-1_desc-CMB_dseg.tsv').write_text('index\tzone\n1\tdeep\n2\tlobar\n')
    sides = read_sides(one_pair(masks, masks), HOW)
    assert (sides.n_pred, sides.n_truth) == (2, 2)
    assert sides.truth_zones == ('n/a', 'n/a')  # the table's numbers are not the components'
    said = read_sides(one_pair(masks, masks, truth_kind='instances'), HOW)
    assert (said.n_pred, said.n_truth) == (2, 1)


@pytest.mark.parametrize('value', [1, 5, 255])
def test_map_of_one_value_is_cut_whatever_the_value_is(tmp_path: Path, value: int) -> None:
    path = save(
        tmp_path / 'sub-1_desc-CMB_dseg.nii.gz',
        volume((2, 2, 2), (8, 8, 8), (2, 8, 2), values=[value] * 3),
    )
    sides = read_sides(one_pair(path, path), HOW)
    assert (sides.n_pred, sides.n_truth, sides.notes) == (3, 3, ())
    assert read_sides(one_pair(path, path, truth_kind='instances'), HOW).n_truth == 1
    # one lesion keeps its value, by which a table knows it
    alone = save(tmp_path / 'b' / 'sub-1_dseg.nii.gz', volume((2, 2, 2), values=[value]))
    found = read_sides(one_pair(alone, alone), HOW).truth
    assert found is not None
    assert found.names.tolist() == [value]


PLACED = 'index\tx\ty\tz\tzone\tvisible\n'


@pytest.mark.parametrize(
    ('value', 'table', 'number'),
    [
        (1, 'index\tname\n1\tcerebral microbleed\n', 2),  # the look-up table of BIDS
        (1, 'index\tzone\n1\tdeep\n', 2),
        (1, PLACED + '1\t2\t2\t2\tdeep\ttrue\n', 1),
        (1, PLACED + '1\t2\t2\t2\tdeep\ttrue\n2\t9\t9\t9\tlobar\tfalse\n', 1),
        (1, PLACED + '1\t2\t2\t2\tdeep\ttrue\n2\t9\t9\t9\tlobar\ttrue\n', 2),
        (2, PLACED + '1\t9\t9\t9\tlobar\ttrue\n2\t2\t2\t2\tdeep\ttrue\n', 1),
        (3, PLACED + '1\t9\t9\t9\tlobar\ttrue\n2\t2\t2\t2\tdeep\ttrue\n', 2),
    ],
)
def test_table_of_a_lesion_holds_its_parts_together(
    tmp_path: Path, value: int, table: str, number: int
) -> None:
    near = volume((2, 2, 2), (2, 2, 5), values=[value] * 2)  # two voxels of 1 mm missing
    path = save(tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', near)
    path.with_name('sub-1_desc-CMB_dseg.tsv').write_text(table)
    sides = read_sides(one_pair(path, path), HOW)
    assert sides.n_truth == number
    if number == 1:
        assert sides.truth_zones == ('deep',)
        assert 'truth: 2 parts count as one lesion' in sides.notes[1]
    else:
        assert sides.notes == ()
    assert read_sides(one_pair(path, path), replace(HOW, merge=True)).n_truth == 2
    assert read_sides(one_pair(path, path, truth_kind='mask'), HOW).n_truth == 2


def test_table_beside_a_map_that_is_not_here_is_named(tmp_path: Path) -> None:
    # whether the parts are one lesion stands in it
    near = volume((2, 2, 2), (2, 2, 5))
    path = save(tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', near)
    path.with_name('sub-1_desc-CMB_dseg.tsv').symlink_to(tmp_path / 'annex' / 'key')
    with pytest.raises(DataError, match=r'sub-1_desc-CMB_dseg.tsv> is a link to a file that is'):
        read_sides(one_pair(path, path), HOW)


def test_lesions_added_to_the_map_of_a_scan_with_one_count(tmp_path: Path) -> None:
    # the app found one lesion; a reader paints two more in the same value and keeps the table
    path = save(
        tmp_path / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (2, 2, 5), (10, 10, 10))
    )
    path.with_name('sub-1_desc-CMB_dseg.tsv').write_text('index\tx\ty\tz\n1\t2\t2\t2\n')
    sides = read_sides(one_pair(path, path), HOW)
    assert (sides.n_pred, sides.n_truth) == (3, 3)
    assert 'truth: the table beside <sub-1_desc-CMB_dseg.nii.gz> knows one' in sides.notes[1]
    assert 'give each lesion a value of its own' in sides.notes[1]
    counts = tmp_path / 'counts.tsv'
    counts.write_text('participant_id\tcount\nsub-1\t3\n', encoding='utf-8')
    sides = read_sides(one_pair(path, counts), HOW)
    assert (sides.n_pred, len(sides.notes)) == (3, 1)


def test_touching_lesions_of_a_map_named_for_instances_stay_apart(tmp_path: Path) -> None:
    touching = tmp_path / 'i'
    save(touching / 'sub-1_desc-CMB_dseg.nii.gz', volume((2, 2, 2), (2, 2, 3), values=[1, 2]))
    assert read_sides(one_pair(touching, touching), HOW).n_truth == 2
