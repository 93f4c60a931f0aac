"""What a page says of how a scan was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb import reports
from shivacmb.bids import record_path, retract
from shivacmb.bids.records import ScanRecord, write_record
from shivacmb.cli.pages import _left_out, write_page


@pytest.mark.parametrize(
    ('left_out', 'rule', 'words'),
    [
        (0, 0.5, '0 candidates in fluid, at the pineal gland or outside the brain ('),
        (1, 0.5, '1 candidate in fluid, '),
        (2, 0.1, '2 candidates in fluid, at the pineal gland or outside the brain '
                 '(parenchyma_fraction below 0.1)'),
        (0, 0.0, ''),
        (None, 0.5, ''),
    ],
)  # fmt: skip
def test_what_was_not_counted(left_out: int | None, rule: float, words: str) -> None:
    record = ScanRecord(
        '01', None, 'sub-01', 'anat/x', 'complete', cmb_left_out=left_out, min_parenchyma=rule
    )
    found = _left_out(record)
    assert bool(found) == bool(words)
    assert all(label == 'Not counted' and text.startswith(words) for label, text in found)


def test_a_page_shows_what_another_process_finished_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(run: int) -> None:
        stem = f'sub-01_run-{run}'
        name = f'anat/{stem}_desc-CMB_dseg.json'
        write_record(tmp_path, ScanRecord('01', None, stem, name, 'failed', f'reason {run}'))

    written: list[int] = []
    write = reports.write_session_page

    def slow(out_dir: Path, participant: str, session: Any, scans: Any, **rest: Any) -> Path:
        if not written:
            finish(2)
        written.append(len(scans))
        return write(out_dir, participant, session, scans, **rest)

    monkeypatch.setattr(reports, 'write_session_page', slow)
    finish(1)
    write_page(tmp_path, '01', None)
    assert written == [1, 2]
    text = (tmp_path / 'docs' / 'sub-01.html').read_text()
    assert 'reason 1' in text
    assert 'reason 2' in text


def test_no_page_stays_of_scans_that_were_taken_back_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ScanRecord('01', None, 'sub-01', 'anat/sub-01_desc-CMB_dseg.json', 'failed', 'why')
    write = reports.write_session_page

    def slow(*args: Any, **rest: Any) -> Path:
        path = write(*args, **rest)
        retract(tmp_path, record)
        # the other process looked before the page was there
        write(*args, **rest)
        return path

    monkeypatch.setattr(reports, 'write_session_page', slow)
    write_record(tmp_path, record)
    write_page(tmp_path, '01', None)
    assert not (tmp_path / 'docs' / 'sub-01.html').exists()


def test_a_page_written_while_its_record_goes_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ScanRecord('01', None, 'sub-01', 'anat/sub-01_desc-CMB_dseg.json', 'failed', 'why')
    write_record(tmp_path, record)
    unlink = Path.unlink

    def raced(path: Path, missing_ok: bool = False) -> None:
        if path == record_path(tmp_path, record):
            write_page(tmp_path, '01', None)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, 'unlink', raced)
    retract(tmp_path, record)
    assert not (tmp_path / 'docs' / 'sub-01.html').exists()
