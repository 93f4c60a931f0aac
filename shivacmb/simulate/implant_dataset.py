"""A copy of a user's scans with lesions in them, and the truth: ``simulate OUT --into DIR``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shivacmb.bids import Scan, write_text
from shivacmb.bids.channels import bare_name
from shivacmb.exceptions import OutputError, ShivaCMBError, UsageError
from shivacmb.simulate.bids_dataset import SIMULATOR
from shivacmb.simulate.dataset_root import prepare_root
from shivacmb.simulate.files import staging, write_table
from shivacmb.simulate.implant import draw_lesions, draw_positions, implant, room
from shivacmb.simulate.implant_files import (
    Fallback,
    input_sums,
    load_host,
    write_implanted,
    zones_model,
)
from shivacmb.simulate.implant_find import find_hosts
from shivacmb.simulate.lesions_place import check_wishes, draw_count
from shivacmb.simulate.truth import truth_names, write_truth


@dataclass(frozen=True)
class ImplantOrder:
    """What is to be put into every scan.

    Attributes
    ----------
    seed : int
        With the name of the scan it decides everything.
    lesions : tuple of two int, optional
        Least and most lesions; None draws as in the VALDO cohort.
    lesion_free : float
        Share of scans without lesions when ``lesions`` is None.
    radius_mm, chi_ppm
        See :func:`shivacmb.simulate.implant.draw_lesions`.
    fallback : Fallback
        For silent sidecars.
    """

    seed: int = 0
    lesions: tuple[int, int] | None = None
    lesion_free: float = 0.3
    radius_mm: tuple[float, float] | None = None
    chi_ppm: tuple[float, float] = (0.15, 2.5)
    fallback: Fallback = field(default_factory=Fallback)

    def __post_init__(self) -> None:
        check_wishes(self.lesions, self.lesion_free, self.radius_mm, self.chi_ppm)


def scan_stream(seed: int, stem: str, number: int = 0) -> np.random.Generator:
    """Random generator of one scan: the same in every dataset that holds a scan of that name."""
    name = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], 'little')
    return np.random.default_rng([seed, name, number])


def check_folders(bids_dir: Path, out_dir: Path) -> None:
    """Refuse to write into the user's dataset.

    Raises
    ------
    UsageError
        When one folder lies within the other, ``derivatives`` and ``sourcedata`` excepted.
    """
    source, target = bids_dir.resolve(), out_dir.resolve()
    allowed = [source / 'derivatives', source / 'sourcedata']
    inside = target.is_relative_to(source) and not any(
        target.is_relative_to(folder) and target != folder for folder in allowed
    )
    if inside or source.is_relative_to(target):
        raise UsageError(
            f'<{out_dir}> lies in <{bids_dir}> or holds it; give a folder of its own, so that '
            'the scans stay as they are'
        )


def implant_dataset(
    bids_dir: Path,
    out_dir: Path,
    order: ImplantOrder,
    *,
    participants: Sequence[str] | None = None,
    modality: Any = 'auto',
    derivatives: Mapping[str, Path] | None = None,
    mask_pattern: str | None = None,
    report: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[list[str], dict[str, ShivaCMBError], list[str]]:
    """Copy the scans of a dataset with lesions put in.

    Parameters
    ----------
    bids_dir : Path
        The user's dataset; nothing in it is changed.
    out_dir : Path
        New, empty, or begun with the same order, modality and masks.
    order : ImplantOrder
        What is to be put in.
    participants, modality
        See :func:`shivacmb.bids.find_scans`.
    derivatives, mask_pattern
        Where brain masks are, see :func:`shivacmb.bids.find_brain_mask`.
    report : callable, optional
        Told how many scans are done, and of how many.
    say : callable, optional
        Told what was guessed and what failed.

    Returns
    -------
    made : list of str
        Stems of the scans written now.
    failures : dict of str to ShivaCMBError
        Scans that could not be used, participants asked for that have none, and folders that
        could not be listed; they stop no other.
    kept : list of str
        Stems of the scans that were finished earlier, and whose files are as they were then.

    Raises
    ------
    UsageError
        When the folders do not suit.
    NoInputError
        When there is no scan.
    """
    check_folders(bids_dir, out_dir)
    scans, failures = find_hosts(
        bids_dir, participants=participants, modality=modality, mask_pattern=mask_pattern, say=say
    )
    masks = [[name, str(path.resolve())] for name, path in (derivatives or {}).items()]
    search = {
        'modality': modality, 'derivatives': masks, 'mask_pattern': mask_pattern,
        'zones': zones_model(),
    }  # fmt: skip
    tell = say or _silent
    # before the first scan: hours later nobody looks
    ignored, people, words = (
        _text(bids_dir / name, tell)
        for name in ('.bidsignore', 'participants.tsv', 'participants.json')
    )
    _prepare(bids_dir, out_dir, order, search, ignored)
    made: list[str] = []
    kept: list[str] = []
    for number, scan in enumerate(scans, start=1):
        if report is not None:
            report(number - 1, len(scans))
        before = _earlier(out_dir, scan)
        try:
            inputs = input_sums(scan, derivatives, mask_pattern)
            if before is not None and before.inputs == inputs and before.whole:
                kept.append(scan.stem)
                continue
            notes = _one(out_dir, scan, order, derivatives, mask_pattern, inputs, before)
        except OutputError:
            raise
        except ShivaCMBError as error:
            failures[scan.stem] = error
            notes = (f'{scan.name}: {error}',)
            if before is not None:
                stays = 'what an earlier run made of it is still there'
                notes += (f'{scan.name}: {stays}, in <{_folders(out_dir, scan)[0]}>',)
        else:
            made.append(scan.stem)
        for note in notes:
            tell(note)
    _participants(out_dir, people, words)
    if report is not None:
        report(len(scans), len(scans))
    return made, failures, kept


def _folders(out_dir: Path, scan: Scan) -> tuple[Path, Path]:
    """Folders of the images and of the truth."""
    inner = Path(f'sub-{scan.participant}')
    if scan.session is not None:
        inner /= f'ses-{scan.session}'
    return out_dir / inner / scan.datatype, out_dir / 'derivatives' / 'truth' / inner / 'anat'


def _marker(out_dir: Path, scan: Scan) -> Path:
    """The file that is written last."""
    return _folders(out_dir, scan)[1] / f'{scan.stem}_desc-CMB_dseg.json'


@dataclass(frozen=True)
class _Earlier:
    """What an earlier run wrote of a scan: the checksums of what it read, images and truth."""

    inputs: Any
    images: tuple[Path, ...]
    truth: tuple[Path, ...]

    @property
    def whole(self) -> bool:
        files = (*self.images, *map(_sidecar, self.images), *self.truth)
        return all(path.is_file() for path in files)

    def remove(self) -> None:
        """Remove the images and their sidecars: the new ones may have other names."""
        for path in self.images:
            for old in (path, _sidecar(path)):
                old.unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(f'{bare_name(path)}.json')


def _earlier(out_dir: Path, scan: Scan) -> _Earlier | None:
    """What is there of a scan; None when it was not finished."""
    try:
        facts = json.loads(_marker(out_dir, scan).read_text('utf-8'))
        # names alone: nothing outside the folder of the copies is ever ours
        names = [str(source).rpartition('/')[2] for source in facts['Sources']]
        raw, truth = _folders(out_dir, scan)
        return _Earlier(
            facts['Inputs'], tuple(raw / name for name in names),
            tuple(truth / name for name in truth_names(scan.stem)),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _one(
    out_dir: Path,
    scan: Scan,
    order: ImplantOrder,
    derivatives: Mapping[str, Path] | None,
    mask_pattern: str | None,
    inputs: Mapping[str, Any],
    before: _Earlier | None,
) -> tuple[str, ...]:
    found = load_host(
        scan, derivatives=derivatives, mask_pattern=mask_pattern, fallback=order.fallback
    )
    host = found.host
    rng = scan_stream(order.seed, scan.stem)
    if order.lesions is None:
        count = draw_count(rng, free=order.lesion_free)
    else:
        count = int(rng.integers(order.lesions[0], order.lesions[1] + 1))
    where = draw_positions(rng, host, room(host), count) if count else (np.empty((0, 3)), [])
    lesions = draw_lesions(rng, host, *where, radius_mm=order.radius_mm, chi_ppm=order.chi_ppm)
    new = implant(rng, host, lesions)
    raw, truth = _folders(out_dir, scan)
    with staging(out_dir, scan.stem) as stage:
        parts = (stage / 'raw', stage / 'truth')
        for part in parts:
            part.mkdir()
        names = write_implanted(parts[0], scan, found, new)
        inner = scan.relative_path.rpartition('/')[0]
        write_truth(
            parts[1], scan.stem, labels=new.labels, brain=host.brain, affine=host.affine,
            to_scanner=host.to_scanner, lesions=new.lesions,
            sources=[f'bids:raw:{inner}/{name}' for name in names],
            facts={'FieldStrength': host.protocol.field_t, 'EchoTime': host.protocol.echo_s,
                   'VoxelSize': [round(value, 4) for value in host.voxel_mm],
                   'Inputs': dict(inputs),
                   'Note': NOTE + (NOTE_SWI if host.swi else '')},
        )  # fmt: skip
        last = _marker(out_dir, scan)
        if before is not None:
            before.remove()
            last.unlink(missing_ok=True)
        for source, target in zip(parts, (raw, truth), strict=True):
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(source.iterdir(), key=lambda item: item.name == last.name):
                path.replace(target / path.name)
    if before is None:
        return found.notes
    why = 'it, its phase, a sidecar or its mask changed'
    if before.inputs == inputs:
        why = 'files of its copy were gone'
    return (*found.notes, f'{scan.name}: {why}, so its copy was made anew')


def _text(path: Path, tell: Callable[[str], None]) -> str | None:
    """Text of a file that describes the dataset; None, and said, where it cannot be read."""
    try:
        return path.read_text('utf-8-sig')
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        tell(
            f'<{path}> was left out, it cannot be read as UTF-8 text ({error}); save it as UTF-8 '
            'and run the same command again'
        )
        return None


def _prepare(
    bids_dir: Path,
    out_dir: Path,
    order: ImplantOrder,
    search: Mapping[str, Any],
    ignored: str | None,
) -> None:
    lines = (ignored or '').splitlines()
    prepare_root(
        out_dir,
        {**asdict(order), 'into': str(bids_dir.resolve()), **search, 'simulator': SIMULATOR},
        name='Scans with simulated microbleeds',
        readme=README,
        description={'SourceDatasets': [{'URL': bids_dir.resolve().as_uri()}]},
        ignore='\n'.join(dict.fromkeys([*lines, '*_swi.*'])) + '\n',
    )


NOTE = 'Lesions that the person has are not listed.'
NOTE_SWI = ' Losses are those of the SWI, by magnitude and phase.'

README = """\
# Scans with simulated microbleeds

Scans of people into which `shivacmb-tools simulate --into` put microbleeds that are not theirs;
`code/simulate.json` has the settings. Everything outside the lesions is as it was. Same terms of
use as the scans they were made of. Never mix them with the originals.

`derivatives/truth` has the simulated lesions (label map and table, scanner mm) and the brain mask.
Lesions that the person really has are not listed.
"""


def _participants(out_dir: Path, table: str | None, words: str | None) -> None:
    """Copy the rows of the participants that are there, and what their columns mean."""
    if table is None:
        return
    here = {path.name for path in out_dir.glob('sub-*')}
    # BIDS tables quote nothing, and a cell may be as long as it likes
    header, *rows = (line.split('\t') for line in table.split('\n'))
    kept = [row for row in rows if row[0] in here]
    write_table(out_dir / 'participants.tsv', header if any(header) else ['participant_id'], kept)
    if words is not None:
        write_text(out_dir / 'participants.json', words)


def _silent(_said: str) -> None:
    """Tell nobody."""
