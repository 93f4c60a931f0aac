"""The scan table of a session, made from its records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shivacmb.bids.files import read_result, write_text
from shivacmb.bids.names import HasOutputs, record_path, report_path, scans_table_paths
from shivacmb.bids.records import ScanRecord, read_records
from shivacmb.exceptions import OutputError, TemporaryError

#: Columns of the scan table in order, with their entries of the data dictionary.
COLUMNS: dict[str, dict[str, Any]] = {
    'filename': {
        'Description': 'Label map of the lesions, or for a failed scan the file that says why.'
    },
    'status': {
        'Description': 'Outcome of the analysis.',
        'Levels': {'ok': 'analysed', 'failed': 'not analysed, see reason'},
    },
    'reason': {'Description': 'Why the scan failed.'},
    'source': {'Description': 'BIDS URI of the input image.'},
    'contrast': {
        'Description': 'What the input image shows.',
        'Levels': {
            'T2starw': 'T2*-weighted magnitude',
            'swi': 'susceptibility-weighted image',
        },
    },
    'cmb_count': {'Description': 'Number of cerebral microbleeds found.'},
    'cmb_volume_mm3': {'Description': 'Their total volume.', 'Units': 'mm^3'},
    'burden_class': {
        'Description': 'Class of the number of microbleeds.',
        'Levels': {
            '0': 'none',
            '1-3': 'one to three',
            '4-9': 'four to nine',
            '>=10': 'ten or more',
        },
    },
    'cmb_lobar': {
        'Description': 'Microbleeds in the cerebral cortex and white matter. n/a without zones.'
    },
    'cmb_deep': {'Description': 'Microbleeds in the basal ganglia and the thalamus.'},
    'cmb_infratentorial': {'Description': 'Microbleeds in the brainstem and the cerebellum.'},
    'cmb_unplaced': {'Description': 'Microbleeds with no zone of the brain near them.'},
    'cmb_left_out': {
        'Description': 'Candidates that are not counted, because their parenchyma_fraction is '
        'less than min_parenchyma: they lie in fluid, at the pineal gland or outside the brain. '
        'n/a without zones.'
    },
    'threshold': {'Description': 'Probability that makes a cluster of voxels a lesion.'},
    'min_voxels': {'Description': 'Smallest number of voxels of a lesion on the network grid.'},
    'min_parenchyma': {
        'Description': 'Least parenchyma_fraction of a lesion that counts; 0: any.'
    },
    'outline_threshold': {
        'Description': 'Probability down to which lesions reach once they are found; n/a: down to '
        'the threshold.'
    },
    'brain_mask': {'Description': 'Method or file of the brain mask.'},
    'mask_volume_ml': {'Description': 'Volume of the brain mask.', 'Units': 'mL'},
    'brain_voxels_outside_box': {
        'Description': 'Voxels of the brain mask that lie outside what the network is shown.'
    },
    'model': {'Description': 'Name of the model.'},
    'model_version': {'Description': 'Version of the model.'},
    'engine': {'Description': 'Library that computed the prediction.'},
    'toolkit': {'Description': 'Programs that reoriented and resampled the image.'},
    'software_version': {'Description': 'Version of shivacmb.'},
    'settings_hash': {
        'Description': 'First 16 digits of a SHA-256 over all that can change the result beside '
        'the image: settings, model, versions, and a mask or further channels given as files.'
    },
    'input_sha256': {'Description': 'SHA-256 of the input image.'},
    'warnings': {'Description': 'What to keep in mind, separated by semicolons.'},
}


def cell(value: Any) -> str:
    """One value of a BIDS table: ``n/a`` for what is missing, never a tab or a line break.

    Quotation marks of a cell that begins with one become apostrophes: BIDS tables quote nothing,
    but pandas and spreadsheets take all up to the next mark, over lines, for one cell.
    """
    if value is None:
        return 'n/a'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, float):
        if not math.isfinite(value):
            return 'n/a'
        # six decimals are beyond what any quantity here resolves; repr keeps them exact
        rounded = round(float(value), 6)
        return repr(int(rounded)) if rounded.is_integer() else repr(rounded)
    if isinstance(value, (list, tuple)):
        value = '; '.join(str(item) for item in value)
    text = re.sub(r'\s+', ' ', str(value)).strip() or 'n/a'
    return text.replace('"', "'") if text.startswith('"') else text


def render(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a BIDS table as text."""
    lines = ['\t'.join(columns)]
    lines += ['\t'.join(cell(row.get(name)) for name in columns) for row in rows]
    return '\n'.join(lines) + '\n'


