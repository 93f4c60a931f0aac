"""Which people are the same, and what may have been seen before."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import PassedOver, find_scans
from shivacmb.exceptions import DataError, NoInputError, TemporaryError, UsageError
from shivacmb.models import Intensity
from shivacmb.train.checkpoint import CHECKPOINT
from shivacmb.train.curves import read_curve
from shivacmb.train.dataset import LabelClass, Query
from shivacmb.train.finish import describe_numbers, training_facts
from shivacmb.train.folds import folds_sha256, read_folds, write_folds
from shivacmb.train.loop import _read_curve
from shivacmb.train.plan import Plan
from shivacmb.train.run import (
    SETTINGS,
    Task,
    Trained,
    _check_continued,
    _fixed_folds,
    _why_not,
    deal,
    gather,
    train_folds,
    used_precision,
)
from shivacmb.train.runs import RUNS, note_rate, note_run, read_runs
from shivacmb.train.unseen import start_caution


def task(tmp_path: Path, **changes: Any) -> Task:
    plan = Plan(folds=2)
    task = Task(plan, Query(plan.inputs, plan.classes), (), tmp_path / 'work')
    return replace(task, **changes)


def begin(task: Task) -> None:
    """A fold that has learnt something."""
    (task.work / 'fold-0').mkdir(exist_ok=True)
    (task.work / 'fold-0' / CHECKPOINT).touch()


def start(folds: int, caution: str = '', sha256: str = 'a') -> Any:
    each = SimpleNamespace(sha256=sha256 * 64)
    training = {'caution': caution}
    return SimpleNamespace(name='first', version='1.0', folds=(each,) * folds, training=training)


def test_a_scan_with_two_label_maps_is_refused(labelled: Path, tmp_path: Path) -> None:
    pair = (labelled / 'raw', labelled / 'labels')
    mine = replace(task(tmp_path), sets=(pair, pair))
    with pytest.raises(
        UsageError, match='5 scans, such as raw/sub-01_T2starw, have labels in two'
    ):
        gather(mine, lambda: False, lambda _: None)


def test_a_table_of_other_people_is_refused(tmp_path: Path) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_text('person\tscan\tlesions\tfold\nraw/sub-01\tx\t1\t1\n')
    mine = task(tmp_path, fold_table=table)
    told: list[str] = []
    with pytest.raises(UsageError, match='names none of the 2 people of the scans, such as new/s'):
        _fixed_folds(mine, {'new/sub-01', 'new/sub-02'}, told.append)
    fixed = _fixed_folds(mine, {'raw/sub-01', 'raw/sub-02'}, told.append)
    assert fixed == {'raw/sub-01': 1}
    assert told == [f'1 of 2 people keep their folds from <{table}>']
    with table.open('a') as stream:
        stream.write('old/sub-09\tx\t1\t0\n')
    _fixed_folds(mine, {'raw/sub-01', 'raw/sub-02'}, told.append)
    assert told[2].endswith(
        '1 people of the table, such as old/sub-09, are not among these scans, and 1 of these, '
        'such as raw/sub-02, are not in the table; the name of a dataset is that of its folder'
    )


def test_a_start_that_may_have_seen_the_unseen_scans_is_told(tmp_path: Path) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_text('person\tscan\tlesions\tfold\nraw/sub-01\tx\t1\t1\n')
    people = {'raw/sub-01', 'raw/sub-02'}
    assert start_caution(task(tmp_path), people) == ''
    assert start_caution(task(tmp_path, start=start(2), fold_table=table), people) == ''
    renamed = start_caution(task(tmp_path, start=start(2), fold_table=table), {'raw-v2/sub-01'})
    assert 'with a table of folds that does not fit (1 people of the table are not' in renamed
    alone = start_caution(task(tmp_path, start=start(2)), people)
    assert alone.startswith('the training began with first 1.0, without a table of folds: if')
    mean = start_caution(task(tmp_path, start=start(3), fold_table=table), people)
    assert 'each fold with the mean of its 3: if people of these scans' in mean
    pairs = [((tmp_path / name), tmp_path) for name in ('a/bids', 'b/bids')]
    twins = task(tmp_path, start=start(2), fold_table=table, sets=tuple(pairs))
    named = start_caution(twins, people)
    assert 'with a table of folds that cannot tell datasets in folders of one name apart' in named
    assert start_caution(replace(twins, sets=(pairs[0],) * 2), people) == ''
    again = task(tmp_path, start=start(2, 'seen before'), fold_table=table)
    assert start_caution(again, people) == (
        'of first 1.0, with which the training began: seen before'
    )
    # the table of an earlier round, or of another training of the same people
    first = start(2)
    mine = task(tmp_path, start=first, fold_table=table)
    first.training['folds_sha256'] = folds_sha256({'raw/sub-01': 1})
    assert start_caution(mine, people) == ''
    first.training['folds_sha256'] = folds_sha256({'raw/sub-01': 0})
    assert (
        'with another table of folds than that of its own training, or one with more rows: if'
        in start_caution(mine, people)
    )


def test_the_precision_of_every_run_is_remembered(tmp_path: Path) -> None:
    assert read_runs(tmp_path) == []
    for precision in ('mixed_bfloat16', 'mixed_bfloat16', 'float32'):
        note_run(tmp_path, {'device': 'cpu'}, precision)
    assert [run['precision'] for run in read_runs(tmp_path)] == ['mixed_bfloat16', 'float32']


def test_the_card_gives_the_rates_of_every_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('shivacmb.train.finish.computes_bfloat16', lambda: False)
    names = [f'raw/{number}' for number in range(7)]
    own = {'lesions': {'CMB': 1}, 'outside': {'CMB': 1}, 'contrast': 'swi'}
    facts = {name: {'dataset': 'raw', 'person': name, **own} for name in names}
    left_out = [names[:3], names[3:5], names[5:]]

    def recipe(**changes: Any) -> dict[str, Any]:
        mine = task(tmp_path, plan=Plan(folds=3, **changes))
        steps = [mine.plan.total(7 - len(own)) for own in left_out]
        mine.work.mkdir(exist_ok=True)
        (mine.work / 'folds.tsv').write_text(write_folds([('raw/0', 'x', 1, 2)]))
        made = training_facts(mine, Trained([], left_out, facts, 0.0, steps))
        assert made['folds_sha256'] == folds_sha256({'raw/0': 2})
        assert made['data']['raw']['lesions'] == {'CMB': 14}
        found: dict[str, Any] = made['recipe']
        return found

    # 4, 5 and 5 scans: cycles of eight epochs, 1 % of the height left after 200
    usual = recipe()
    assert usual['steps'] == [800, 1000, 1000]
    assert [rate['cycle'] for (rate,) in usual['rates']] == [32, 40, 40]
    assert [rate['decay'] for (rate,) in usual['rates']] == pytest.approx(
        [0.01 ** (1 / 800), *[0.01 ** (1 / 1000)] * 2]
    )
    assert usual['epochs'] == 200
    # a fold that went on with another rate
    (tmp_path / 'work' / 'fold-1').mkdir(parents=True, exist_ok=True)
    before, after = ({**usual['rates'][1][0], 'high': high} for high in (0.1, 1e-3))
    for rate, steps in ((before, 0), (before, 20), (after, 30), (before, 40), (after, 40)):
        rate.pop('from_step', None)
        note_rate(tmp_path / 'work' / 'fold-1', rate, steps)
    rates = recipe()['rates']
    assert [(own['from_step'], own['high']) for own in rates[1]] == [(0, 0.1), (30, 1e-3)]
    assert [len(own) for own in rates] == [1, 2, 1]
    by_steps = recipe(steps=5000)
    assert by_steps['steps'] == [5000] * 3
    assert 'epochs' not in by_steps


def test_numbers_of_a_card_say_what_they_are() -> None:
    usual = describe_numbers(3, 0, '')
    assert 'the operating point was chosen on these same scans, so expect less on' in usual
    assert 'outside' not in usual
    none = describe_numbers(0, 10, 'the start has seen them')
    assert 'no operating point finds a lesion: the one given was not chosen' in none
    assert none.endswith('outside the box, 10 in all, count as missed; the start has seen them')


def test_too_few_people_are_refused_before_anything_is_prepared(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    mine = replace(mine, plan=replace(mine.plan, folds=7))
    monkeypatch.setattr('shivacmb.train.run.prepare_all', lambda *_, **__: pytest.fail('prepared'))
    with pytest.raises(UsageError, match=r'4 person\(s\) cannot fill 7 folds'):
        gather(mine, lambda: False, lambda _: None)


def test_why_another_precision_is_used() -> None:
    small, large = (Plan(patch=size, precision='mixed_bfloat16') for size in (16, 32))
    assert _why_not(small) == 'patches of 16 voxels are too small for mixed_bfloat16'
    assert _why_not(large) == 'this processor is not known to be fast with mixed_bfloat16'
    for plan, bfloat16, used in (
        (small, True, 'float32'), (large, True, 'mixed_bfloat16'), (large, False, 'float32')
    ):  # fmt: skip
        assert used_precision(plan, bfloat16=bfloat16) == used


@pytest.mark.parametrize('text', ['', '{"a', '[1]', '{"scans": 3}', '"text"', '\x80'])
def test_damaged_records_are_named(tmp_path: Path, text: str) -> None:
    for name in (RUNS, SETTINGS):
        (tmp_path / name).write_text(text, encoding='latin-1')
    with pytest.raises(DataError, match=r'runs\.json> cannot be read, .* copy it again, or'):
        read_runs(tmp_path)
    with pytest.raises(DataError, match=r'settings\.json> cannot be read'):
        _check_continued({'scans': {}}, tmp_path)


def test_a_command_that_is_refused_leaves_the_prepared_scans(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(labelled, tmp_path / 'data')
    mine = replace(task(tmp_path), sets=((tmp_path / 'data/raw', tmp_path / 'data/labels'),))
    names = gather(mine, lambda: False, lambda _: None)
    deal(mine, names, lambda _: None)
    assert gather(mine, lambda: False, lambda _: None) == names
    # a fold has begun
    begin(mine)
    pool = mine.work / 'pool'
    before = {path: path.read_bytes() for path in pool.iterdir()}
    monkeypatch.setattr('shivacmb.train.run.prepare_all', lambda *_, **__: pytest.fail('prepared'))
    other = replace(mine, plan=replace(mine.plan, intensity=Intensity(clip=1.3, divide=1.3)))
    with pytest.raises(UsageError, match='begun with other settings: intensity'):
        gather(other, lambda: False, lambda _: None)
    path = next((tmp_path / 'data/labels').rglob('sub-01*_desc-CMB_dseg.nii.gz'))
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0, image.affine, image.header), path)
    with pytest.raises(UsageError, match=r'differ from those .* \(1 of them, such as raw/sub-01'):
        gather(mine, lambda: False, lambda _: None)
    assert {path: path.read_bytes() for path in pool.iterdir()} == before


def test_folds_are_dealt_by_microbleeds_wherever_they_stand_among_the_classes(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    iron = np.zeros((50, 54, 48), np.uint8)
    iron[30, 30, 30] = 1
    for number in range(1, 7):
        write_scan(tmp_path, f'{number:02d}', 5 * (number < 4), iron=iron)
    classes = (LabelClass('iron'), LabelClass('CMB'))
    mine = task(tmp_path, sets=((tmp_path / 'raw', tmp_path / 'labels'),))
    query = replace(mine.query, classes=classes)
    mine = replace(mine, plan=replace(mine.plan, folds=3, classes=classes), query=query)
    names = gather(mine, lambda: False, lambda _: None)
    told: list[str] = []
    for seed in range(4):
        folds, _ = deal(replace(mine, plan=replace(mine.plan, seed=seed)), names, told.append)
        # three people with microbleeds, one in each fold
        assert sorted(folds[:3]) == [0, 1, 2]
    assert told == []


def test_a_fold_that_learns_from_no_lesion_is_told(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    for number in (1, 2):
        write_scan(tmp_path, f'{number:02d}', 3 * (number == 1))
    mine = task(tmp_path, sets=((tmp_path / 'raw', tmp_path / 'labels'),))
    told: list[str] = []
    folds, _ = deal(mine, gather(mine, lambda: False, lambda _: None), told.append)
    (warning,) = told
    assert warning.startswith(f'warning: fold {folds[0]} learns from no CMB at all')


def prepared(monkeypatch: pytest.MonkeyPatch, lesions: list[dict[str, int]], **more: Any) -> Any:
    """Scans of as many people, each with these lesions; their names."""
    facts = {
        f'raw/sub-{number}_swi': {
            'person': f'raw/sub-{number}', 'dataset': 'raw', 'lesions': own, 'key': str(number),
            'image_sha256': str(number), 'outside': dict.fromkeys(own, 0), **more,
        }
        for number, own in enumerate(lesions)
    }  # fmt: skip
    monkeypatch.setattr(
        'shivacmb.train.run.open_volume', lambda _, name: SimpleNamespace(facts=facts[name])
    )
    return list(facts)


def test_lesions_that_are_all_outside_the_box_are_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = prepared(monkeypatch, [{'CMB': 0}] * 3, outside={'CMB': 2})
    with pytest.raises(DataError, match='the box leaves all 6 lesions of CMB out; see --shape, a'):
        deal(task(tmp_path), names, lambda _: None)
    names = prepared(monkeypatch, [{'CMB': 0}] * 3)
    with pytest.raises(
        DataError, match='none of the 3 label maps holds CMB; check the label maps'
    ):
        deal(task(tmp_path), names, lambda _: None)


def test_a_fold_that_learns_from_none_of_another_class_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesions = [{'CMB': 1, 'iron': int(number == 2)} for number in range(4)]
    names = prepared(monkeypatch, lesions)
    classes = (LabelClass('CMB'), LabelClass('iron'))
    told: list[str] = []
    folds, _ = deal(task(tmp_path, plan=Plan(folds=2, classes=classes)), names, told.append)
    (warning,) = told
    assert warning.startswith(f'warning: fold {folds[2]} learns from no iron at all')


def test_prepared_scans_follow_the_choice_of_participants(labelled: Path, tmp_path: Path) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    names = gather(mine, lambda: False, lambda _: None)
    pooled = replace(mine, from_pool=True, sets=())
    assert gather(pooled, lambda: False, lambda _: None) == names == sorted(names)
    for changes in ({'exclude': ('02',)}, {'participants': ('01', '03', '04')}):
        query = replace(mine.query, **changes)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match='was prepared with sub-02, whom the options leave o'):
            gather(replace(pooled, query=query), lambda: False, lambda _: None)


def test_scans_of_two_datasets_are_in_one_order(labelled: Path, tmp_path: Path) -> None:
    for name in ('z', 'a'):
        shutil.copytree(labelled / 'raw', tmp_path / name)
        shutil.copytree(labelled / 'labels', tmp_path / f'labels-{name}')
    pairs = tuple((tmp_path / name, tmp_path / f'labels-{name}') for name in ('z', 'a'))
    mine = replace(task(tmp_path), sets=pairs)
    names = gather(mine, lambda: False, lambda _: None)
    assert names == sorted(names)
    assert {name.partition('/')[0] for name in names} == {'z', 'a'}
    # a run that continues without the datasets draws the same batches
    assert gather(replace(mine, from_pool=True), lambda: False, lambda _: None) == names


@pytest.mark.parametrize('row', ['1\t2', 'x\t1\t1', '\x80'])
def test_a_damaged_curve_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / 'curve.tsv'
    assert read_curve(path) == []
    path.write_text(f'step\tlearning_rate\tloss\n{row}\n', encoding='latin-1')
    with pytest.raises(DataError, match=r'the learning curve <.*> cannot be read'):
        read_curve(path)
    if not row.startswith('1'):
        with pytest.raises(DataError, match=r'the learning curve <.*> cannot be read'):
            _read_curve(path, 5)


def test_one_image_under_the_names_of_two_people_is_refused(
    labelled: Path, tmp_path: Path
) -> None:
    for name in ('raw', 'labels'):
        shutil.copytree(labelled / name, tmp_path / name)
        shutil.copytree(labelled / name, tmp_path / f'{name}-2')
    pairs = tuple((tmp_path / f'raw{end}', tmp_path / f'labels{end}') for end in ('', '-2'))
    mine = replace(task(tmp_path), sets=pairs)
    told: list[str] = []
    names = gather(mine, lambda: False, told.append)
    assert any(
        text.startswith('warning: 4 labels, such as sub-01, are in raw and in raw-2 and count')
        for text in told
    )
    with pytest.raises(UsageError, match=r'raw-2/sub-\d\d_.* and raw/sub-\d\d_.* same image'):
        deal(mine, names, lambda _: None)
    # nothing is wrong with them in one fold
    table = tmp_path / 'folds.tsv'
    rows = [f'{raw}/sub-{n:02d}\t{n % 2}' for raw in ('raw', 'raw-2') for n in range(1, 5)]
    table.write_text('\n'.join(['person\tfold', *rows]) + '\n')
    deal(replace(mine, fold_table=table), names, lambda _: None)


def test_somebody_left_out_of_one_round_keeps_their_fold(labelled: Path, tmp_path: Path) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    deal(mine, gather(mine, lambda: False, lambda _: None), lambda _: None)
    first = read_folds(mine.work / 'folds.tsv', 2)
    second = replace(
        mine, work=tmp_path / 'second', fold_table=mine.work / 'folds.tsv',
        query=replace(mine.query, exclude=('02',)),
    )  # fmt: skip
    deal(second, gather(second, lambda: False, lambda _: None), lambda _: None)
    table = (second.work / 'folds.tsv').read_text()
    assert f'raw/sub-02\tn/a\tn/a\t{first["raw/sub-02"]}\n' in table
    assert read_folds(second.work / 'folds.tsv', 2) == first
    # and is not missed by the next round, in which somebody is new
    third = replace(second, start=start(2), fold_table=second.work / 'folds.tsv')
    people = {'raw/sub-01', 'raw/sub-03', 'raw/sub-04', 'raw/sub-05'}
    assert start_caution(third, people) == ''
    lost = start_caution(third, people - {'raw/sub-03'})
    assert '(1 people of the table are not among these scans, and 1 of these are not in' in lost
    assert 'sub-' not in lost


def test_a_start_that_was_trained_anew_is_another_one(labelled: Path, tmp_path: Path) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),), start=start(2))
    names = gather(mine, lambda: False, lambda _: None)
    deal(mine, names, lambda _: None)
    begin(mine)
    deal(mine, names, lambda _: None)
    with pytest.raises(UsageError, match='begun with other settings: start folds'):
        deal(replace(mine, start=start(2, sha256='b')), names, lambda _: None)


def test_a_command_that_waited_for_the_pool_finds_the_training_begun(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    other = replace(mine, plan=replace(mine.plan, loss='balanced'))

    class StartedError(Exception):
        pass

    def second(**_: object) -> None:
        # while the first one starts its backend
        with pytest.raises(UsageError, match='begun with other settings: loss'):
            train_folds(other, stop=lambda: False, tell=lambda _: None)
        raise StartedError

    monkeypatch.setattr('shivacmb.train.run.start_backend', second)
    told: list[str] = []
    with pytest.raises(StartedError):
        train_folds(mine, stop=lambda: False, tell=told.append)
    assert any(text.startswith('warning: no scan is swi, and the model will') for text in told)
    # nothing was learnt, so that everything may change; a fold that was killed then looks the same
    assert (mine.work / 'fold-0').is_dir()
    (mine.work / 'fold-0' / 'rates.json').write_text('[]')
    names = gather(mine, lambda: False, told.append)
    deal(other, names, told.append)
    begin(mine)
    with pytest.raises(UsageError, match='begun with other settings: loss'):
        deal(mine, names, told.append)


def test_a_training_of_another_version_is_refused(labelled: Path, tmp_path: Path) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    names = gather(mine, lambda: False, lambda _: None)
    deal(mine, names, lambda _: None)
    begin(mine)
    for name in ('settings.json', 'pool/pool.json'):
        text = (mine.work / name).read_text()
        (mine.work / name).write_text(re.sub(r'"layout": \d+', '"layout": 1', text))
    with pytest.raises(UsageError, match='was begun by another version; give another folder with'):
        deal(mine, names, lambda _: None)
    with pytest.raises(UsageError, match='were prepared by another version; leave --from-pool ou'):
        gather(replace(mine, from_pool=True), lambda: False, lambda _: None)


def test_what_cannot_be_listed_ends_the_search(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = replace(task(tmp_path), sets=((labelled / 'raw', labelled / 'labels'),))
    folder = labelled / 'raw/sub-02'
    found = replace(
        find_scans(labelled / 'raw'), unreadable=(PassedOver(folder, 'it cannot be listed'),)
    )
    monkeypatch.setattr('shivacmb.train.dataset.find_scans', lambda *_, **__: found)
    with pytest.raises(TemporaryError, match='sub-02> was left out, it cannot be listed; run the'):
        gather(mine, lambda: False, lambda _: None)


def test_what_is_left_out_or_mistyped_is_told(labelled: Path, tmp_path: Path) -> None:
    for name in ('raw', 'labels'):
        shutil.copytree(labelled / name, tmp_path / name)
    anat = tmp_path / 'raw/sub-03/anat'
    (anat / 'sub-03_T2starw.json').write_text('{"ImageType": ["ORIGINAL", "PHASE"]}')
    maps = tmp_path / 'labels/sub-01/anat'
    shutil.copy(maps / 'sub-01_desc-CMB_dseg.nii.gz', maps / 'sub-01_label-CMB_mask.nii.gz')
    mine = replace(task(tmp_path), sets=((tmp_path / 'raw', tmp_path / 'labels'),))
    mine = replace(mine, query=replace(mine.query, exclude=('2', '04')))
    told: list[str] = []
    gather(mine, lambda: False, told.append)
    warnings = [text for text in told if text.startswith('warning: ')]
    assert warnings[0].startswith('warning: passed over sub-03/anat/sub-03_T2starw.nii.gz: ')
    assert warnings[1].startswith('warning: 1 scans, such as sub-01/anat/sub-01_T2starw.nii.gz, ')
    assert warnings[2].startswith('warning: --exclude-participant-label: there is no sub-2; see')
    assert warnings[2].endswith('what you meant: whoever is meant is learnt from')
    assert len(warnings) == 3
    told.clear()
    asked = replace(mine, query=replace(mine.query, exclude=(), participants=('03', '11')))
    with pytest.raises(NoInputError, match='no scan of sub-03, sub-11 in'):
        gather(asked, lambda: False, told.append)
    assert told[0].startswith('warning: passed over sub-03/anat/sub-03_T2starw.nii.gz: ')
    assert told[1].endswith('is no sub-11; see whether that is what you meant: nothing is learnt'
                            ' from them')  # fmt: skip
