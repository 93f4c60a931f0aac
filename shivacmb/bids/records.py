"""One record for each scan: its row of the tables, its status and what it was made from.

Tables are always rebuilt from records, and a record has one writer, so that any number of
processes can share an output folder (docs/decisions/0032).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from shivacmb.bids.files import read_result, write_text
from shivacmb.bids.names import output_paths, record_path, scans_filename
from shivacmb.bids.scan import Scan
from shivacmb.exceptions import ShivaCMBError
from shivacmb.placeholders import named_sha256, read_placeholder

#: Marks a file as a record of this schema.
RECORD_TYPE = 'shivacmb-scan/1'
ABSENCE_TYPE = 'shivacmb-absence/1'
_ANNEX_KEY = re.compile(r'(SHA|MD5|BLAKE|SKEIN)\w*-s\d+--')
Value = str | int | float | bool | None


@dataclass(frozen=True)
class ScanRecord:
    """What is known of one scan after it was processed; no times of day, no durations.

    Attributes
    ----------
    participant, session, stem
        Whose scan it is, and the prefix of its outputs.
    filename
        ``filename`` of the scan table, see ``names.scans_filename``.
    status, reason
        ``ok`` or ``failed``, and for a failed scan the sentence the user was shown.
    source, contrast
        BIDS URI of the input and what it shows (``swi`` or ``T2starw``).
    cmb_count, cmb_volume_mm3, burden_class
        Result; None for a failed scan.
    cmb_lobar, cmb_deep, cmb_infratentorial, cmb_unplaced
        The count by group of zones; None without zones.
    cmb_left_out
        Candidates not counted, as too little of what surrounds them is brain tissue; None without
        zones.
    threshold, min_voxels, min_parenchyma, outline_threshold
        With which it was obtained.
    brain_mask, mask_volume_ml, brain_voxels_outside_box
        Method of the brain mask, its volume, and how much of it the network did not see.
    model, model_version, engine, toolkit, software_version
        What computed it.
    settings_hash
        Checksum over every setting that can change the result (``settings_hash``).
    input_sha256, input_size, input_mtime_ns, input_ctime_ns
        The input file; the times of its last change stay out of the tables.
    input_annex_key
        Name that git-annex has for the content of the input, where it is such a link.
    warnings
        Sentences for the user.
    extra, extra_descriptions
        Further columns of the table, and for each its entry in the data dictionary.
    """

    participant: str
    session: str | None
    stem: str
    filename: str
    status: Literal['ok', 'failed']
    reason: str | None = None
    source: str | None = None
    contrast: str | None = None
    cmb_count: int | None = None
    cmb_volume_mm3: float | None = None
    burden_class: str | None = None
    cmb_lobar: int | None = None
    cmb_deep: int | None = None
    cmb_infratentorial: int | None = None
    cmb_unplaced: int | None = None
    cmb_left_out: int | None = None
    threshold: float | None = None
    min_voxels: int | None = None
    min_parenchyma: float | None = None
    outline_threshold: float | None = None
    brain_mask: str | None = None
    mask_volume_ml: float | None = None
    brain_voxels_outside_box: int | None = None
    model: str | None = None
    model_version: str | None = None
    engine: str | None = None
    toolkit: str | None = None
    software_version: str | None = None
    settings_hash: str | None = None
    input_sha256: str | None = None
    input_size: int | None = None
    input_mtime_ns: int | None = None
    input_ctime_ns: int | None = None
    input_annex_key: str | None = None
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Value] = field(default_factory=dict)
    extra_descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def out_suffix(self) -> str:
        """Suffix of the images derived from the scan: ``'swi'`` or ``'T2starw'``."""
        return 'swi' if self.contrast == 'swi' else 'T2starw'

    @classmethod
    def of(cls, scan: Scan, *, status: Literal['ok', 'failed'], **values: Any) -> ScanRecord:
        """Start from a scan: fills identity, ``filename``, ``source`` and ``contrast``."""
        return cls(
            participant=scan.participant,
            session=scan.session,
            stem=scan.stem,
            filename=scans_filename(scan, ok=status == 'ok'),
            status=status,
            source=scan.uri,
            contrast=scan.contrast,
            **values,
        )


def _plain(value: Any) -> Any:
    """Turn numpy scalars into Python's, and NaN and infinity into None, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, 'item') and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Checksum of settings that is the same for every order of their keys."""
    text = json.dumps(_plain(settings), sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode('utf-8')).hexdigest()


def annex_key(path: Path) -> str | None:
    """Name of the content behind a link of git-annex, fetched or not, or None.

    Only names that hold a checksum: those of the backends WORM and URL say nothing of the content.
    """
    try:
        target = path.readlink()
    except OSError:
        return None
    known = '/annex/objects/' in target.as_posix() and _ANNEX_KEY.match(target.name)
    return target.name if known else None


def file_facts(path: Path, *, checksum: bool = True) -> dict[str, Any]:
    """Return facts of a file as a record has them, with its checksum or what needs no reading.

    Raises
    ------
    OSError, DataError, TemporaryError
        When it cannot be read, see :class:`shivacmb.imaging.source.Source`.
    """
    if checksum:
        from shivacmb.imaging.source import Source  # numpy comes with its package

        with Source(path) as source:
            return {f'input_{key}': value for key, value in asdict(source.facts()).items()}
    status = path.stat()
    return {
        'input_size': status.st_size,
        'input_mtime_ns': status.st_mtime_ns,
        'input_ctime_ns': status.st_ctime_ns,
        'input_annex_key': annex_key(path),
    }


