"""Lesions put into a head whose zones the built-in network finds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from shivacmb.bids import find_scans
from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging.zones import SIDE_STEP, Zone
from shivacmb.simulate.implant import FOUND_AS, room
from shivacmb.simulate.implant_dataset import ImplantOrder, implant_dataset
from shivacmb.simulate.implant_files import load_host, zones_model
from shivacmb.simulate.lesions_place import ZONES

DEMO = Path(__file__).parents[2] / 'bids_examples' / 'demo'
MASKS = {'truth': DEMO / 'derivatives' / 'truth'}


def test_every_zone_of_simulated_heads_is_found() -> None:
    assert set(FOUND_AS) == set(ZONES)


@pytest.mark.parametrize('masks', [MASKS, None], ids=['given', 'built in'])
def test_lesions_of_a_head_lie_in_its_tissue(
    masks: dict[str, Path] | None, tmp_path: Path
) -> None:
    scan = find_scans(DEMO, participants=['01']).scans[0]
    host = load_host(scan, derivatives=masks).host
    assert host.zones is not None
    assert (host.zones[~host.brain] == 0).all()
    zone = host.zones % SIDE_STEP
    assert 10_000 < (zone == Zone.FLUID).sum() * np.prod(host.voxel_mm) < 400_000
    free = room(host)
    assert not free[zone == Zone.FLUID].any()
    assert {int(value) for value in np.unique(zone[free])} == set(FOUND_AS.values())
    order = ImplantOrder(seed=3, lesions=(20, 20))
    said: list[str] = []
    made, failures, _ = implant_dataset(
        DEMO, tmp_path / 'out', order, participants=['01'], derivatives=masks, say=said.append
    )
    assert (made, failures) == ([scan.stem], {})
    assert not any('zones' in text for text in said)
    table = next((tmp_path / 'out').rglob('*_desc-CMB_dseg.tsv'))
    with table.open() as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert len(rows) == 20
    back = np.linalg.inv(host.affine)
    for row in rows:
        centre = [float(row[axis]) for axis in 'xyz']
        voxel = back[:3, :3] @ centre + back[:3, 3]
        low = np.maximum(np.floor(voxel).astype(int) - 1, 0)
        near = zone[tuple(slice(first, first + 4) for first in low)]
        assert FOUND_AS[row['zone']] in near
    assert len({row['zone'] for row in rows}) > 2
    assert zones_model() in (tmp_path / 'out' / 'code' / 'simulate.json').read_text()


def test_a_head_in_which_no_brain_is_seen_is_told(no_brain_seen: None) -> None:
    found = load_host(find_scans(DEMO, participants=['01']).scans[0], derivatives=MASKS)
    assert found.host.zones is None
    assert any('its zones are not known, because the built-in' in note for note in found.notes)


def test_a_damaged_network_is_no_scan_without_brain(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise ModelError('altered')

    assert issubclass(ModelError, DataError)
    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', damaged)
    with pytest.raises(ModelError, match='altered'):
        load_host(find_scans(DEMO, participants=['01']).scans[0], derivatives=MASKS)