def row_of(record: ScanRecord) -> dict[str, Any]:
    """Row of the scan table, columns as keys."""
    row = {name: getattr(record, name) for name in COLUMNS}
    row.update({key: value for key, value in record.extra.items() if key not in COLUMNS})
    return row


def dictionary_of(records: Iterable[ScanRecord]) -> dict[str, dict[str, Any]]:
    """All columns of a table, each with its entry of the data dictionary."""
    columns = {name: dict(entry) for name, entry in COLUMNS.items()}
    for record in records:
        for name in record.extra:
            entry = dict(record.extra_descriptions.get(name, {}))
            entry.setdefault('Description', f'Further result "{name}".')
            columns.setdefault(name, entry)
    return columns


def write_scans_table(
    out_dir: str | Path,
    participant: str,
    session: str | None,
    *,
    attempts: int = 100,
    known: Sequence[ScanRecord] | None = None,
) -> Path | None:
    """Rebuild ``sub-X[_ses-Y]_scans.tsv`` and ``.json`` from the records of a session.

    To be called after ``write_record``. Safe without locks (which many cluster file systems lack)
    when several processes finish scans of one session at once: after writing, the records are
    read again, and the table is written again until it agrees. Whoever renames last has, after
    that, read records that include those of all who wrote before; whoever adds a record later
    writes the table later (docs/decisions/0032).

    Parameters
    ----------
    out_dir, participant, session
        Whose table.
    attempts
        Rounds before giving up.
    known
        The participant's records, where they have just been read: a table that agrees with them
        needs no second reading.

    Returns
    -------
    Path or None
        The table, or None when the session has no record.

    Raises
    ------
    OutputError
        When it cannot be written, or does not settle in ``attempts`` rounds.
    TemporaryError
        When a record of the participant cannot be read.
    """
    table, dictionary = scans_table_paths(out_dir, participant, session)
    for _ in range(attempts):
        if known is None:
            known = read_records(out_dir, participant)
        records = [item for item in known if item.session == session]
        known = None
        if not records:
            return None
        columns = dictionary_of(records)
        text = render((row_of(item) for item in records), list(columns))
        entries = json.dumps(columns, indent=2, ensure_ascii=False) + '\n'
        # a file that already agrees is not written: then this round has confirmed the last one
        changed = write_text(dictionary, entries)
        changed = write_text(table, text) or changed
        if not changed:
            return table
    raise OutputError(
        f'<{table}> does not settle, other processes keep changing it: run the group level when '
        'they are done'
    )


def retract(out_dir: str | Path, scan: HasOutputs) -> None:
    """Take a scan back before its files change: first its page and record, then its table row.

    Whoever is killed, or finds the disk full, in the middle of a change must not leave a row that
    calls the scan analysed. Where no table can be written, there is none until the next run.

    Parameters
    ----------
    scan
        The scan or its record. The page of its session goes also where it has no record yet: it
        shows other scans alone. Pages that are not there are written by the end of the run, or
        by the group level.
    """
    record = record_path(out_dir, scan)
    tables = scans_table_paths(out_dir, scan.participant, scan.session)
    page = report_path(out_dir, scan.participant, scan.session)
    try:
        page.unlink(missing_ok=True)
        if not record.exists():
            return
        record.unlink(missing_ok=True)
        # another process may have written it from the record meanwhile
        page.unlink(missing_ok=True)
        try:
            if write_scans_table(out_dir, scan.participant, scan.session) is not None:
                return
        except (OutputError, TemporaryError):
            pass
        for path in tables:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f'cannot remove <{error.filename}> of an earlier run ({error.strerror}): give an '
            'output folder that you may write to'
        ) from error


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a BIDS table as text; a last line that is incomplete is left out.

    Raises
    ------
    TemporaryError
        When it is there and cannot be read.
    """
    try:
        lines = (read_result(path, Path.read_bytes) or b'').decode('utf-8').splitlines()
    except UnicodeDecodeError:
        return []
    if not lines:
        return []
    header = lines[0].split('\t')
    cells = (line.split('\t') for line in lines[1:])
    return [dict(zip(header, row, strict=True)) for row in cells if len(row) == len(header)]
