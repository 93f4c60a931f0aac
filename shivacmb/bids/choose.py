"""Choose one file among those that show the same acquisition, and say why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shivacmb.bids.listing import Folder
from shivacmb.bids.rules import SPELLINGS, SUFFIX_FAMILY

#: Echo time in seconds to look for among several echoes; a choice (docs/decisions/0031).
PREFERRED_ECHO_TIME_S = 0.020


@dataclass
class Candidate:
    """A NIfTI file that passed every refusal."""

    folder: Folder
    name: str
    pairs: dict[str, str]
    suffix: str
    extension: str
    contrast: str
    source: str
    entities: dict[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    named: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder.path / self.name

    @property
    def properties(self) -> dict[str, str]:
        """What filters look at: entities under short keys, suffix, datatype, extension."""
        return {
            **self.pairs,
            'suffix': self.suffix,
            'datatype': self.folder.datatype,
            'extension': self.extension,
        }

    @property
    def key(self) -> tuple[Any, ...]:
        """What files of the same acquisition share: all entities but ``part`` and ``echo``.

        Letter case is ignored, because output names that differ in nothing else collide on file
        systems that ignore it (and are an error in BIDS).
        """
        rest = sorted(
            (key, value.casefold())
            for key, value in self.pairs.items()
            if key not in {'sub', 'ses', 'part', 'echo'}
        )
        return (self.folder.participant, self.folder.session or '', *rest)

    @property
    def echo_time_s(self) -> float | None:
        """Echo time in seconds, or None when the sidecar has none."""
        value = self.metadata.get('EchoTime')
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        try:
            value = float(value)
        except OverflowError:  # an integer of hundreds of digits
            return None
        if not math.isfinite(value) or value <= 0:
            return None
        # BIDS wants seconds; no gradient echo lasts one second, so larger values are milliseconds
        return value / 1000 if value >= 1 else value

    @property
    def echo(self) -> int | None:
        """Number of the echo, or None."""
        digits = self.pairs.get('echo', '')
        return int(digits) if digits.isdigit() else None

    @property
    def family_rank(self) -> int:
        """Preference between kinds of image, 0 first."""
        family = SUFFIX_FAMILY.get(self.suffix.lower())
        magnitude = 'part' in self.pairs
        if self.named:
            return 0
        if family == 'swi':
            return 2 if magnitude else 1
        if self.contrast == 'swi':
            return 3
        if family == 'megre':
            return 6 if magnitude else 7
        return 4 if magnitude else 5


def _spelling_rank(suffix: str) -> tuple[int, int, str]:
    families = list(SUFFIX_FAMILY)
    low = suffix.lower()
    return (
        families.index(low) if low in families else len(families),
        SPELLINGS.index(suffix) if suffix in SPELLINGS else len(SPELLINGS),
        suffix,
    )


def _echo_rank(candidate: Candidate, *, use_times: bool) -> tuple[float, int]:
    if candidate.echo is None:
        return (-1.0, 0)
    time = candidate.echo_time_s
    if use_times and time is not None:
        # rounded to a microsecond, so that the last bit of a sidecar does not decide
        return (round(abs(time - PREFERRED_ECHO_TIME_S), 6), candidate.echo)
    return (0.0, candidate.echo)


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, list[tuple[Candidate, str]]]:
    """Pick the scan of one acquisition.

    Order: kind of image (SWI, T2* marked as SWI, T2* ``part-mag``, T2*, MEGRE), spelling of the
    suffix, echo (none, else the echo time closest to 20 ms when every echo has one, else the
    first), ``anat`` before ``swi``, ``.nii.gz`` before ``.nii``, a name with its session before
    one without, name.

    Returns
    -------
    winner
        The scan.
    losers
        Each other candidate with the reason and the way to take it.
    """
    best_kind = min((item.family_rank, _spelling_rank(item.suffix)) for item in candidates)
    echoes = [
        item
        for item in candidates
        if item.echo is not None and (item.family_rank, _spelling_rank(item.suffix)) == best_kind
    ]
    use_times = bool(echoes) and all(item.echo_time_s is not None for item in echoes)
    ranked = sorted(
        candidates,
        key=lambda item: (
            item.family_rank,
            _spelling_rank(item.suffix),
            _echo_rank(item, use_times=use_times),
            item.folder.datatype != 'anat',
            item.extension != '.nii.gz',
            'ses' not in item.pairs,
            item.name,
        ),
    )
    winner = ranked[0]
    if winner.echo is not None:
        time = winner.echo_time_s
        shown = 'no echo times in the sidecars: the first'
        if use_times and time is not None:
            shown = f'echo time {time * 1000:.1f} ms, the closest to 20 ms'
        winner.source += f'; echo-{winner.pairs["echo"]} of {len(echoes)} ({shown})'
    return winner, [(item, _why_lost(item, winner)) for item in ranked[1:]]


def _why_lost(loser: Candidate, winner: Candidate) -> str:
    if loser.contrast != winner.contrast:
        modality = 'swi' if loser.contrast == 'swi' else 't2s'
        return (
            f'{winner.name} shows the same acquisition and SWI goes before T2*; to take this '
            f'one: --modality {modality}'
        )
    if loser.family_rank != winner.family_rank:
        section = 'swi' if loser.contrast == 'swi' else 't2starw'
        part = f'"{loser.pairs["part"]}"' if 'part' in loser.pairs else 'null'
        if 'echo' in loser.pairs:
            part += f', "echo": "{loser.pairs["echo"]}"'
        return (
            f'{winner.name} is preferred (order: SWI, T2starw part-mag, T2starw, MEGRE); to take '
            f'this one: --bids-filter-file with {{"{section}": {{"suffix": "{loser.suffix}", '
            f'"part": {part}}}}}'
        )
    if loser.suffix != winner.suffix:
        return f'{winner.name} is the same image under the usual suffix {winner.suffix}'
    if loser.pairs.get('echo') != winner.pairs.get('echo'):
        echo = f'"{loser.pairs["echo"]}"' if 'echo' in loser.pairs else 'null'
        if winner.echo is None:
            return (
                f'{winner.name} is not one of several echoes and goes before this; to take this '
                f'one: --bids-filter-file with {{"scan": {{"echo": {echo}}}}}'
            )
        return (
            f'one echo is read, {winner.name} ({winner.source.split("; ")[-1]}); to take this '
            f'one: --bids-filter-file with {{"scan": {{"echo": {echo}}}}}'
        )
    if loser.folder.datatype != winner.folder.datatype:
        return f'the same image name in {winner.folder.datatype}/ goes before this folder'
    if loser.extension != winner.extension:
        return f'{winner.name} has the same name, and .nii.gz goes before .nii'
    if ('ses' in loser.pairs) != ('ses' in winner.pairs):
        return f'{winner.name} has the same name with its session and goes before this'
    return f'{winner.name} differs in upper and lower case only'
