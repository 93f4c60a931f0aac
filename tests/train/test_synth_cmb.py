from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import UsageError
from shivacmb.models import load_bundle, load_ensemble
from shivacmb.models.brain_mask import BUILTIN
from shivacmb.models.networks import load_network
from shivacmb.train import mirror, synth_cmb
from shivacmb.train.card import metadata
from shivacmb.train.compact import round_weights
from shivacmb.train.pool import PoolScan
from shivacmb.train.processor import processor_name
from shivacmb.train.start import mean_weights, shift_output
from shivacmb.train.synth_cmb import Plan, _source, both, judge, main

SHIPPED = Path(__file__).parents[2] / 'shivacmb' / 'models' / 'bundles' / 'synth-cmb'


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_command_builds_a_bundle_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the one fold is mirrored, as the second and third are otherwise
    monkeypatch.setattr(mirror, 'SIDES', ((0, 2),))
    # the least of each part: one fold, a scan to learn from, one to choose and one to measure on
    arguments = [
        '-o', str(tmp_path / 'tiny'), '--steps', '2', '--sharp-steps', '1', '--rounds', '1',
        '--fold-steps', '1', '--folds', '1',
        '--scans', '1', '--mined', '1', '--judged', '1', '--lesion-free', '1',
        '--batch', '2', '--size', '16',
        '--workers', '1', '--shape', '32', '32', '32', '--bundle-version', '7.1',
    ]  # fmt: skip
    assert main(arguments) == 0
    bundle = load_bundle(tmp_path / 'tiny')
    bundle.verify()
    assert len(bundle.folds) == 1
    assert bundle.version == '7.1'
    assert bundle.grid.shape == (32, 32, 32)
    assert bundle.training['seed'] == Plan.seed
    assert bundle.training['start'] == 'nothing'
    assert bundle.training['mirrored'] == [[0, 2]]
    # patches of 16 voxels are too small for bfloat16 on any machine
    assert bundle.training['precision'] == 'float32'
    assert processor_name() in bundle.training['hardware']
    assert bundle.metrics['simulated']['scans'] == 1
    quiet = bundle.metrics['lesion_free_simulated']
    assert (quiet['scans'], quiet['visible'], quiet['lesion_free']) == (1, 0, 1)
    batch = np.zeros((1, 32, 32, 32, 1), np.float32)
    assert load_ensemble(bundle, engine='openvino').predict(batch).shape == (1, 1, 32, 32, 32, 1)
    curve = (tmp_path / 'tiny.work' / 'base' / 'curve.tsv').read_text()
    assert curve.startswith('step\tlearning_rate\tloss\n2\t')
    # another training may begin with what this one made
    weights, name = mean_weights(tmp_path / 'tiny')
    assert name == f'{bundle.name} {bundle.version}'
    with np.load(tmp_path / 'tiny.work' / 'fold-0' / 'checkpoint.npz') as saved:
        made = round_weights([saved[key] for key in sorted(saved.files) if key[0] == 'w'])
    for ours, theirs in zip(weights[:-1], made[:-1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    stored = load_network(bundle.fold_path(bundle.folds[0]), 'keras', float32=True).get_weights()
    np.testing.assert_array_equal(stored[0], np.flip(made[0], (0, 2)))
    assert not np.array_equal(stored[0], made[0])


def test_a_fold_leaves_whole_heads_out(tmp_path: Path) -> None:
    plan = Plan(scans=12, folds=3)
    used = [set(_source(plan, tmp_path, 2 + fold, {}, fold).indices) for fold in range(3)]
    assert used[0] == {3, 4, 5, 6, 7, 8}
    assert used[0] | used[1] | used[2] == set(range(12))
    for indices in used:
        assert all({i - i % 3, i - i % 3 + 1, i - i % 3 + 2} <= indices for i in indices)


def test_the_rule_for_surroundings_is_judged_by_contrast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (20, 20, 20)
    labels = np.zeros(shape, np.uint8)
    labels[5:7, 5:7, 5:7] = 1
    row = {'number': 1, 'visible': True, 'radius': 1.0, 'voxel': [5, 5, 5]}
    scans = [PoolScan(labels, labels, labels, [row], contrast) for contrast in ('T2starw', 'swi')]
    monkeypatch.setattr(synth_cmb, 'load_scan', lambda _, index: scans[index])
    monkeypatch.setattr(synth_cmb, 'find_zones', lambda _: np.full(shape, 7, np.uint8))

    class Network:
        def predict(self, *_: object) -> np.ndarray:
            return (labels > 0).astype(np.float32)

    def hits(rule: dict[str, float] | None) -> int:
        pooled = [(tmp_path, 0), (tmp_path, 1)]
        return judge(Network(), [], pooled, rule)[0].hits  # type: ignore[arg-type]

    assert hits(None) == 2
    assert hits({'T2starw': 0.5}) == 1
    assert hits({'T2starw': 0.5, 'swi': 0.5}) == 0


def test_hard_negatives_of_two_searches_are_joined() -> None:
    one, two = np.array([[1, 2, 3]]), np.array([[4, 5, 6]])
    joined = both({0: one, 1: one}, {1: two, 2: two})
    assert {index: points.tolist() for index, points in joined.items()} == {
        0: [[1, 2, 3]], 1: [[1, 2, 3], [4, 5, 6]], 2: [[4, 5, 6]],
    }  # fmt: skip


def test_the_operating_point_moves_to_one_half() -> None:
    def sigmoid(x: float) -> float:
        return float(1 / (1 + np.exp(-x)))

    weights = [np.ones((1, 1, 1, 2, 1), np.float32), np.array([-4.0], np.float32)]
    shifted = shift_output(weights, 0.98)
    assert shifted[0] is weights[0]
    logit = np.log(0.98 / 0.02)
    assert sigmoid(logit) == pytest.approx(0.98)
    # an output that was 0.98 is 0.5 now
    assert sigmoid(logit + float(shifted[1][0]) - float(weights[1][0])) == pytest.approx(0.5)


def test_a_start_with_other_networks_is_refused() -> None:
    with pytest.raises(UsageError, match='holds other networks than those trained here'):
        mean_weights(SHIPPED.with_name(BUILTIN))


def test_too_few_heads_for_the_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='3 scans show one head only'):
        main(['-o', str(tmp_path / 'none'), '--scans', '3'])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['--judged', '--lesion-free'])
