"""Tables over all participants, made from what participant runs left in the output folder."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shivacmb.bids.files import write_text
from shivacmb.bids.names import session_dir, session_prefix
from shivacmb.bids.records import ScanRecord, read_absence, read_records, tables_stand_in
from shivacmb.bids.tables import (
    COLUMNS,
    dictionary_of,
    read_table,
    render,
    row_of,
    write_scans_table,
)
from shivacmb.exceptions import NoInputError, OutputError

#: Table of all scans, at the root of the outputs.
COUNTS_TABLE = 'group_desc-CMB_counts.tsv'
#: Participants read side by side: on a file server nearly all of the time is waiting for it.
READERS = 8
NO_RESULT = 'no result: the run is not over, or was killed'
BURDEN_CLASSES = ('0', '1-3', '4-9', '>=10')
_IDENTITY: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'Participant.'},
    'session_id': {'Description': 'Session, n/a in a dataset without sessions.'},
    'scan': {'Description': 'Beginning of the names of all outputs of the scan.'},
}
#: What a scan table of this app has in every version; that of a raw dataset has times instead.
_OWN_COLUMNS = ('filename', 'status', 'reason', 'cmb_count', 'cmb_volume_mm3', 'burden_class')
_PARTICIPANT_COLUMNS: dict[str, dict[str, Any]] = {
    'participant_id': {'Description': 'Participant.'},
    'status': {
        'Description': 'Outcome over the scans of the participant.',
        'Levels': {
            'ok': 'all scans analysed',
            'partial': 'some scans failed',
            'failed': 'all scans failed',
            'no scan': 'no usable scan was found',
            'unfinished': 'a folder is there and no result: the run is not over, or was killed',
        },
    },
    'scans': {'Description': 'Number of scans with a result or a failure.'},
    'scans_ok': {'Description': 'Number of scans analysed.'},
    'scans_failed': {'Description': 'Number of scans that failed.'},
    'cmb_count': {
        'Description': 'Microbleeds summed over the scans analysed: one that is seen in several '
        'sessions counts several times.'
    },
    'cmb_count_max': {'Description': 'Largest number of microbleeds in one scan.'},
    'cmb_volume_mm3': {
        'Description': 'Volume of the microbleeds summed over the scans.',
        'Units': 'mm^3',
    },
    'burden_class': {**COLUMNS['burden_class'], 'Description': 'Class of the scan with most.'},
    'reason': {'Description': 'Why scans failed or none was found.'},
}


@dataclass(frozen=True)
class GroupFiles:
    """Files that ``write_group`` wrote, how many scans they cover, and what it read.

    ``without`` names the participants without any scan, each with the reason.
    """

    counts: Path
    participants: Path
    summary: Path
    scans: int
    ok: int
    failed: int
    same_image: tuple[tuple[str, ...], ...] = ()
    records: tuple[ScanRecord, ...] = field(default=(), repr=False)
    without: tuple[tuple[str, str], ...] = ()


def write_group(out_dir: str | Path) -> GroupFiles:
    """Collect every scan of an output folder.

    Reads nothing but ``out_dir``. A participant's rows come from its records in ``logs/``; where
    it has no folder there, from its scan tables. Scan tables that do not agree with the records (a
    process was killed between the two) are rebuilt. Files that are half copied, or of another
    program, are passed over.
    May run while participants are being added; it shows those that are there.

    Returns
    -------
    GroupFiles
        ``group_desc-CMB_counts.tsv``, ``participants.tsv`` and ``group_desc-CMB_summary.json``;
        the tables have a ``.json`` data dictionary beside them.

    Raises
    ------
    NoInputError
        When the folder holds no result of any participant, nor the logs of a run.
    OutputError
        When it cannot be read or written.
    TemporaryError
        When a record or table is there and cannot be read: without it a scan would be missing.
    """
    root = Path(out_dir)
    rows: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    records: list[ScanRecord] = []
    columns = {**_IDENTITY, **COLUMNS}
    folders, labels = _labels(root)
    with ThreadPoolExecutor(READERS, thread_name_prefix='group') as readers:
        for label, (read, own, extra) in zip(
            labels, readers.map(lambda label: _participant_rows(root, label), labels), strict=True
        ):
            for name, entry in extra.items():
                columns.setdefault(name, entry)
            total = _participant_total(root, label, own)
            if label not in folders and total['status'] == 'unfinished':
                continue  # nothing but the log of a run
            records.extend(read)
            rows.extend(own)
            people.append(total)
    # folders alone are a run that has just begun, or no output folder (a dataset, say)
    if not people or not (rows or (root / 'logs').is_dir()):
        raise NoInputError(
            f'no results in <{root}>; run the participant level first, or give its output folder'
        )
    counts = root / COUNTS_TABLE
    participants = root / 'participants.tsv'
    summary = root / 'group_desc-CMB_summary.json'
    facts = summarise(rows, people)
    write_text(counts, render(rows, list(columns)))
    write_text(counts.with_suffix('.json'), _json(columns))
    write_text(participants, render(people, list(_PARTICIPANT_COLUMNS)))
    write_text(participants.with_suffix('.json'), _json(_PARTICIPANT_COLUMNS))
    write_text(summary, _json(facts))
    return GroupFiles(
        counts,
        participants,
        summary,
        scans=facts['scans']['total'],
        ok=facts['scans']['ok'],
        failed=facts['scans']['failed'],
        same_image=tuple(tuple(names) for names in facts['same_image']),
        records=tuple(records),
        without=tuple(
            (
                total['participant_id'],
                total['reason'] or NO_RESULT,
            )
            for total in people
            if not total['scans']
        ),
    )


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + '\n'


def _labels(root: Path) -> tuple[set[str], list[str]]:
    """Participants that have a folder among the results, and those and the ones in the logs."""
    if not root.is_dir():
        raise NoInputError(
            f'<{root}> is no folder: give the output folder of the participant level'
        )
    folders = _labels_in(root)
    return folders, sorted(folders | _labels_in(root / 'logs'))


def _labels_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name[4:]
                for entry in entries
                if entry.name.startswith('sub-') and len(entry.name) > 4 and entry.is_dir()
            }
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise OutputError(
            f'cannot read <{folder}> ({error.strerror}): check permissions'
        ) from error


def _participant_rows(
    root: Path, label: str
) -> tuple[list[ScanRecord], list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Records of one participant, the rows of its scans, and the columns they have."""
    records = read_records(root, label)
    if not records:
        rows = list(_rows_from_tables(root, label))
        # a scan whose record was removed is left out, whatever a table still says
        if rows and not tables_stand_in(root, label):
            rows = []
        names = dict.fromkeys(name for row in rows for name in row)
        return [], rows, {name: {'Description': f'Further result "{name}".'} for name in names}
    for session in sorted({item.session for item in records}, key=lambda item: item or ''):
        # a folder that the user removed stays removed
        if session_dir(root, label, session).is_dir():
            write_scans_table(root, label, session, known=records)
    rows = [_identity(label, item.session, item.stem) | row_of(item) for item in records]
    for row in rows:
        row['filename'] = _from_root(root, label, row)
    return records, rows, dictionary_of(records)


