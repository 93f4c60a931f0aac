"""Results whose image is renamed or gone, or where another of the same acquisition is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shivacmb.bids.channels import bare_name
from shivacmb.bids.names import clear_outputs, report_path, scans_table_paths, session_dir
from shivacmb.bids.records import ScanRecord, read_records
from shivacmb.bids.scan import Scan
from shivacmb.bids.sidecars import split_name
from shivacmb.bids.tables import write_scans_table
from shivacmb.exceptions import TemporaryError

_RAW = 'bids:raw:'
#: Entities that tell images of one acquisition apart, and those that a folder may stand for.
_CHOSEN_BY = frozenset({'sub', 'ses', 'part', 'echo'})


@dataclass(frozen=True)
class Departed:
    """A record whose input file is not in the dataset any more, or is not read any more.

    Attributes
    ----------
    record
        What an earlier run noted.
    successor
        The result of the same image under another name, or of another image of the same
        acquisition; or None.
    """

    record: ScanRecord
    successor: ScanRecord | None

    @property
    def settled(self) -> bool:
        """Whether nothing is lost without it: another result of the image, or no result."""
        return self.successor is not None or self.record.status != 'ok'

    @property
    def renamed(self) -> bool:
        """Whether the successor is the same image under another name."""
        mine = self.record.input_sha256
        return self.successor is not None and mine == self.successor.input_sha256 is not None


def find_departed(
    out_dir: str | Path,
    bids_dir: str | Path,
    participants: Iterable[str],
    scans: Sequence[Scan] = (),
) -> list[Departed]:
    """Find the records of participants whose input file is gone, or not the one that is read.

    Parameters
    ----------
    out_dir, bids_dir
        Results, and the dataset they were made from.
    participants
        Labels without prefix.
    scans
        What is read of each acquisition now. A result of one of its other images is settled as
        soon as there is one of the image that is read (docs/decisions/0135).

    Returns
    -------
    list of Departed
        An image is known by its checksum. A link that points nowhere (data that are not fetched)
        counts as a file.
    """
    read = {scan.uri for scan in scans}
    departed = []
    for participant in participants:
        here: list[ScanRecord] = []
        gone: list[ScanRecord] = []
        for record in _known(out_dir, participant):
            source = record.source or ''
            if source.startswith(_RAW):
                present = _is_there(Path(bids_dir) / source.removeprefix(_RAW))
                (here if present else gone).append(record)
        results = {
            record.input_sha256: record
            for record in here
            if record.status == 'ok' and record.input_sha256
        }
        departed += [Departed(record, results.get(record.input_sha256 or '')) for record in gone]
        chosen = {
            _acquisition(record): record
            for record in here
            if record.status == 'ok' and record.source in read
        }
        departed += [
            Departed(record, chosen[_acquisition(record)])
            for record in here
            if record.source not in read and _acquisition(record) in chosen
        ]
    return departed


def _acquisition(record: ScanRecord) -> tuple[str, frozenset[tuple[str, str]]]:
    """What images of one acquisition share, see ``Candidate.key``."""
    pairs = split_name(bare_name(Path(record.source or '')))[0]
    others = {(key, text.casefold()) for key, text in pairs.items() if key not in _CHOSEN_BY}
    return record.session or '', frozenset(others)


def _known(out_dir: str | Path, participant: str) -> list[ScanRecord]:
    """Records of a participant, none where one cannot be read: then nothing is settled."""
    try:
        return read_records(out_dir, participant)
    except TemporaryError:
        return []


def _is_there(path: Path) -> bool:
    """Whether a name exists; a file server that fails does not say that it is gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def remove_outputs(out_dir: str | Path, record: ScanRecord) -> None:
    """Remove everything that was written for a scan, and what its session had for it alone.

    Parameters
    ----------
    out_dir
        Results.
    record
        The scan's record; it is removed, too.
    """
    clear_outputs(out_dir, record)
    if write_scans_table(out_dir, record.participant, record.session) is None:
        tables = scans_table_paths(out_dir, record.participant, record.session)
        for path in (*tables, report_path(out_dir, record.participant, record.session)):
            path.unlink(missing_ok=True)
        folder = session_dir(out_dir, record.participant, record.session)
        # Only where nothing else is left in them
        for empty in (folder / 'anat', folder, folder.parent):
            with contextlib.suppress(OSError):
                if empty != Path(out_dir):
                    empty.rmdir()
