"""What is known of a scan beside its lesions: sidecar, person, contrast, the image itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from shivacmb.bids import Scan, find_scans
from shivacmb.bids.channels import bare_name
from shivacmb.evaluate.evaluation import Facts
from shivacmb.evaluate.lists import entities_of, plain, read_participants
from shivacmb.evaluate.pairs import Pair, Source
from shivacmb.exceptions import ShivaCMBError

_PREPROC = ('T2starw', 'swi')
_MODALITIES: tuple[Literal['t2s', 'swi'], ...] = ('t2s', 'swi')


def dataset_of(truth: Path) -> Path | None:
    """Dataset that a folder of truth belongs to: ``DATASET/derivatives/NAME``."""
    folder = truth.resolve()
    for parent in (folder, *folder.parents):
        root = parent.parent.parent
        if parent.parent.name == 'derivatives' and (root / 'dataset_description.json').is_file():
            return root
    return None


def find_facts(
    pairs: Sequence[Pair], *, bids_dir: Path | None, folders: Sequence[Path]
) -> list[Facts]:
    """Look up every pair.

    Parameters
    ----------
    pairs : sequence of Pair
        Scans.
    bids_dir : Path or None
        The raw dataset: sidecars, participants.tsv and the images for the pictures.
    folders : sequence of Path
        Where else a participants.tsv may be, in order.

    Returns
    -------
    list of Facts
        Without a dataset, what the derivatives of the predictions tell.
    """
    people = read_participants(bids_dir, *(path for path in folders if path.is_dir()))
    labelled = [[side.participant for side in _files_first(pair)] for pair in pairs]
    scans = _raw_scans(bids_dir, [label for labels in labelled for label in labels])
    facts = []
    for pair, labels in zip(pairs, labelled, strict=True):
        person = next((people[label] for label in labels if label in people), {})
        scan = _raw(pair, scans)
        if scan is not None:
            facts.append(Facts(scan.metadata, person, scan.contrast, Path(scan.path)))
            continue
        suffix, image = _preproc(pair)
        sidecar = image and _sidecar(image)
        facts.append(Facts(sidecar or {}, person, suffix, image))
    return facts


def unused(bids_dir: Path | None, facts: Sequence[Facts]) -> list[str]:
    """Say that a dataset which was given has an image of none of the scans."""
    root = bids_dir and bids_dir.absolute()
    if root is None or any(known.image and known.image.is_relative_to(root) for known in facts):
        return []
    return [
        f'none of these scans was found in --bids-dir <{root}>, or could be told from another of '
        'its session: strata have nothing of sidecars, and there are no pictures of it; give the '
        'folder that holds sub-*'
    ]


def _raw_scans(bids_dir: Path | None, participants: list[str]) -> list[Scan]:
    if bids_dir is None:
        return []
    found: dict[Path, Scan] = {}
    for modality in _MODALITIES:  # of both contrasts together only one would be listed
        try:
            scans = find_scans(
                bids_dir,
                participants=sorted(set(participants)),
                modality=modality,
                require_description=False,
            ).scans
        except ShivaCMBError:
            continue  # pictures and strata are extras; scores do not need the raw data
        found.update({Path(scan.path): scan for scan in scans})
    return list(found.values())


def _files_first(pair: Pair) -> list[Source]:
    """Both sides, tables last: they may have lost the zeros before the numbers of labels."""
    return sorted((pair.truth, pair.pred), key=lambda side: side.listed is not None)


def _raw(pair: Pair, scans: Sequence[Scan]) -> Scan | None:
    exact = [scan for scan in scans if scan.stem in (pair.pred.scan, pair.truth.scan)]
    if exact:
        return _made_from(pair, exact)
    sides = _files_first(pair)
    labels = {side.participant for side in sides}
    session = next((side.session for side in sides if side.session), None)
    near = [
        scan
        for scan in scans
        if scan.participant in labels and scan.session == session and not _is_other(scan, pair)
    ]
    return _made_from(pair, near)


def _is_other(scan: Scan, pair: Pair) -> bool:
    """Whether an entity that both name differs, but for those of one acquisition."""
    own = entities_of(scan.name.split('.')[0])
    named = {**entities_of(pair.truth.entities), **entities_of(pair.pred.entities)}
    both = own.keys() & named.keys() - {'echo', 'part'}
    return any(plain(own[key]) != plain(named[key]) for key in both)


def _made_from(pair: Pair, candidates: Sequence[Scan]) -> Scan | None:
    """The only candidate, or the one that the sidecar of either side names as its source.

    T2starw and swi of one session have the same name but for the suffix, which is none of the
    derivative's: without ``Sources`` nothing tells which of them was segmented.
    """
    if len(candidates) == 1:
        return candidates[0]
    for side in (pair.pred, pair.truth):
        names = {source.rsplit('/', 1)[-1] for source in _sources(side.path)}
        named = [scan for scan in candidates if scan.name in names]
        if len(named) == 1:
            return named[0]
    return None


def _preproc(pair: Pair) -> tuple[str | None, Path | None]:
    """Contrast and preprocessed image beside the prediction, where there is no doubt."""
    if pair.pred.stand_in:
        return None, None
    found = [
        (suffix, path)
        for suffix in _PREPROC
        if (path := pair.pred.beside(f'desc-preproc_{suffix}.nii.gz')) is not None
    ]
    if len(found) > 1:
        mine = _sources(pair.pred.path)
        found = [item for item in found if mine and _sources(item[1]) == mine]
    return found[0] if len(found) == 1 else (None, None)


def _sources(image: Path) -> list[str]:
    listed = _sidecar(image).get('Sources')
    return [str(item) for item in listed] if isinstance(listed, list) else []


def _sidecar(image: Path) -> dict[str, Any]:
    return _read_json(image.with_name(f'{bare_name(image)}.json'))


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object, empty when there is none."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