def _identity(label: str, session: str | None, stem: str) -> dict[str, Any]:
    return {
        'participant_id': f'sub-{label}',
        'session_id': None if session is None else f'ses-{session}',
        'scan': stem,
    }


def _from_root(root: Path, label: str, row: Mapping[str, Any]) -> str:
    """File name of a row relative to the output folder."""
    session = row['session_id']
    folder = session_dir(root, label, session[4:] if session else None)
    return f'{folder.relative_to(root).as_posix()}/{row["filename"]}'


def _rows_from_tables(root: Path, label: str) -> Iterator[dict[str, Any]]:
    """Rows of the scan tables of a participant whose records are gone."""
    folder = root / f'sub-{label}'
    sessions: list[str | None] = [None]
    sessions += sorted(path.name[4:] for path in folder.glob('ses-*') if path.is_dir())
    for session in sessions:
        where = session_dir(root, label, session)
        for row in read_table(where / f'{session_prefix(label, session)}_scans.tsv'):
            if not all(column in row for column in _OWN_COLUMNS):
                continue
            name = Path(row['filename']).name
            stem = name.split('_desc-', 1)[0]
            values: dict[str, Any] = {
                key: None if value == 'n/a' else value for key, value in row.items()
            }
            values['cmb_count'] = _number(row['cmb_count'])
            values['cmb_volume_mm3'] = _number(row['cmb_volume_mm3'])
            values = _identity(label, session, stem) | values
            values['filename'] = _from_root(root, label, values)
            yield values


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _participant_total(
    root: Path, label: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Row of participants.tsv."""
    good = [row for row in rows if row['status'] == 'ok' and row['cmb_count'] is not None]
    bad = [row for row in rows if row['status'] != 'ok']
    total: dict[str, Any] = {
        'participant_id': f'sub-{label}',
        'scans': len(rows),
        'scans_ok': len(good),
        'scans_failed': len(bad),
        'reason': '; '.join(f'{row["scan"]}: {row["reason"] or "unknown"}' for row in bad),
    }
    if not rows:
        absence = read_absence(root, label)
        total['status'] = 'unfinished' if absence is None else 'no scan'
        total['reason'] = absence
        return total
    total['status'] = 'ok' if not bad else 'partial' if good else 'failed'
    if good:
        most = max(good, key=lambda row: (row['cmb_count'], row['scan']))
        total['cmb_count'] = int(sum(row['cmb_count'] for row in good))
        total['cmb_count_max'] = int(most['cmb_count'])
        total['cmb_volume_mm3'] = float(sum(row['cmb_volume_mm3'] or 0.0 for row in good))
        total['burden_class'] = most['burden_class']
    return total


def _same_image(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Names of scans that are one and the same image, so that it counts several times."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.get('input_sha256'):
            names.setdefault(row['input_sha256'], []).append(row['scan'])
    return sorted(scans for scans in names.values() if len(scans) > 1)


def _spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Mean, spread and range of numbers; None where there is no number."""
    # imported here, because finding one participant's scans should not wait for numpy
    import numpy as np

    array = np.array([value for value in values if value is not None], dtype=np.float64)
    names = ('mean', 'sd', 'median', 'q1', 'q3', 'minimum', 'maximum', 'sum')
    if array.size == 0:
        return dict.fromkeys(names)
    q1, median, q3 = np.percentile(array, [25, 50, 75])
    sd = float(array.std(ddof=1)) if array.size > 1 else None
    numbers = (array.mean(), sd, median, q1, q3, np.min(array), np.max(array), array.sum())
    return {
        name: None if number is None else round(float(number), 6)
        for name, number in zip(names, numbers, strict=True)
    }


def summarise(
    rows: Sequence[Mapping[str, Any]], people: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the cohort summary.

    Parameters
    ----------
    rows
        One for each scan, as in the long table.
    people
        One for each participant, as in participants.tsv.

    Returns
    -------
    dict
        Numbers of participants and scans by status, burden classes, spread of counts and
        volumes (quartiles by linear interpolation, sample standard deviation), and how many scans
        each combination of model and settings produced: more than one means that the rows are not
        comparable as they stand. ``same_image`` lists scans whose input files are identical, as
        they are after a participant was renamed.
    """
    good = [row for row in rows if row['status'] == 'ok' and row['cmb_count'] is not None]
    classes = Counter(row.get('burden_class') for row in good)
    with_any = sum(1 for row in good if row['cmb_count'] > 0)
    models = Counter((row.get('model'), row.get('model_version')) for row in good)
    settings = Counter(row.get('settings_hash') for row in good)
    return {
        'participants': {
            'total': len(people),
            **{
                name: sum(1 for item in people if item['status'] == name)
                for name in _PARTICIPANT_COLUMNS['status']['Levels']
            },
        },
        'scans': {
            'total': len(rows),
            'ok': len(good),
            'failed': len(rows) - len(good),
            'with_microbleeds': with_any,
            'prevalence': round(with_any / len(good), 6) if good else None,
        },
        'burden_classes': {name: classes.get(name, 0) for name in BURDEN_CLASSES},
        'cmb_count': _spread(row['cmb_count'] for row in good),
        'cmb_volume_mm3': _spread(row['cmb_volume_mm3'] for row in good),
        'models': [
            {'model': name, 'model_version': version, 'scans': number}
            for (name, version), number in sorted(models.items(), key=lambda item: str(item[0]))
        ],
        'settings': [
            {'settings_hash': name, 'scans': number}
            for name, number in sorted(settings.items(), key=lambda item: str(item[0]))
        ],
        'same_image': _same_image(good),
        'notice': 'For research only: not a medical device, not for diagnosis.',
    }
