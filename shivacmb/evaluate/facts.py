"""What is known of a scan beside its lesions: sidecar, person, contrast, the image itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shivacmb.bids import Scan, find_scans
from shivacmb.evaluate.evaluation import Facts
from shivacmb.evaluate.pairs import Pair, read_participants
from shivacmb.exceptions import ShivaCMBError

_PREPROC = ('T2starw', 'swi')


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
    scans = _raw_scans(bids_dir, [pair.truth.participant for pair in pairs])
    facts = []
    for pair in pairs:
        person = people.get(pair.truth.participant, {})
        scan = _raw(pair, scans)
        if scan is not None:
            facts.append(Facts(scan.metadata, person, scan.contrast, Path(scan.path)))
            continue
        suffix, image = next(
            (
                (suffix, path)
                for suffix in _PREPROC
                if (path := pair.pred.beside(f'desc-preproc_{suffix}.nii.gz')) is not None
            ),
            (None, None),
        )
        sidecar = image and _read_json(image.with_name(image.name.replace('.nii.gz', '.json')))
        facts.append(Facts(sidecar or {}, person, suffix, image))
    return facts


def _raw_scans(bids_dir: Path | None, participants: list[str]) -> list[Scan]:
    if bids_dir is None:
        return []
    try:
        return list(
            find_scans(
                bids_dir, participants=sorted(set(participants)), require_description=False
            ).scans
        )
    except ShivaCMBError:
        return []  # pictures and strata are extras; scores do not need the raw data


def _raw(pair: Pair, scans: Sequence[Scan]) -> Scan | None:
    exact = [scan for scan in scans if scan.stem in (pair.pred.scan, pair.truth.scan)]
    if exact:
        return exact[0]
    session = pair.pred.session or pair.truth.session
    near = [
        scan
        for scan in scans
        if scan.participant == pair.truth.participant and scan.session == session
    ]
    return near[0] if len(near) == 1 else None


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object, empty when there is none."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
