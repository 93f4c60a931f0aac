"""Pages of a report, built from what OUT_DIR holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb import __version__
from shivacmb.exceptions import DataError, TemporaryError

if TYPE_CHECKING:
    from shivacmb.bids import Scan, ScanRecord
    from shivacmb.reports import ScanReport

_MASKS = {
    'builtin': 'built-in network',
    'background': 'background of the skull-stripped scan',
    'given': 'given by the user',
}
_LINKS = (
    ('desc-CMB_dseg.nii.gz', 'Label map'),
    ('desc-CMB_dseg.tsv', 'Lesion table'),
    ('label-CMB_probseg.nii.gz', 'Probability map'),
    ('desc-zones_dseg.nii.gz', 'Zones of the brain'),
    ('desc-CMB_dseg.json', 'Provenance'),
)
#: How often a page is written anew while other processes finish scans of its session.
_ROUNDS = 100
GROUPS_SHOWN = ('lobar', 'deep', 'infratentorial', 'unplaced')


def write_pages(out_dir: Path, scans: Iterable[Scan]) -> None:
    """Write the page of every session that has one of these scans."""
    for participant, session in dict.fromkeys((scan.participant, scan.session) for scan in scans):
        # The scan tables were written from the same records: what cannot be read has been said
        with contextlib.suppress(TemporaryError):
            write_page(out_dir, participant, session)


def write_all_pages(out_dir: Path) -> None:
    """Rebuild tables and pages of every session that has a record and a folder in OUT_DIR."""
    from shivacmb.bids import read_records, write_scans_table
    from shivacmb.bids.names import session_dir

    for folder in sorted((out_dir / 'logs').glob('sub-*')):
        records = read_records(out_dir, folder.name.removeprefix('sub-'))
        for participant, session in dict.fromkeys((r.participant, r.session) for r in records):
            # a folder that the user removed stays removed
            if session_dir(out_dir, participant, session).is_dir():
                write_scans_table(out_dir, participant, session, known=records)
                write_page(out_dir, participant, session, known=records)


def write_missing_pages(out_dir: Path, records: Iterable[ScanRecord]) -> None:
    """Write the pages of sessions that have none: their run was killed before it came to them.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    records : iterable of ScanRecord
        Of all scans. Sessions whose folder the user removed get no page.
    """
    from shivacmb.bids import report_path
    from shivacmb.bids.names import session_dir

    # one listing: asking a file server for each of ten thousand pages takes a minute
    present = {path.name for path in (out_dir / 'docs').glob('sub-*.html')}
    sessions: dict[tuple[str, str | None], list[ScanRecord]] = {}
    for record in records:
        sessions.setdefault((record.participant, record.session), []).append(record)
    for (participant, session), known in sessions.items():
        if report_path(out_dir, participant, session).name in present:
            continue
        if session_dir(out_dir, participant, session).is_dir():
            write_page(out_dir, participant, session, known=known)


def write_page(
    out_dir: Path, participant: str, session: str | None, *, known: Sequence[ScanRecord] = ()
) -> None:
    """Write the page of one session from its records.

    As for the scan table (docs/decisions/0032), the records are read again once it is written:
    another process may have finished a scan of the session, and have written its page, meanwhile.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    participant, session
        Labels without prefix; ``session`` may be None.
    known : sequence of ScanRecord
        Records of the session, and others, that were read a moment ago.
    """
    from shivacmb.bids import read_records, report_path
    from shivacmb.reports import write_session_page

    shown: list[ScanRecord] = []
    for _ in range(_ROUNDS):
        there = known or read_records(out_dir, participant)
        known = ()
        records = [item for item in there if item.session == session]
        if not records and shown:
            # the last of its scans was taken back meanwhile
            report_path(out_dir, participant, session).unlink(missing_ok=True)
        if records == shown or not records:
            return
        reports = [scan_report(out_dir, record) for record in records]
        write_session_page(out_dir, participant, session, reports, version=__version__)
        shown = records


def write_index_page(
    out_dir: Path,
    records: Iterable[ScanRecord] = (),
    without: Sequence[tuple[str, str]] = (),
) -> None:
    """Write ``docs/index.html`` over the pages that are there and whose scans are in the tables.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    records : iterable of ScanRecord
        Records that have been read already, whose pages need not be opened.
    without : sequence of (str, str)
        Participants without any scan, with prefix, and why.
    """
    from shivacmb.bids.names import scans_table_paths
    from shivacmb.bids.records import tables_stand_in
    from shivacmb.reports import ScanReport, page_summary, write_index

    records = list(records)
    recorded = {record.participant for record in records}

    def in_table(participant: str, session: str | None) -> bool:
        """Whether the group level read a session's table, as it does without records."""
        return (
            participant not in recorded
            and tables_stand_in(out_dir, participant)
            and scans_table_paths(out_dir, participant, session)[0].exists()
        )

    sessions: dict[tuple[str, str | None], list[ScanReport]] = {}
    notices = _NoticesByKind(out_dir)
    for record in records:
        sessions.setdefault((record.participant, record.session), []).append(
            ScanReport(
                stem=record.stem,
                status='complete' if record.status == 'ok' else record.status,
                reason=record.reason or '',
                count=record.cmb_count,
                burden_class=record.burden_class,
                volume_mm3=record.cmb_volume_mm3,
                warnings=record.warnings,
                notices=notices.of(record),
            )
        )
    known = [page_summary(*labels, reports) for labels, reports in sessions.items()]
    write_index(out_dir, version=__version__, known=known, without=without, counts=in_table)


