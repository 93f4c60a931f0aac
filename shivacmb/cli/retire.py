"""Results whose image is not read any more: remove them, or tell the user how."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shivacmb.bids import find_departed, read_records, record_path, remove_outputs
from shivacmb.bids.names import session_dir
from shivacmb.cli.main import say
from shivacmb.cli.pages import write_page
from shivacmb.exceptions import TemporaryError

if TYPE_CHECKING:
    from pathlib import Path

    from shivacmb.bids import Found, ScanRecord
    from shivacmb.cli.settings import Settings


def retire(settings: Settings, found: Found) -> None:
    """Remove results that another one replaces, and name those whose image is gone.

    Parameters
    ----------
    settings : Settings
        Of the run.
    found : Found
        What it looked at; results of other participants are left alone.
    """
    participants = dict.fromkeys([*(scan.participant for scan in found.scans), *found.missing])
    departed = find_departed(settings.out_dir, settings.bids_dir, participants, found.scans)
    for item in departed:
        record = item.record
        if not item.settled:
            _still_counts(settings, record, 'is not in the dataset any more')
            continue
        remove_outputs(settings.out_dir, record)
        write_page(settings.out_dir, record.participant, record.session)
        if item.successor is None or settings.quiet:
            continue
        if item.renamed:
            say(f'{record.stem} is {item.successor.stem} now; its earlier results were removed')
        else:
            say(
                f'{item.successor.stem} is read of its acquisition now, no longer {record.stem}, '
                'whose earlier results were removed (--dry-run says why); an OUT_DIR of its own '
                'keeps results of another choice'
            )
    _name_refused(settings, found)


def _name_refused(settings: Settings, found: Found) -> None:
    """Name results of images that would not be taken today, as their sidecar is known by now."""
    root = settings.bids_dir.absolute()
    reasons: dict[str, dict[str, str]] = {}
    for item in found.refused:
        path = item.path.relative_to(root)
        participant = path.parts[0].removeprefix('sub-')
        reasons.setdefault(participant, {})[f'bids:raw:{path.as_posix()}'] = item.reason
    for participant, known in reasons.items():
        # what cannot be read is named by the scans that it is of
        with contextlib.suppress(TemporaryError):
            for record in read_records(settings.out_dir, participant):
                if record.status == 'ok' and (record.source or '') in known:
                    reason = known[record.source or '']
                    _still_counts(settings, record, f'is passed over now ({reason})')


def _still_counts(settings: Settings, record: ScanRecord, why: str) -> None:
    paths = ' and '.join(f'<{path}>' for path in _to_leave_out(settings.out_dir, record))
    say(
        f'{record.stem} still counts, though its image ({record.source}) {why}; to leave it out, '
        f'remove {paths}'
    )


def _to_leave_out(out_dir: Path, record: ScanRecord) -> list[Path]:
    """What to remove so that a scan is in no table: its record, and a folder that is its alone."""
    others = [item for item in read_records(out_dir, record.participant) if item != record]
    paths = [record_path(out_dir, record)]
    # without sessions the folder is the participant's
    if not any(record.session in (None, item.session) for item in others):
        paths.append(session_dir(out_dir, record.participant, record.session))
    return paths