def write_record(out_dir: str | Path, record: ScanRecord) -> Path:
    """Write a record atomically; to be called after the scan's files are in place.

    For a failed scan the sidecar that its row of the scan table names is written first.

    Raises
    ------
    OutputError
        When the output folder cannot be written.
    """
    root = Path(out_dir)
    if record.status == 'failed':
        parent = root / f'sub-{record.participant}'
        if record.session is not None:
            parent = parent / f'ses-{record.session}'
        note = {'Description': f'No result for this scan: {record.reason or "unknown reason"}'}
        write_text(parent / record.filename, _json(note))
    path = root / 'logs' / f'sub-{record.participant}' / f'{record.stem}.json'
    content = {'record': RECORD_TYPE, **_plain(dataclasses.asdict(record))}
    write_text(path, _json(content))
    return path


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + '\n'


def read_record(path: Path) -> ScanRecord | None:
    """Read a record; None for a file that is absent, half copied or no record.

    Raises
    ------
    TemporaryError
        When it is there and cannot be read: nobody knows then whether the scan is done.
    """
    content = _load(path)
    if content is None or content.get('record') != RECORD_TYPE:
        return None
    names = {item.name for item in dataclasses.fields(ScanRecord)}
    values = {key: value for key, value in content.items() if key in names}
    values['warnings'] = tuple(values.get('warnings') or ())
    try:
        return ScanRecord(**values)
    except TypeError:
        return None


def _load(path: Path) -> dict[str, Any] | None:
    raw = read_result(path, Path.read_bytes)
    try:
        content = None if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_records(out_dir: str | Path, participant: str) -> list[ScanRecord]:
    """Return every record of a participant, sorted by session and stem.

    Raises
    ------
    TemporaryError
        When one of them, or their folder, is there and cannot be read.
    """
    folder = Path(out_dir) / 'logs' / f'sub-{participant}'
    # one listing; a glob would ask about every entry once more
    names = read_result(folder, os.listdir) or []
    records = (
        read_record(folder / name)
        for name in sorted(names)
        if name.startswith('sub-') and name.endswith('.json')
    )
    kept = [item for item in records if item is not None and item.participant == participant]
    return sorted(kept, key=lambda item: (item.session or '', item.stem))


def tables_stand_in(out_dir: str | Path, participant: str) -> bool:
    """Tell whether scan tables stand for the records of a participant that has none to be read.

    They do where ``logs`` has no folder of the participant, and where all its records are
    damaged. Where there is the folder alone, records were removed, to leave their scans out.
    """
    folder = Path(out_dir) / 'logs' / f'sub-{participant}'
    return not folder.is_dir() or any(folder.glob('sub-*.json'))


def is_finished(
    out_dir: str | Path,
    scan: Scan,
    settings: str,
    required: Iterable[str] = ('dseg', 'dseg_tsv', 'dseg_json'),
) -> bool:
    """Tell whether a scan is done with these settings, so that a rerun may skip it.

    Parameters
    ----------
    settings
        Value of ``settings_hash`` for the present run.
    required
        Keys of ``names.output_paths`` that must exist.

    Raises
    ------
    TemporaryError
        When there is a record that cannot be read.

    Notes
    -----
    The input counts as unchanged when its size and both times of change are those of the record,
    or, where only times differ (a copied dataset), when its checksum is. Times are compared for
    equality alone, so that a clock that is wrong or jumps is of no consequence; the second, which
    nobody can set, tells a file that was rewritten under its old time. Data of git-annex or Git
    LFS that are not fetched count as unchanged while what stands in their place names the same
    content (docs/decisions/0137).
    """
    record = read_record(record_path(out_dir, scan))
    if record is None or record.status != 'ok' or record.settings_hash != settings:
        return False
    # the rules of a model go by the contrast, which a sidecar or a filter may have changed since
    if record.source != scan.uri or record.contrast != scan.contrast:
        return False
    paths = output_paths(out_dir, scan)
    if not all(paths[key].exists() for key in required):
        return False
    try:
        facts = file_facts(scan.path, checksum=False)
        if facts['input_size'] != record.input_size:
            named = named_sha256(read_placeholder(scan.path, facts['input_size']))
            return named is not None and named == record.input_sha256
        times = (facts['input_mtime_ns'], facts['input_ctime_ns'])
        if times == (record.input_mtime_ns, record.input_ctime_ns):
            return True
        return bool(file_facts(scan.path)['input_sha256'] == record.input_sha256)
    except FileNotFoundError:
        # content of git-annex that is not fetched: the link still says which it is
        return record.input_annex_key is not None and record.input_annex_key == annex_key(
            scan.path
        )
    except (OSError, ShivaCMBError):
        return False


def write_absence(out_dir: str | Path, participant: str, reason: str) -> Path:
    """Note that a participant has no usable scan, for the group's participants.tsv."""
    path = Path(out_dir) / 'logs' / f'sub-{participant}' / 'participant.json'
    write_text(path, _json({'record': ABSENCE_TYPE, 'participant': participant, 'reason': reason}))
    return path


def remove_absence(out_dir: str | Path, participant: str) -> None:
    """Forget what ``write_absence`` noted: the participant has a scan now."""
    with contextlib.suppress(OSError):
        (Path(out_dir) / 'logs' / f'sub-{participant}' / 'participant.json').unlink()


def read_absence(out_dir: str | Path, participant: str) -> str | None:
    """Return the reason noted by ``write_absence``, or None."""
    content = _load(Path(out_dir) / 'logs' / f'sub-{participant}' / 'participant.json')
    if content is None or content.get('record') != ABSENCE_TYPE:
        return None
    return str(content.get('reason') or '')
