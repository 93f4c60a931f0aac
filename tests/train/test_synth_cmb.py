from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import UsageError
from shivacmb.models import load_bundle, load_ensemble
from shivacmb.train.card import metadata
from shivacmb.train.compact import round_weights
from shivacmb.train.start import mean_weights
from shivacmb.train.synth_cmb import Plan, _source, main

SHIPPED = Path(__file__).parents[2] / 'shivacmb' / 'models' / 'bundles' / 'synth-cmb'


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_command_builds_a_bundle_from_nothing(tmp_path: Path) -> None:
    # one fold and six scans: about a minute of one core
    arguments = [
        '-o', str(tmp_path / 'tiny'), '--steps', '2', '--sharp-steps', '1',
        '--fold-steps', '1', '--folds', '1',
        '--scans', '4', '--mined', '1', '--judged', '1', '--batch', '2', '--size', '16',
        '--workers', '1', '--shape', '48', '64', '48',
    ]  # fmt: skip
    assert main(arguments) == 0
    bundle = load_bundle(tmp_path / 'tiny')
    bundle.verify()
    assert len(bundle.folds) == 1
    assert bundle.grid.shape == (48, 64, 48)
    assert bundle.training['seed'] == 1
    assert bundle.training['start'] == 'nothing'
    batch = np.zeros((1, 48, 64, 48, 1), np.float32)
    assert load_ensemble(bundle, engine='openvino').predict(batch).shape == (1, 1, 48, 64, 48, 1)
    curve = (tmp_path / 'tiny.work' / 'base' / 'curve.tsv').read_text()
    assert curve.startswith('step\tlearning_rate\tloss\n2\t')
    # another training may begin with what this one made
    weights, name = mean_weights(tmp_path / 'tiny')
    assert name == f'{bundle.name} {bundle.version}'
    with np.load(tmp_path / 'tiny.work' / 'fold-0' / 'checkpoint.npz') as saved:
        made = round_weights([saved[key] for key in sorted(saved.files) if key[0] == 'w'])
    for ours, theirs in zip(weights, made, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fold_leaves_whole_heads_out(tmp_path: Path) -> None:
    plan = Plan(scans=12, folds=3)
    used = [set(_source(plan, tmp_path, 2 + fold, {}, fold).indices) for fold in range(3)]
    assert used[0] == {3, 4, 5, 6, 7, 8}
    assert used[0] | used[1] | used[2] == set(range(12))
    for indices in used:
        assert all({i - i % 3, i - i % 3 + 1, i - i % 3 + 2} <= indices for i in indices)


def test_a_start_with_other_networks_is_refused() -> None:
    with pytest.raises(UsageError, match='holds other networks than those trained here'):
        mean_weights(SHIPPED.with_name('brain-zones'))


def test_too_few_heads_for_the_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='3 scans show one head only'):
        main(['-o', str(tmp_path / 'none'), '--scans', '3'])
    assert not list(tmp_path.iterdir())


def test_the_shipped_bundle_is_whole_small_and_says_what_it_is() -> None:
    bundle = load_bundle(SHIPPED)
    bundle.verify()
    assert len(bundle.folds) == 3
    size = sum(path.stat().st_size for path in SHIPPED.rglob('*') if path.is_file())
    assert size < 8e6
    assert 'never shown the lesion of a patient' in ' '.join(bundle.description.split())
    assert 'Not validated on patients' in bundle.intended_use
    assert {entry.file for entry in bundle.folds} == {f'fold-{i}.keras' for i in range(3)}


def test_the_card_names_the_operating_point() -> None:
    card = metadata(threshold=0.7, min_voxels=4, training={}, metrics={})
    assert card['postprocess'] == {'threshold': 0.7, 'min_voxels': 4, 'connectivity': 26}
    assert card['intensity']['clip'] == 1.0
