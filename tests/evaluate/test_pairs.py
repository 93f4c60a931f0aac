"""Which files are found, which belong together, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb.evaluate.lists import count_rows, read_participants, read_points, read_rows
from shivacmb.evaluate.missing import count_as_empty
from shivacmb.evaluate.pairs import find_sources, pair_up, some
from shivacmb.exceptions import DataError, NoInputError, UsageError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    return root


def scans(found: Any) -> list[str]:
    return [source.scan for source in found]


def test_our_derivatives(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        'sub-1/anat/sub-1_desc-CMB_dseg.nii.gz',
        'sub-1/anat/sub-1_label-CMB_mask.nii.gz',
        'sub-1/anat/sub-1_label-CMB_probseg.nii.gz',
        'sub-1/anat/sub-1_label-CMB_desc-ensSD_probseg.nii.gz',
        'sub-1/anat/sub-1_desc-brain_mask.nii.gz',
        'sub-2/ses-a/anat/sub-2_ses-a_acq-x_run-1_desc-CMB_dseg.nii.gz',
        'sub-2/ses-a/anat/sub-2_ses-a_acq-x_run-2_desc-CMB_dseg.nii.gz',
        'sub-3/anat/.tmp-sub-3_desc-CMB_dseg.nii.gz',
        'sub-4/anat/sub-4_desc-CMB_dseg.json',
    )
    found = find_sources(root, 'predictions')
    assert scans(found) == ['sub-1', 'sub-2_ses-a_acq-x_run-1', 'sub-2_ses-a_acq-x_run-2']
    assert {source.kind for source in found} == {'auto'}
    assert found[0].beside('desc-brain_mask.nii.gz') is not None
    assert found[1].beside('desc-brain_mask.nii.gz') is None
    maps = find_sources(root, 'predictions', prefer_probability=True)
    assert [source.path.name for source in maps] == ['sub-1_label-CMB_probseg.nii.gz']


def test_brain_mask_alone_is_not_taken_for_lesions(tmp_path: Path) -> None:
    root = tree(
        tmp_path, 'sub-1/anat/sub-1_mask.nii.gz', 'sub-1/anat/sub-1_desc-brain_mask.nii.gz'
    )
    with pytest.raises(NoInputError, match=r'No truth in .* nothing matches'):
        find_sources(root, 'truth')


def test_class_without_a_map_is_named_with_the_way_to_one_map_of_several(tmp_path: Path) -> None:
    root = tree(tmp_path, 'sub-1/anat/sub-1_desc-CMB_dseg.nii.gz')
    with pytest.raises(NoInputError, match=r'No truth in .* for the class iron') as caught:
        find_sources(root, 'truth', class_name='iron')
    said = str(caught.value)
    assert '(desc-iron_dseg, label-iron_mask, ...). There is desc-CMB_dseg.' in said
    pattern = said.split('--truth-pattern "')[1].split('"')[0]
    assert '--classes CMB=1 iron=2' in said
    assert scans(find_sources(root, 'truth', class_name='iron', pattern=pattern)) == ['sub-1']


def test_plain_names_and_a_second_class(tmp_path: Path) -> None:
    root = tree(tmp_path, 'sub-1/anat/sub-1_dseg.nii', 'sub-1/anat/sub-1_desc-iron_dseg.nii.gz')
    assert find_sources(root, 'truth')[0].kind == 'auto'
    assert find_sources(root, 'truth', class_name='iron')[0].path.name.startswith(
        'sub-1_desc-iron'
    )


def test_pattern_gives_names_to_files_that_are_not_bids(tmp_path: Path) -> None:
    pred = tree(tmp_path / 'p', 'case07_CMB.nii.gz', 'case08_CMB.nii.gz', 'case08_iron.nii.gz')
    truth = tree(tmp_path / 't', 'x/case08.nii.gz', 'x/case09.nii.gz')
    pairing = pair_up(
        find_sources(pred, 'predictions', pattern='*_{class}.nii.gz'),
        find_sources(truth, 'truth', pattern='**/*.nii.gz'),
    )
    assert [pair.pred.participant for pair in pairing.pairs] == ['case08']
    assert [source.participant for source in pairing.only_pred] == ['case07']
    assert [source.participant for source in pairing.only_truth] == ['case09']


@pytest.mark.parametrize(
    ('names', 'pattern', 'found'),
    [
        (['sub-1/seg.nii.gz', 'sub-2/seg.nii.gz'], 'sub-*/seg.nii.gz', ['sub-1', 'sub-2']),
        (['sub-1/seg.nii.gz', 'sub-2/seg.nii.gz'], 'seg.nii.gz', ['sub-1', 'sub-2']),
        (
            ['sub-1/ses-a/seg.nii.gz', 'sub-1/ses-b/seg.nii.gz'],
            '**/seg*.nii.gz',
            ['sub-1_ses-a', 'sub-1_ses-b'],
        ),
        (['x/p07/seg.nii', 'x/p08/seg.nii'], '**/p*/seg.nii', ['sub-07', 'sub-08']),
        (['p07/v1/seg.nii', 'p08/v1/seg.nii'], '*/v?/seg.nii', ['sub-p07_1', 'sub-p08_1']),
        # sub- comes first, also in a folder: 7 may be the number of the file
        (['sub-1/case7.nii', 'sub-2/case8.nii'], 'sub-*/case*.nii', ['sub-1', 'sub-2']),
        (['sub-1/run-2.nii', 'sub-1/run-1.nii'], 'sub-*/*.nii', ['sub-1_run-1', 'sub-1_run-2']),
        (['sub-1_run-2/seg-a.nii', 'sub-1/seg-b.nii'], '**/*.nii', ['sub-1', 'sub-1_run-2']),
        (['sub-1/seg.nii', 'seg1.nii'], '**/seg*.nii', ['sub-1', 'sub-seg1']),
        # the session of the folder, where the name has none
        (
            ['sub-1/ses-1/sub-1_seg.nii', 'sub-1/ses-2/sub-1_seg.nii', 'sub-1_ses-3_seg.nii'],
            '**/*_seg.nii',
            ['sub-1_ses-1', 'sub-1_ses-2', 'sub-1_ses-3'],
        ),
        (['a/seg.nii', 'a/seg2.nii', 'b/seg.nii'], '*/seg*.nii', ['sub-a', 'sub-a_2', 'sub-b']),
        (['a/seg.nii', 'b/seg.nii.gz'], '*/seg.nii*', ['sub-a', 'sub-b']),
        (['seg.nii', 'seg1.nii'], 'seg*.nii', ['sub-1', 'sub-seg']),
    ],
)
def test_one_folder_per_patient(
    tmp_path: Path, names: list[str], pattern: str, found: list[str]
) -> None:
    assert scans(find_sources(tree(tmp_path, *names), 'truth', pattern=pattern)) == found


def test_second_file_of_a_participant_is_not_another(tmp_path: Path) -> None:
    for side, names in (('p', ['sub-1', 'sub-3']), ('t', ['sub-1', 'sub-2', 'sub-3'])):
        tree(tmp_path / side, *(f'{name}/seg.nii.gz' for name in names))
    tree(tmp_path / 'p', 'sub-1/seg2.nii.gz')
    with pytest.raises(DataError, match=r'sub-1 is there twice.*sub-1/seg.nii.*sub-1/seg2.nii'):
        find_sources(tmp_path / 'p', 'predictions', pattern='sub-*/seg*.nii.gz')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('sub-1/sub-2_dseg.nii', 'sub-1 by its folder and to sub-2 by its name; rename'),
        ('sub-1/ses-a/sub-1_ses-b_dseg.nii', 'ses-a by its folder and to ses-b by its name'),
    ],
)
def test_name_and_folder_have_to_agree(tmp_path: Path, name: str, message: str) -> None:
    for pattern in (None, '**/*.nii'):
        with pytest.raises(DataError, match=f'{name}> belongs to {message}'):
            find_sources(tree(tmp_path, name), 'truth', pattern=pattern)


def test_session_of_a_folder_is_not_lost(tmp_path: Path) -> None:
    tree(tmp_path, 'p/sub-1/ses-1/sub-1_dseg.nii', 't/sub-1/ses-2/sub-1_dseg.nii')
    sides = [find_sources(tmp_path / side, 'truth') for side in 'pt']
    assert pair_up(*sides).pairs == ()


def test_one_name_in_folders_that_the_pattern_does_not_tell_apart(tmp_path: Path) -> None:
    root = tree(tmp_path, 'p07/seg.nii', 'p08/seg.nii')
    with pytest.raises(DataError, match=r'needs a \* for it, as in "\*/lesions.nii.gz"'):
        find_sources(root, 'truth', pattern='seg.nii')


def test_twins_are_refused_and_both_named(tmp_path: Path) -> None:
    root = tree(tmp_path, 'a/sub-1_desc-CMB_dseg.nii.gz', 'b/sub-1_desc-CMB_dseg.nii.gz')
    with pytest.raises(DataError, match=r'sub-1 is there twice.*a/sub-1.*b/sub-1'):
        find_sources(root, 'predictions')


def test_same_scan_in_two_resolutions_is_a_twin(tmp_path: Path) -> None:
    root = tree(tmp_path, 'sub-1_desc-CMB_dseg.nii.gz', 'sub-1_res-1_desc-CMB_dseg.nii.gz')
    with pytest.raises(DataError, match='sub-1 is there twice'):
        find_sources(root, 'predictions')


@pytest.mark.parametrize(
    ('pred', 'truth', 'pairs'),
    [
        (['sub-1_acq-x', 'sub-2'], ['sub-1_acq-x', 'sub-2'], 2),
        (['sub-1_acq-x'], ['sub-1'], 1),  # the truth need not repeat every entity
        (['sub-1_ses-a_acq-x'], ['sub-1_ses-a'], 1),
        (['sub-1_ses-a'], ['sub-1'], 1),
        (['sub-1_ses-a', 'sub-1_ses-b'], ['sub-1'], 0),  # which of the two is not known
        (['sub-1_run-1', 'sub-1_run-2'], ['sub-1'], 0),
        (['sub-1_run-1', 'sub-1_run-2'], ['sub-1_run-2'], 1),
        (['sub-1_ses-a'], ['sub-1_ses-b'], 0),
        (['sub-1_run-1'], ['sub-1_run-2'], 0),
        (['sub-1_acq-x_run-1'], ['sub-1_run-2'], 0),
        (['sub-1_acq-x_run-2'], ['sub-1_run-2'], 1),
        (['sub-1_ses-a_echo-1'], ['sub-1_echo-2'], 0),
        (['sub-1_acq-x_run-1', 'sub-1_acq-x_run-2'], ['sub-1_run-2', 'sub-1_run-1'], 2),
        (['sub-1'], ['sub-10'], 0),
    ],
)
def test_pairs_by_entities(tmp_path: Path, pred: Any, truth: Any, pairs: int) -> None:
    sides = []
    for side, names in (('p', pred), ('t', truth)):
        root = tree(tmp_path / side, *(f'{name}_desc-CMB_dseg.nii.gz' for name in names))
        sides.append(find_sources(root, side))
    found = pair_up(*sides)
    assert len(found.pairs) == pairs
    assert len(found.only_pred) == len(pred) - pairs
    assert len(found.only_truth) == len(truth) - pairs


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    tree(tmp_path, 'mine.nii.gz', 'reference.nii.gz')
    pairing = pair_up(
        find_sources(tmp_path / 'mine.nii.gz', 'predictions'),
        find_sources(tmp_path / 'reference.nii.gz', 'truth'),
    )
    assert len(pairing.pairs) == 1


def test_only_files_of_two_participants_are_no_pair(tmp_path: Path) -> None:
    tree(tmp_path, 'p/sub-1/seg.nii', 't/sub-2/seg.nii', 'u/a/seg.nii', 'u/readme')
    pred, truth = (
        find_sources(tmp_path / side, 'truth', pattern='sub-*/seg.nii') for side in 'pt'
    )
    pairing = pair_up(pred, truth)
    assert (pairing.pairs, len(pairing.only_pred), len(pairing.only_truth)) == ((), 1, 1)
    # whose the other is, nobody says
    (pair,) = pair_up(pred, find_sources(tmp_path / 'u', 'truth', pattern='*/seg.nii')).pairs
    assert 'prediction <sub-1/seg.nii> and truth <a/seg.nii> were paired as the only' in pair.note


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match='no folder or file'):
        find_sources(tmp_path / 'no', 'truth')
    with pytest.raises(NoInputError, match=r'No truth in .*--truth-pattern'):
        find_sources(tree(tmp_path / 'empty', 'readme.txt'), 'truth')


def write(path: Path, text: str) -> Path:
    path.write_text(text.replace(' ', '\t'), encoding='utf-8')
    return path


def test_pattern_that_cannot_be_looked_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'--pred-pattern "/d/\*" cannot be looked for below <'):
        find_sources(tmp_path, 'predictions', pattern='/d/*')
    with pytest.raises((UsageError, NoInputError), match='--truth-pattern'):  # 3.13 takes it
        find_sources(tmp_path, 'truth', pattern='**.nii.gz')


def test_table_of_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path / 'counts.tsv',
        'participant_id session_id age count\nsub-1 ses-a 70 4\n2 n/a 71 0\n3 n/a 72 n/a\n',
    )
    rows = count_rows(path)
    assert [(row.participant, row.session, row.count) for row in rows] == [
        ('1', 'a', 4),
        ('2', None, 0),
    ]
    found = find_sources(path, 'truth')
    assert [(source.kind, source.scan) for source in found] == [
        ('counts', 'sub-1_ses-a'),
        ('counts', 'sub-2'),
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('who count\n1 2\n', 'lacks the column participant_id'),
        ('participant_id a b\n1 2 3\n', 'no single column of counts'),
        ('participant_id count\n1 2.5\n', 'whole number from 0'),
        ('participant_id count\n1 many\n', 'where a number belongs'),
        ('participant_id count\n1 2 3\n', '3 cells in line 2'),
        ('', 'is empty'),
    ],
)
def test_bad_table_of_counts(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        count_rows(write(tmp_path / 'counts.tsv', text))


def test_participant_twice_in_a_table(tmp_path: Path) -> None:
    path = write(tmp_path / 'counts.tsv', 'participant_id count\nsub-1 2\n1 3\n')
    with pytest.raises(DataError, match=r'counts.tsv> has two rows for sub-1; leave one'):
        find_sources(path, 'truth')


def test_points_of_one_scan_and_of_many(tmp_path: Path) -> None:
    one = read_points(
        write(tmp_path / 'a.tsv', 'id x y z radius zone\n4 1 2 3 1.5 lobar\n7 -4 5 6 n/a \n')
    )
    assert one.points == ((1, 2, 3), (-4, 5, 6))
    assert (one.radii, one.names, one.zones) == ((1.5, 0.0), (4, 7), ('lobar', 'n/a'))
    many = write(
        tmp_path / 'b.tsv', 'participant_id x y z\nsub-1 1 2 3\nsub-2 1 2 3\nsub-1 4 5 6\n'
    )
    found = find_sources(many, 'truth')
    assert [(s.scan, s.listed and s.listed.count) for s in found] == [('sub-1', 2), ('sub-2', 1)]


def test_negative_radius_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.tsv', 'x y z radius\n1 2 3 0\n1 2 3 -2\n')
    with pytest.raises(DataError, match=r'a.tsv> says "-2" under radius in line 3; a radius is n'):
        read_points(path)


def test_tables_tell_runs_apart(tmp_path: Path) -> None:
    points = write(
        tmp_path / 'p.tsv',
        'participant_id session_id run acq_id x y z\n'
        'sub-1 n/a 1 n/a 1 2 3\nsub-1 n/a 2.0 n/a 4 5 6\nsub-1 n/a run-2 n/a 7 8 9\n'
        'sub-2 1.0 n/a acq-hi 1 2 3\nsub-2 ses-1 3 hi n/a n/a n/a\n',
    )
    found = find_sources(points, 'truth')
    assert [(source.scan, source.listed and source.listed.count) for source in found] == [
        ('sub-1_run-1', 1),
        ('sub-1_run-2', 2),
        ('sub-2_ses-1_acq-hi', 1),
        ('sub-2_ses-1_acq-hi_run-3', 0),
    ]
    # the table of the app's group level
    counts = write(
        tmp_path / 'c.tsv',
        'participant_id session_id scan cmb_count\nsub-1 n/a sub-1_run-1 2\n'
        'sub-1 n/a sub-1_run-2 1\nsub-3 ses-a sub-3_ses-a_acq-x_echo-1 0\n',
    )
    assert scans(find_sources(counts, 'predictions')) == [
        'sub-1_run-1', 'sub-1_run-2', 'sub-3_ses-a_acq-x_echo-1',
    ]  # fmt: skip
    pred = tree(tmp_path / 'o', 'sub-1_run-1_desc-CMB_dseg.nii.gz')
    (pair,) = pair_up(find_sources(pred, 'predictions'), found).pairs
    assert (pair.truth.scan, pair.note) == ('sub-1_run-1', '')


def test_numbers_of_a_table_may_lack_their_zeros(tmp_path: Path) -> None:
    table = write(
        tmp_path / 'p.tsv',
        'participant_id run x y z\nsub-1 1 1 2 3\nsub-1 2.0 4 5 6\nsub-02 01 4 5 6\n',
    )
    truth = find_sources(table, 'truth')
    names = ('sub-01_run-01', 'sub-01_run-02', 'sub-02_run-01', 'sub-03_run-01')
    pred = find_sources(tree(tmp_path / 'o', *(f'{n}_dseg.nii' for n in names)), 'predictions')
    pairing = pair_up(pred, truth)
    assert [(pair.pred.scan, pair.truth.scan) for pair in pairing.pairs] == [
        ('sub-01_run-01', 'sub-1_run-1'), ('sub-01_run-02', 'sub-1_run-2'),
        ('sub-02_run-01', 'sub-02_run-01'),
    ]  # fmt: skip
    assert [pair.note for pair in pairing.pairs] == [
        'prediction sub-01_run-01 and truth sub-1_run-1 were paired by their labels without '
        'zeros before numbers',
        'prediction sub-01_run-02 and truth sub-1_run-2 were paired by their labels without '
        'zeros before numbers',
        '',
    ]
    # of two that it may mean, neither
    tree(tmp_path / 'o', 'sub-01_run-002_dseg.nii')
    pred = find_sources(tmp_path / 'o', 'predictions')
    assert len(pair_up(pred, truth).pairs) == 2


def test_table_keeps_entities_that_have_no_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / 'c.tsv',
        'participant_id scan cmb_count\nsub-1 sub-1_acq-a_flip-10_chunk-1 3\n'
        'sub-1 sub-1_acq-a_flip-20_desc-CMB 5\n',
    )
    assert scans(find_sources(path, 'truth')) == [
        'sub-1_acq-a_flip-10_chunk-1',
        'sub-1_acq-a_flip-20',
    ]


def test_sessions_of_names_under_scan_count(tmp_path: Path) -> None:
    table = write(
        tmp_path / 'p.tsv',
        'participant_id scan x y z\nsub-1 sub-1_ses-1 1 2 3\nsub-1 sub-1_ses-2_run-1 4 5 6\n'
        'sub-2 sub-2_ses-2_run-1 4 5 6\n',
    )
    truth = find_sources(table, 'truth')
    assert scans(truth) == ['sub-1_ses-1', 'sub-1_ses-2_run-1', 'sub-2_ses-2_run-1']
    names = ('sub-1_ses-1_dseg.nii', 'sub-2_ses-1_dseg.nii')
    pairing = pair_up(find_sources(tree(tmp_path / 'o', *names), 'predictions'), truth)
    assert [pair.scan for pair in pairing.pairs] == ['sub-1_ses-1']


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('sub-1 n/a sub-2_run-1', r'sub-1 under participant_id and "sub-2_run-1" under scan'),
        ('sub-1 ses-1 sub-1_ses-2', r'ses-1 under session_id and "sub-1_ses-2" under scan'),
    ],
)
def test_columns_and_name_of_a_row_have_to_agree(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / 'c.tsv', f'participant_id session_id scan count\n{row} 2\n')
    with pytest.raises(DataError, match=rf'c.tsv> has {message} in one row; correct'):
        find_sources(path, 'truth')
    # what is no name of the file itself, and numbers without their zeros
    write(path, 'participant_id session_id scan count\n1 1 a/sub-01_ses-01.nii.gz 2\n')
    assert scans(find_sources(path, 'truth')) == ['sub-1_ses-1']


def test_scans_that_a_table_does_not_name_are_not_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path / 'p.tsv', 'participant_id scan x y z\nsub-1 first 1 2 3\nsub-1 second 4 5 6\n'
    )
    with pytest.raises(DataError, match=r'several scans of sub-1 under scan \(first, second'):
        find_sources(path, 'truth')
    write(path, 'participant_id scan x y z\nsub-1 swan 1 2 3\nsub-2 swan 4 5 6\n')
    assert scans(find_sources(path, 'truth')) == ['sub-1', 'sub-2']


def test_bad_points(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='lacks the column z'):
        read_points(write(tmp_path / 'a.tsv', 'x y\n1 2\n'))
    with pytest.raises(DataError, match='says "here" under y'):
        read_points(write(tmp_path / 'b.tsv', 'x y z\n1 here 2\n'))
    path = tmp_path / 'c.tsv'
    path.write_bytes(b'x\ty\tz\n\xff\xfe\n')
    with pytest.raises(DataError, match='cannot be read'):
        read_rows(path)


def test_long_lists_are_cut() -> None:
    assert some(map(str, range(3))) == '0, 1, 2'
    assert some(map(str, range(11))) == '0, 1, 2, 3, 4, 5, 6, 7 and 3 more'


@pytest.mark.parametrize(
    ('pred', 'truth', 'counted'),
    [
        (['sub-1'], ['sub-1', 'sub-2'], ['sub-2']),
        (['sub-1_ses-a', 'sub-1_ses-b'], ['sub-1'], []),  # one of these two may be its own
        (['sub-1_run-1'], ['sub-1_run-01', 'sub-2'], ['sub-2']),
        (['sub-1_ses-a_run-1'], ['sub-1_ses-a_run-2', 'sub-1_ses-b'], ['sub-1_ses-b']),
    ],
)
def test_what_counts_as_empty(
    tmp_path: Path, pred: list[str], truth: list[str], counted: list[str]
) -> None:
    sides = [
        find_sources(tree(tmp_path / side, *(f'{name}_dseg.nii.gz' for name in names)), side)
        for side, names in (('predictions', pred), ('truth', truth))
    ]
    before = pair_up(*sides)
    after, found = count_as_empty(before)
    assert scans(found) == counted
    assert sorted(scans(after.only_truth) + counted) == scans(before.only_truth)
    assert [pair.scan for pair in after.pairs if pair.pred.stand_in] == counted
    assert after.only_pred == before.only_pred


def test_loose_pairs_say_so(tmp_path: Path) -> None:
    sides = []
    for side, names in (('p', ['sub-1_acq-x', 'sub-2']), ('t', ['sub-1', 'sub-2'])):
        root = tree(tmp_path / side, *(f'{name}_desc-CMB_dseg.nii.gz' for name in names))
        sides.append(find_sources(root, side))
    assert [pair.note for pair in pair_up(*sides).pairs] == [
        'prediction sub-1_acq-x and truth sub-1 were paired by participant and session',
        '',
    ]


def test_files_of_another_class_are_not_taken(tmp_path: Path) -> None:
    root = tree(
        tmp_path, 'sub-1/anat/sub-1_label-CMB_dseg.nii.gz', 'sub-1/sub-1_desc-CMB_lesions.tsv',
        'group_desc-CMB_counts.tsv',
    )  # fmt: skip
    assert find_sources(root, 'truth')[0].path.name == 'sub-1_label-CMB_dseg.nii.gz'
    with pytest.raises(NoInputError, match='No truth in'):
        find_sources(root, 'truth', class_name='iron')
    tree(tmp_path, 'sub-1/anat/sub-1_dseg.nii.gz')
    (source,) = find_sources(root, 'truth', class_name='iron')
    assert source.path.name == 'sub-1_dseg.nii.gz'


def test_points_can_say_that_there_are_none(tmp_path: Path) -> None:
    many = write(tmp_path / 'b.tsv', 'participant_id x y z\nsub-1 1 2 3\nsub-2 n/a n/a n/a\n')
    found = find_sources(many, 'truth')
    assert [(s.scan, s.listed and s.listed.count) for s in found] == [('sub-1', 1), ('sub-2', 0)]
    assert read_points(write(tmp_path / 'a.tsv', 'x y z\nn/a n/a n/a\n')).points == ()
    with pytest.raises(DataError, match='one row with n/a under x, y and z'):
        read_points(write(tmp_path / 'c.tsv', 'x y z\n1 n/a 2\n'))
    with pytest.raises(DataError, match='with and without a place'):
        read_points(write(tmp_path / 'd.tsv', 'x y z\n1 2 2\nn/a n/a n/a\n'))


def test_participant_twice_in_participants(tmp_path: Path) -> None:
    write(tmp_path / 'participants.tsv', 'participant_id sex\nsub-1 F\nsub-2 M\n')
    assert read_participants(None, tmp_path)['2']['sex'] == 'M'
    write(tmp_path / 'participants.tsv', 'participant_id sex\nsub-1 F\n1 M\n')
    with pytest.raises(DataError, match=r'participants.tsv> has two rows for sub-1'):
        read_participants(tmp_path)
    write(tmp_path / 'participants.tsv', 'id sex\nsub-1 F\nsub-2 M\n')
    with pytest.raises(DataError, match=r'lacks the column participant_id \(it has id, sex\)'):
        read_participants(tmp_path)
