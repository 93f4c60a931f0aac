"""The coarse zones of the brain: their numbers, names and groups.

A voxel of a zone map holds ``zone + 10 * side``: 11 is the left cortex, 21 the right one, 5 the
brainstem, which has no side. One digit tells the tissue, the other the side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Zone(IntEnum):
    """What a voxel of the brain belongs to."""

    BACKGROUND = 0
    CORTEX = 1
    WHITE_MATTER = 2
    DEEP_GREY = 3
    THALAMUS = 4
    BRAINSTEM = 5
    CEREBELLUM = 6
    FLUID = 7


class Side(IntEnum):
    """Left and right of the midline; ``NONE`` for zones that lie across it."""

    NONE = 0
    LEFT = 1
    RIGHT = 2


#: Zones that have no left and right.
MIDLINE = (Zone.BACKGROUND, Zone.BRAINSTEM, Zone.FLUID)
SIDE_STEP = 10
#: Groups in which microbleeds are counted: lobar ones point to amyloid angiopathy, deep ones to
#: disease of the small arteries (Greenberg 2009). The internal and the external capsule are deep,
#: as in MARS (Gregoire 2009); other white matter that MARS calls deep counts as lobar.
GROUPS: dict[str, tuple[Zone, ...]] = {
    'lobar': (Zone.CORTEX, Zone.WHITE_MATTER),
    'deep': (Zone.DEEP_GREY, Zone.THALAMUS),
    'infratentorial': (Zone.BRAINSTEM, Zone.CEREBELLUM),
}
_NAMES = {
    Zone.CORTEX: 'cerebral cortex',
    Zone.WHITE_MATTER: 'cerebral white matter',
    Zone.DEEP_GREY: 'basal ganglia and capsules',
    Zone.THALAMUS: 'thalamus',
    Zone.BRAINSTEM: 'brainstem',
    Zone.CEREBELLUM: 'cerebellum',
    Zone.FLUID: 'cerebrospinal fluid',
}
# what the simulator's truth calls them
_SIMULATED = {
    'cortex': Zone.CORTEX,
    'white matter': Zone.WHITE_MATTER,
    'basal ganglia': Zone.DEEP_GREY,
}
_SHORT = {
    Zone.CORTEX: 'CTX',
    Zone.WHITE_MATTER: 'WM',
    Zone.DEEP_GREY: 'BG',
    Zone.THALAMUS: 'THA',
    Zone.BRAINSTEM: 'BS',
    Zone.CEREBELLUM: 'CBL',
    Zone.FLUID: 'CSF',
}
# the standard labels of BIDS 1.10, "Common image-derived labels"
_BIDS = {
    Zone.CORTEX: 8,
    Zone.WHITE_MATTER: 2,
    Zone.DEEP_GREY: 9,
    Zone.THALAMUS: 9,
    Zone.BRAINSTEM: 10,
    Zone.CEREBELLUM: 11,
    Zone.FLUID: 3,
}


@dataclass(frozen=True)
class Region:
    """A zone with its side, one row of the look-up table.

    Attributes
    ----------
    index : int
        Its value in a zone map.
    name, abbreviation : str
        Such as ``left thalamus`` and ``L-THA``.
    mapping : int
        The standard label of BIDS.
    zone : Zone
    side : Side
    """

    index: int
    name: str
    abbreviation: str
    mapping: int
    zone: Zone
    side: Side


def _region(zone: Zone, side: Side) -> Region:
    word = '' if side is Side.NONE else side.name.lower()
    return Region(
        index=zone + SIDE_STEP * side,
        name=f'{word} {_NAMES[zone]}'.strip(),
        abbreviation=f'{word[:1].upper()}-{_SHORT[zone]}'.removeprefix('-'),
        mapping=_BIDS[zone],
        zone=zone,
        side=side,
    )


#: Every value of a zone map but 0.
REGIONS: dict[int, Region] = {
    region.index: region
    for region in sorted(
        (
            _region(zone, side)
            for zone in _NAMES
            for side in ((Side.NONE,) if zone in MIDLINE else (Side.LEFT, Side.RIGHT))
        ),
        key=lambda region: region.index,
    )
}


def zones_table() -> str:
    """Return the look-up table of a zone map, as BIDS wants it beside a ``dseg``."""
    rows = [
        f'{region.index}\t{region.name}\t{region.abbreviation}\t{region.mapping}'
        for region in REGIONS.values()
    ]
    return '\n'.join(['index\tname\tabbreviation\tmapping', *rows]) + '\n'


def group_of(name: str) -> str | None:
    """Return the group of :data:`GROUPS` that a region's name belongs to, None for the others."""
    for region in REGIONS.values():
        if region.name == name:
            return next((group for group, zones in GROUPS.items() if region.zone in zones), None)
    return None


def zone_name(text: str) -> str:
    """Return the name of a zone without its side, one for all who write of it.

    Parameters
    ----------
    text : str
        A region as the app writes it (``left cerebral white matter``), or a zone of simulated
        truth (``white_matter``).

    Returns
    -------
    str
        Such as ``cerebral white matter``; a word that is neither, unchanged.
    """
    plain = text.replace('_', ' ').removeprefix('left ').removeprefix('right ')
    if plain in _SIMULATED:
        return _NAMES[_SIMULATED[plain]]
    return plain if plain in _NAMES.values() else text
