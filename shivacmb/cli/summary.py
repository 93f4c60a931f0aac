"""The table a run prints when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shivacmb.bids import Scan


def print_summary(
    out_dir: Path, scans: Sequence[Scan], skipped: int, failed: Collection[str] = ()
) -> None:
    """Print one row per scan, and where to read more.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    scans : sequence of Scan
        The scans of this run.
    skipped : int
        How many of them were already finished.
    failed : collection of str
        Stems of those that failed in this run; one of them may keep the result of an earlier run.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from shivacmb.bids import read_record, record_path, report_path
    from shivacmb.exceptions import TemporaryError

    table = Table(box=None, pad_edge=False)
    for column, justify in (
        ('scan', 'left'),
        ('status', 'left'),
        ('microbleeds', 'right'),
        ('class', 'right'),
        ('volume mm3', 'right'),
    ):
        table.add_column(column, justify=justify, no_wrap=column != 'scan')  # type: ignore[arg-type]
    reports = []
    for scan in scans:
        try:
            record = read_record(record_path(out_dir, scan))
        except TemporaryError:
            table.add_row(escape(scan.stem), 'unreadable', '', '', '')
            continue
        if record is None:
            table.add_row(escape(scan.stem), 'not done', '', '', '')
            continue
        ok = record.status == 'ok'
        good = 'ok (earlier run)' if scan.stem in failed else 'ok'
        table.add_row(
            escape(scan.stem),
            good if ok else '[red]failed[/red]',
            str(record.cmb_count) if ok else '',
            str(record.burden_class) if ok else '',
            f'{record.cmb_volume_mm3:.1f}' if ok else '',
        )
        report = report_path(out_dir, scan.participant, scan.session)
        if report not in reports:
            reports.append(report)
    console = Console()
    console.print(table)
    if skipped:
        console.print(f'{skipped} already finished with the same settings (--overwrite redoes).')
    if len(reports) == 1:
        console.print(f'Report: {reports[0]}', soft_wrap=True)
    elif reports:
        console.print(f'Reports: {reports[0].parent}', soft_wrap=True)
    console.print('For research use only.')
