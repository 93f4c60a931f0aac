"""Lengths, paces, and what may change while a training is under way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import UsageError
from shivacmb.models import Grid
from shivacmb.train.card_text import card_text
from shivacmb.train.curves import join_curves
from shivacmb.train.dataset import LabelClass
from shivacmb.train.plan import NETWORKS, Plan, check_same, note_plan


def test_the_defaults_are_those_of_the_paper() -> None:
    plan = Plan()
    plan.check()
    assert plan.architecture == {'filters': 10, 'stages': 7, 'convolutions': 2, 'growth': 1.8}
    assert plan.grid.shape == (160, 216, 176)
    assert (plan.low, plan.high, plan.folds, plan.loss) == (1e-6, 1e-3, 3, 'dice')
    moves = plan.augmentation
    assert (moves.flip, moves.shift_voxels, moves.rotation_degrees) == (True, 10, 10.0)
    assert plan.patch is None
    assert plan.precision == 'float32'


def test_an_epoch_shows_every_scan_or_eight_patches_of_it() -> None:
    assert Plan(batch=4).epoch(10) == 3
    assert Plan(batch=4, patch=32).epoch(10) == 20
    assert Plan(epochs=5, batch=4).total(10) == 15
    assert Plan(epochs=5, steps=7).total(10) == 7


def test_cycles_last_eight_epochs_and_end_at_a_hundredth() -> None:
    plan = Plan(epochs=100)
    cycle = plan.rate(10)
    assert cycle.half == 4 * 10
    assert cycle.decay ** plan.total(10) == pytest.approx(0.01)
    assert Plan(cycle=30, decay=0.99).rate(10).half == 15
    assert Plan(cycle=30, decay=0.99).rate(10).decay == 0.99
    # a short training has one whole cycle
    assert Plan(steps=6).rate(10).half == 3


def test_folds_begin_with_different_weights() -> None:
    seeds = {Plan(seed=seed).recipe(9, fold).seed for seed in range(3) for fold in range(3)}
    assert len(seeds) == 9


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'folds': 1}, '--folds must be at least 2'),
        ({'low': 1e-2}, '0 < --min-rate <= --max-rate'),
        ({'low': 0.0}, '0 < --min-rate <= --max-rate'),
        ({'seed': 5_000_000}, '--seed must be below 42949'),
        ({'architecture': {'growth': 0.1}}, '--growth leaves a stage without filters'),
        ({'decay': 1.5}, '--decay must be above 0 and at most 1, not 1.5'),
        ({'patch': 170}, r'--patch-size 170 is larger than the box \(160, 216, 176\)'),
        (
            {'patch': 64},
            '7 stages leave one voxel of 64, which .* --patch-size above 64, fewer',
        ),
        ({'architecture': {**NETWORKS['small'], 'stages': 4}, 'patch': 16}, 'patch-size above 16'),
        ({'grid': Grid((64, 60, 62))}, 'one voxel of 64, .* a side of --shape above 64'),
        ({'architecture': NETWORKS['small'], 'patch': 31}, 'must divide by 2'),
        ({'architecture': NETWORKS['small'], 'grid': Grid((31, 32, 32))}, 'must divide by 2'),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**changes).check()


@pytest.mark.parametrize(
    'changes',
    [
        {'patch': 65},
        {'patch': 64, 'batch': 2},
        {'patch': 32, 'architecture': NETWORKS['small']},
        {'grid': Grid((64, 65, 64))},
    ],
)
def test_two_voxels_at_the_lowest_stage_are_enough(changes: dict[str, Any]) -> None:
    Plan(**changes).check()


def test_length_rate_and_precision_may_change_and_nothing_else() -> None:
    before = Plan().to_json()
    later = replace(Plan(), epochs=300, high=1e-4, cycle=10, decay=0.9, precision='mixed_bfloat16')
    check_same(later.to_json(), before, 'work')
    with pytest.raises(UsageError, match=r'in <work> was begun with other settings: '
                       r'patch \(null before, 32 now\); run the command'):  # fmt: skip
        check_same(replace(Plan(), patch=32).to_json(), before, 'work')


def test_curves_of_folds_are_joined() -> None:
    rows = [{'step': 1.0, 'learning_rate': 1e-6, 'loss': 0.5, 'validation_loss': None}]
    assert join_curves([rows, rows]).splitlines() == [
        'fold\tstep\tlearning_rate\tloss\tvalidation_loss',
        '0\t1\t1e-06\t0.5\tn/a', '1\t1\t1e-06\t0.5\tn/a',
    ]  # fmt: skip


def test_steps_of_a_long_training_are_whole_in_the_table() -> None:
    rows = [{'step': float(step), 'learning_rate': 1e-3, 'loss': 0.5, 'validation_loss': None}
            for step in (999_999, 1_234_567, 1_234_568)]  # fmt: skip
    steps = [line.split('\t')[1] for line in join_curves([rows]).splitlines()[1:]]
    assert steps == ['999999', '1234567', '1234568']


def test_the_card_says_what_it_was_trained_on() -> None:
    own = {'scans': 4, 'lesions': 7, 'found': 6, 'sensitivity': 0.857, 'precision': None,
           'false_positives_per_scan': 0.25, 'f1': 0.8}  # fmt: skip
    text = card_text({
        'name': 'm', 'version': '1', 'license': '', 'intended_use': 'Research.',
        'inputs': [{'name': 'swi', 'contrasts': ['swi']}], 'grid': {'shape': [1, 2, 3]},
        'architecture': {'family': 'unet3d'},
        'postprocess': {'threshold': 0.4, 'min_voxels': 3},
        'training': {
            'data': {'site': {'people': 3, 'scans': 4, 'scans_without_lesions': 1,
                              'contrasts': {'T2starw': 3, 'swi': 1}, 'lesions': {'CMB': 7}}},
            'fold_sizes': [2, 2], 'recipe': {**Plan().to_json(), 'steps': [5, 6], 'rates': [
                [{'from_step': 0, 'low': 1e-3, 'high': 0.1, 'cycle': 8, 'decay': 0.9},
                 {'from_step': 3, 'low': 1e-6, 'high': 1e-3, 'cycle': 10, 'decay': 0.92}],
                [{'from_step': 0, 'low': 1e-6, 'high': 1e-3, 'cycle': 9, 'decay': 0.9}]]},
            'optimizer': 'Adam', 'start': 'random weights', 'minutes': 2.0,
            'finished': '2026-01-01', 'software': 'shivacmb 0', 'machines': [
                {'device': 'cpu', 'cpu': 'a', 'cpu_cores': 2, 'backend': 'b 1', 'keras': '3'}],
        },
        'metrics': {'class': 'CMB', 'soft_dice': 0.5, 'unseen': own, 'unseen_by_fold': [own],
                    'note': 'each scan.'},
    })  # fmt: skip
    assert '| site | 3 | 4 | 3 T2starw, 1 swi | 1 | 7 CMB |' in text
    assert '**Licence.** not stated' in text
    assert '| all | 4 | 7 | 0.857 | n/a | 0.25 | 0.8 |' in text
    assert 'threshold 0.4, at least 3 voxels' in text
    assert (
        '- fold 0: from step 0 learning rate 0.001 to 0.1 in cycles of 8 steps, times 0.9 each '
        'step; from step 3 learning rate 1e-06 to 0.001 in cycles of 10 steps, times 0.92 each '
        'step\n- fold 1: from step 0 learning rate 1e-06 to 0.001 in cycles of 9 steps'
    ) in text


def test_an_ignored_value_of_a_class_is_refused() -> None:
    plan = Plan(classes=(LabelClass('CMB', (1, 2)),), ignore=(2, 9))
    with pytest.raises(UsageError, match='--ignore 2 is a value of the class CMB; leave it out'):
        plan.check()


def test_a_work_folder_is_for_one_plan(tmp_path: Path) -> None:
    work = tmp_path / 'work'
    note_plan(work, {'seed': 2, 'shape': (3, 3), 'start': None})
    note_plan(work, {'seed': 2, 'shape': (3, 3), 'start': None})
    with pytest.raises(UsageError, match=r'other settings: seed \(2 before, 3 now\); .*--work'):
        note_plan(work, {'seed': 3, 'shape': (3, 3), 'start': None})
    with pytest.raises(UsageError, match=r'layout \(null before, 1 now\)'):
        note_plan(work, {'seed': 2, 'shape': (3, 3), 'start': None, 'layout': 1})
    (work / 'plan.json').write_text('{"see')
    with pytest.raises(UsageError, match=r'plan\.json> cannot be read; give another folder'):
        note_plan(work, {'seed': 2})
