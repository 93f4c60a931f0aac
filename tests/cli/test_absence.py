"""Who is in the tables of the group without a scan, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.bids import write_absence
from shivacmb.cli.main import main
from shivacmb.workflows.plan import ScanPlan


def test_reasons_are_true_and_slips_are_no_participants(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for picture in ('overview', 'lesions'):
        Path(finished.outputs[picture]).unlink()
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    for folder, name in (('02/ses-1', '02_ses-1_T2starw'), ('03', '03_T1w'), ('04_old', '04_x')):
        (bids / f'sub-{folder}' / 'anat').mkdir(parents=True)
        (bids / f'sub-{folder}' / 'anat' / f'sub-{name}.nii.gz').touch()
    (bids / 'sub-01.html').touch()
    # as earlier versions noted a slip
    write_absence(out, '1', 'not in the dataset')
    words = ['--model', str(spot_bundle), '-q']
    filters = tmp_path / 'filters.json'
    filters.write_text('{"scan": {"session": null}}')
    chosen = ['--bids-filter-file', str(filters), '--exclude-participant-label', '7']
    labels = ['--participant-label', '01', '02', '03', '1']
    assert main([str(bids), str(out), 'participant', *words, *chosen, *labels]) == 66
    said = capsys.readouterr().err
    assert '--exclude-participant-label: no sub-7 in <' in said
    assert f'no sub-1 in <{bids}>' in said
    assert 'sub-04' not in said
    assert main([str(bids), str(out), 'participant', *words, *chosen]) == 0
    assert f'<{bids / "sub-04_old"}> was left out: its label' in capsys.readouterr().err
    assert main([str(bids), str(out), 'group', '-q']) == 0
    rows = (out / 'participants.tsv').read_text().splitlines()[1:]
    assert [(row.split('\t')[0], row.split('\t')[1], row.split('\t')[-1]) for row in rows[1:]] == [
        (
            'sub-02', 'no scan',
            'no scan that passes --session-label, --modality and --bids-filter-file',
        ),
        ('sub-03', 'no scan', 'no usable scan'),
    ]  # fmt: skip
    assert rows[0].startswith('sub-01\t')
    assert not list((out / 'logs').glob('sub-1/*'))
