"""What is planned for a scan depends on its contrast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli.plans import build_detection, hash_of, source_uri
from shivacmb.cli.run import prepare, search
from shivacmb.cli.settings import Settings
from shivacmb.models import load_bundle
from shivacmb.workflows.plan import ScanPlan


def plans(bids: Path, folder: Path, **changed: Any) -> dict[str, ScanPlan]:
    settings = Settings(bids, bids.parent / 'out', 'participant', model=str(folder), **changed)
    bundle = load_bundle(folder)
    detection = build_detection(settings, bundle)
    found = {}
    for scan in search(settings).scans:
        _, plan = prepare(settings, scan, detection, bundle)
        assert isinstance(plan, ScanPlan)
        found[scan.contrast] = plan
    return found


@pytest.mark.parametrize(
    ('changed', 'expected'),
    [
        ({}, {'T2starw': 0.5, 'swi': 0.0}),
        ({'min_parenchyma': 0.25}, {'T2starw': 0.25, 'swi': 0.25}),
        ({'min_parenchyma': 0.0}, {'T2starw': 0.0, 'swi': 0.0}),
    ],
)
def test_rule_for_what_surrounds_a_lesion(
    tmp_path: Path, make_spot_bundle: Any, changed: dict[str, Any], expected: dict[str, float]
) -> None:
    bids = tmp_path / 'bids'
    for name in ('sub-01/anat/sub-01_T2starw', 'sub-02/swi/sub-02_swi'):
        path = bids / f'{name}.nii.gz'
        path.parent.mkdir(parents=True)
        path.write_bytes(b'not looked at')
    description = {'Name': 'test', 'BIDSVersion': '1.10.0'}
    (bids / 'dataset_description.json').write_text(json.dumps(description))
    post = {'threshold': 0.4, 'min_parenchyma': {'T2starw': 0.5}}
    folder = make_spot_bundle(tmp_path / 'model', postprocess=post)

    found = plans(bids, folder, **changed)
    assert {name: plan.min_parenchyma for name, plan in found.items()} == expected
    for name, plan in found.items():
        assert plan.facts['parameters']['min_parenchyma'] == expected[name]
        assert plan.facts['record']['min_parenchyma'] == expected[name]
    other = plans(bids, folder, **{**changed, 'min_parenchyma': 0.9})

    def hashes(of: dict[str, ScanPlan]) -> set[str]:
        return {plan.facts['record']['settings_hash'] for plan in of.values()}

    assert len(hashes(found)) == 1, 'both contrasts of a run have the same settings'
    assert not hashes(found) & hashes(other), 'a finished scan is processed again'
    assert len(hashes(other)) == 1


def test_without_a_rule_scans_stay_finished(tmp_path: Path, make_spot_bundle: Any) -> None:
    """Their settings are those of versions that knew no rule."""
    path = tmp_path / 'bids' / 'sub-01' / 'anat' / 'sub-01_T2starw.nii'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'not looked at')
    ruled = make_spot_bundle(
        tmp_path / 'ruled', postprocess={'threshold': 0.4, 'min_parenchyma': {'T2starw': 0.5}}
    )
    found = []
    for changed in ({'min_parenchyma': 0.0}, {'no_zones': True}, {}):
        [plan] = plans(tmp_path / 'bids', ruled, skip_bids_validation=True, **changed).values()
        found.append(plan)
    assert [plan.min_parenchyma for plan in found] == [0.0, 0.0, 0.5]
    facts = found[0].facts
    del facts['parameters']['min_parenchyma'], facts['parenchyma_rule']
    assert hash_of({**facts, 'parenchyma_rule': {}}, 'auto') == (facts['record']['settings_hash'])
    assert len({plan.facts['record']['settings_hash'] for plan in found}) == 3


@pytest.mark.parametrize(
    ('outline', 'changed', 'told'),
    [
        (None, {}, None),
        (0.3, {}, 0.3),
        (0.3, {'threshold': 0.3}, None),
        (0.3, {'threshold': 0.35}, 0.3),
    ],
)  # fmt: skip
def test_outlines_are_among_the_settings_where_there_are_any(
    tmp_path: Path, make_spot_bundle: Any, outline: float | None, changed: dict[str, float],
    told: float | None,
) -> None:  # fmt: skip
    path = tmp_path / 'bids' / 'sub-01' / 'anat' / 'sub-01_T2starw.nii'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'not looked at')
    post = {'threshold': 0.4} | ({} if outline is None else {'outline_threshold': outline})
    folder = make_spot_bundle(tmp_path / 'model', postprocess=post)
    [plan] = plans(tmp_path / 'bids', folder, skip_bids_validation=True, **changed).values()
    assert plan.facts['parameters'].get('outline_threshold') == told
    assert plan.facts['record']['outline_threshold'] == told


def test_sources_can_be_found_again(tmp_path: Path) -> None:
    bids = tmp_path / 'raw'
    inside = bids / 'derivatives' / 'x' / 'sub-1_desc-brain_mask.nii'
    assert source_uri(inside, bids) == 'bids:raw:derivatives/x/sub-1_desc-brain_mask.nii'
    assert source_uri(tmp_path / 'a b.nii', bids) == f'file://{tmp_path}/a%20b.nii'
    assert source_uri(inside, None) == f'file://{inside}'
