"""A result that is there and cannot be read (a file server fails, another user's file)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import (
    Departed,
    ScanRecord,
    find_departed,
    read_record,
    read_records,
    retract,
    write_record,
    write_scans_table,
)
from shivacmb.bids.describe import check_output_folder
from shivacmb.bids.tables import read_table, scans_table_paths
from shivacmb.cli.main import main
from shivacmb.exceptions import TemporaryError
from shivacmb.workflows.plan import ScanPlan

#: What a file server says of a file that was renamed over.
STALE = OSError(116, 'Stale file handle')


def hide(path: Path) -> None:
    """Have every attempt to read a file fail, for root too, though it is there."""
    path.unlink(missing_ok=True)
    path.mkdir()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.fixture
def hidden(tmp_path: Path, finished: ScanPlan) -> Path:
    """Return the output folder of a finished scan whose record cannot be read."""
    hide(Path(finished.outputs['record']))
    return tmp_path / 'out'


def run(hidden: Path, bundle: Path, level: str = 'participant', *words: str) -> int:
    bids = str(hidden.with_name('bids'))
    return main([bids, str(hidden), level, '-q', '--model', str(bundle), *words])


@pytest.mark.parametrize(
    ('words', 'code'),
    [((), 75), (('--brain-mask', '/nowhere/{participant}.nii.gz'), 66), (('--overwrite',), 75)],
)
def test_no_run_touches_the_result(
    hidden: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    code: int,
) -> None:  # fmt: skip
    before = files(hidden / 'sub-01')
    assert run(hidden, spot_bundle, 'participant', *words) == code
    assert files(hidden / 'sub-01') == before
    said = capsys.readouterr().err
    if code == 75:
        assert 'sub-01 failed: cannot read <' in said
        assert 'run again when it can be read, or see its permissions' in said


def test_dry_run_names_it(
    hidden: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(hidden, spot_bundle, 'participant', '--dry-run') == 75
    assert 'would fail: cannot read <' in capsys.readouterr().out


def test_group_leaves_no_scan_out(
    hidden: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(hidden, spot_bundle, 'group') == 75
    assert 'sub-01.json> (Is a directory)' in capsys.readouterr().err
    assert not list(hidden.glob('group_*'))
    assert not (hidden / 'participants.tsv').exists()


def test_scans_beside_it_keep_no_wrong_table(tmp_path: Path) -> None:
    """A scan that is retracted leaves no row that calls it analysed."""
    kept, gone = (
        ScanRecord(
            participant='01', session=None, stem=f'sub-01_run-{run}', status='ok', cmb_count=1,
            filename=f'anat/sub-01_run-{run}_desc-CMB_dseg.nii.gz', contrast='T2starw',
        )
        for run in (1, 2)
    )  # fmt: skip
    hidden = write_record(tmp_path, kept)
    write_record(tmp_path, gone)
    table = write_scans_table(tmp_path, '01', None)
    assert table is not None
    hide(hidden)
    with pytest.raises(TemporaryError, match='so nobody knows what it holds'):
        write_scans_table(tmp_path, '01', None)
    retract(tmp_path, gone)
    assert not any(path.exists() for path in scans_table_paths(tmp_path, '01', None))


def test_nothing_departs_that_nobody_can_read(tmp_path: Path) -> None:
    record = ScanRecord(
        participant='01', session=None, stem='sub-01', status='failed', contrast='T2starw',
        filename='anat/sub-01_desc-CMB_dseg.json', source='bids:raw:sub-01/anat/gone.nii.gz',
    )  # fmt: skip
    path = write_record(tmp_path / 'out', record)
    [departed] = find_departed(tmp_path / 'out', tmp_path, ['01'])
    assert isinstance(departed, Departed)
    hide(path)
    assert find_departed(tmp_path / 'out', tmp_path, ['01']) == []


def test_absent_and_broken_files_are_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path, '01') == []
    folder = tmp_path / 'logs' / 'sub-01'
    folder.mkdir(parents=True)
    (folder / 'sub-01_T2starw.json').write_text('{"record": "shiva')
    assert read_records(tmp_path, '01') == []


def test_table_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_table(tmp_path / 'absent.tsv') == []
    hide(tmp_path / 'sub-01_scans.tsv')
    with pytest.raises(TemporaryError, match=r'sub-01_scans\.tsv> \(Is a directory\)'):
        read_table(tmp_path / 'sub-01_scans.tsv')


def test_a_record_beside_it_does_not_end_the_run(
    hidden: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids = hidden.with_name('bids')
    for label, session in (('01', 'a'), ('02', 'a')):
        folder = bids / f'sub-{label}' / f'ses-{session}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{label}_ses-{session}_T2starw.nii.gz').write_bytes(b'')
    code = run(hidden, spot_bundle, 'participant', '--brain-mask', '/nowhere/{participant}.nii.gz')
    assert code == 66
    said = capsys.readouterr().err
    for stem in ('sub-01_ses-a', 'sub-02_ses-a'):
        assert f'{stem} failed: no brain mask' in said
        [record] = (hidden / 'logs').rglob(f'{stem}.json')
        assert '"failed"' in record.read_text()
    assert (hidden / 'sub-02' / 'ses-a' / 'sub-02_ses-a_scans.tsv').exists()


def test_script_of_an_array_takes_the_scan(
    hidden: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shivacmb.cli.tools import main as tools

    bids = str(hidden.with_name('bids'))
    assert tools(['slurm', bids, str(hidden), '--', '--model', str(spot_bundle)]) == 0
    said = capsys.readouterr()
    assert '\n01\n' in said.out
    assert '1 scan(s) will fail as things are; shivacmb --dry-run says why' in said.err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the next readings of a file fail, each with one of some errors."""
    read, errors = Path.read_bytes, list[OSError]()

    def next_one(path: Path) -> bytes:
        if errors:
            raise errors.pop(0)
        return read(path)

    monkeypatch.setattr(Path, 'read_bytes', next_one)
    return lambda *some: errors.extend(some)


def test_a_record_that_was_just_replaced_is_read_again(finished: ScanPlan, failing: Any) -> None:
    path = Path(finished.outputs['record'])
    failing(STALE)
    assert read_record(path) is not None
    failing(OSError(5, 'Input/output error'))
    with pytest.raises(TemporaryError, match=r'\(Input/output error\)'):
        read_record(path)


def test_description_is_read_again(tmp_path: Path, failing: Any) -> None:
    """Tasks that start together rename it; a file server calls the old one stale."""
    path = tmp_path / 'dataset_description.json'
    path.write_text('{"GeneratedBy": [{"Name": "shivacmb"}]}')
    failing(STALE)
    check_output_folder(tmp_path)
    failing(STALE, STALE)
    with pytest.raises(TemporaryError, match=r'\(Stale file handle\), so nobody knows what it'):
        check_output_folder(tmp_path)