class _NoticesByKind:
    """Notices of scans, of which one sidecar is read for each kind: not ten thousand of them."""

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.found: dict[tuple[Any, ...], tuple[tuple[str, str], ...]] = {}

    def of(self, record: ScanRecord) -> tuple[tuple[str, str], ...]:
        """Notices of a scan; none where it failed or its sidecar cannot be read."""
        kind = (
            record.model,
            record.model_version,
            record.software_version,
            record.brain_mask,
            record.cmb_lobar is None,
        )
        if record.status == 'ok' and kind not in self.found:
            try:
                self.found[kind] = _notices(_sidecar(self.out_dir, record))
            except (OSError, ValueError, LookupError, TypeError):
                return ()
        return self.found.get(kind, ())


def _sidecar(out_dir: Path, record: ScanRecord) -> dict[str, Any]:
    from shivacmb.bids.names import session_dir

    folder = session_dir(out_dir, record.participant, record.session) / 'anat'
    text = (folder / f'{record.stem}_desc-CMB_dseg.json').read_text('utf-8')
    return dict(json.loads(text))


def scan_report(out_dir: Path, record: ScanRecord) -> ScanReport:
    """Join the record of a scan with its lesion table and sidecar.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    record : ScanRecord
        Of the scan.

    Returns
    -------
    ScanReport
        What its section of the page shows.
    """
    from shivacmb.bids.names import session_dir
    from shivacmb.lesions import read_lesions
    from shivacmb.reports import ScanReport

    if record.status != 'ok':
        return ScanReport(
            stem=record.stem,
            status=record.status,
            reason=record.reason or '',
            warnings=record.warnings,
            facts=(('Source', record.source or ''),),
        )
    folder = session_dir(out_dir, record.participant, record.session) / 'anat'
    try:
        sidecar = _sidecar(out_dir, record)
        lesions = read_lesions(folder / f'{record.stem}_desc-CMB_dseg.tsv')
        facts = _facts(record, sidecar)
        notices = _notices(sidecar)
    except (OSError, ValueError, LookupError, TypeError, DataError) as error:
        # Files were removed or damaged by hand, or another run is putting new ones in place
        return ScanReport(
            stem=record.stem,
            status='incomplete',
            reason=f'its files in <{folder}> are missing or damaged ({error}): run the '
            'participant level again',
            facts=(('Source', record.source or ''),),
        )
    return ScanReport(
        stem=record.stem,
        count=record.cmb_count,
        burden_class=record.burden_class,
        volume_mm3=record.cmb_volume_mm3,
        groups=tuple(
            (name, count)
            for name in GROUPS_SHOWN
            if (count := getattr(record, f'cmb_{name}')) is not None
        ),
        lesions=lesions,
        warnings=record.warnings,
        facts=facts,
        notices=notices,
        files=tuple(
            (label, (folder / f'{record.stem}_{tail}').relative_to(out_dir).as_posix())
            for tail, label in _LINKS
            if (folder / f'{record.stem}_{tail}').exists()
        ),
    )


def _notices(sidecar: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the models that took part were made for; older sidecars do not name the second."""
    model, brain = sidecar['Model'], sidecar.get('BrainModel')
    found = [(f'About the model {_named(model)}', str(model['IntendedUse']))]
    if brain and brain['IntendedUse']:
        found.append((f'About mask and zones by {_named(brain)}', str(brain['IntendedUse'])))
    return tuple(notice for notice in found if notice[1])


def _named(model: dict[str, Any]) -> str:
    return f'{model["Name"]} {model["Version"]}'


def _facts(record: ScanRecord, sidecar: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What was done, in the order of the pipeline."""
    values = sidecar['Parameters']
    model = sidecar['Model']
    box = ' x '.join(str(size) for size in values['box_shape'])
    mask = _MASKS.get(record.brain_mask or '', record.brain_mask or '')
    scale = f'{values["percentile"]:g}th percentile of the brain to 1, cut at {values["clip"]:g}'
    if values['divide'] != 1:
        scale += f', divided by {values["divide"]:g}'
    volume = f'{record.mask_volume_ml:.0f} mL' if record.mask_volume_ml is not None else ''
    outside = record.brain_voxels_outside_box
    outline = values.get('outline_threshold')
    return (
        ('Source', record.source or ''),
        ('Contrast', record.contrast or ''),
        ('Reoriented and resampled', f'{values["voxel_mm"]:g} mm, toolkit {values["toolkit"]}'),
        ('Brain mask', f'{mask}, {volume}'),
        *_brain_model(sidecar),
        ('Box', f'{box} voxels, {outside} voxels of brain outside'),
        ('Intensity', scale),
        ('Model', f'{_named(model)}, {len(model["Folds"])} networks'),
        ('Engine', values['engine']),
        (
            'Lesions',
            f'probability of at least {values["threshold"]:g}, {values["connectivity"]}-connected'
            f', at least {values["min_voxels"]} voxels'
            + (f'; outlined down to {outline:g}' if outline is not None else ''),
        ),
        *_left_out(record),
        ('Software', ', '.join(f'{k} {v}' for k, v in sidecar['Software'].items())),
    )


def _left_out(record: ScanRecord) -> tuple[tuple[str, str], ...]:
    """How many candidates were not counted, where there is such a rule."""
    if record.cmb_left_out is None or not record.min_parenchyma:
        return ()
    what = 'candidate' if record.cmb_left_out == 1 else 'candidates'
    rule = (
        'in fluid, at the pineal gland or outside the brain (parenchyma_fraction below '
        f'{record.min_parenchyma:g})'
    )
    return (('Not counted', f'{record.cmb_left_out} {what} {rule}'),)


def _brain_model(sidecar: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    brain = sidecar.get('BrainModel')
    return ((f'Network of {" and ".join(brain["UsedFor"])}', _named(brain)),) if brain else ()
