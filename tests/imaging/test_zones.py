"""Numbers and names of the zones, and their way back to the scan's own grid."""

from __future__ import annotations

import numpy as np

from shivacmb.imaging import zones_to_input
from shivacmb.imaging.zones import GROUPS, REGIONS, Zone, group_of, zone_name, zones_table
from shivacmb.simulate.lesions_place import ZONES as SIMULATED


def test_every_value_names_its_zone_and_side() -> None:
    assert len(REGIONS) == 5 * 2 + 2
    assert REGIONS[14].name == 'left thalamus'
    assert REGIONS[24].abbreviation == 'R-THA'
    assert REGIONS[5].name == 'brainstem'
    for index, region in REGIONS.items():
        assert index == region.index == region.zone + 10 * region.side
    names = [region.name for region in REGIONS.values()]
    assert len(set(names)) == len(names)


def test_zones_have_one_name_whoever_writes_them() -> None:
    names = {zone_name(region.name) for region in REGIONS.values()}
    assert len(names) == len(Zone) - 1
    assert {zone_name(word) for word in SIMULATED} == names - {'cerebrospinal fluid'}
    assert zone_name('basal_ganglia') == zone_name('right basal ganglia and capsules')
    assert zone_name('left frontal_lobe') == 'left frontal_lobe'


def test_groups_hold_every_zone_but_fluid_once() -> None:
    grouped = [zone for zones in GROUPS.values() for zone in zones]
    assert sorted(grouped) == [zone for zone in Zone if zone not in (0, Zone.FLUID)]
    assert group_of('right cerebral white matter') == 'lobar'
    assert group_of('left basal ganglia and capsules') == 'deep'
    assert group_of('brainstem') == 'infratentorial'
    assert group_of('cerebrospinal fluid') is None
    assert group_of('') is None


def test_table_has_the_columns_of_bids() -> None:
    rows = [line.split('\t') for line in zones_table().splitlines()]
    assert rows[0] == ['index', 'name', 'abbreviation', 'mapping']
    assert ['26', 'right cerebellum', 'R-CBL', '11'] in rows
    assert [int(row[0]) for row in rows[1:]] == sorted(REGIONS)


def test_zones_go_back_to_the_nearest_voxel() -> None:
    zones = np.zeros((4, 6, 8), np.uint8)
    zones[:2], zones[2:] = 11, 21
    # input axes are (z, x flipped, y), its voxels half as long along the flipped axis
    to_input = np.array([[0, 0, 1, 0], [-2, 0, 0, 6.5], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    back = zones_to_input(zones, to_input, (9, 8, 6))
    assert back.dtype == np.uint8
    assert (back[:8, 4:] == 11).all()
    assert (back[:8, :4] == 21).all()
    assert (back[8] == 0).all()  # beyond the isotropic grid