def test_a_training_that_could_not_be_measured_is_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match='give --judged and --lesion-free 1 or more'):
        main(['-o', str(tmp_path / 'none'), option, '0'])
    assert not list(tmp_path.iterdir())


def test_somebody_has_to_simulate(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='give --workers 1 or more'):
        main(['-o', str(tmp_path / 'none'), '--workers', '0'])
    assert not list(tmp_path.iterdir())


def test_a_shape_that_cannot_be_mirrored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='sides divide by 8, not 36 x 32 x 32'):
        main(['-o', str(tmp_path / 'none'), '--shape', '36', '32', '32'])
    assert not list(tmp_path.iterdir())


def test_the_shipped_bundle_is_whole_small_and_says_what_it_is() -> None:
    bundle = load_bundle(SHIPPED)
    bundle.verify()
    assert len(bundle.folds) == 3
    size = sum(path.stat().st_size for path in SHIPPED.rglob('*') if path.is_file())
    assert size < 16e6
    assert 'never shown the lesion of a patient' in ' '.join(bundle.description.split())
    assert 'Not validated on patients' in bundle.intended_use
    assert {entry.file for entry in bundle.folds} == {f'fold-{i}.keras' for i in range(3)}


def test_the_card_names_the_operating_point() -> None:
    rule = {'T2starw': 0.5}
    card = metadata(
        version='1', threshold=0.7, min_voxels=4, min_parenchyma=rule, training={}, metrics={}
    )
    assert card['postprocess'] == {
        'threshold': 0.7,
        'min_voxels': 4,
        'connectivity': 26,
        'min_parenchyma': {'T2starw': 0.5},
        'outline_threshold': 0.35,
    }
    assert card['intensity']['clip'] == 1.0
