"""Results whose image is gone: what the app says to remove leaves them out."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from shivacmb.bids import read_record, write_record, write_scans_table
from shivacmb.cli.main import main
from shivacmb.workflows.plan import ScanPlan


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize(
    ('others', 'named', 'left'),
    [
        ([], ['logs/sub-01/sub-01.json', 'sub-01'], 'sub-01\tno scan\t0\t'),
        # the folder is theirs, too
        (['sub-01_run-2'], ['logs/sub-01/sub-01.json'], 'sub-01\tok\t1\t'),
    ],
)
def test_what_is_named_leaves_a_departed_scan_out(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str],
    others: list[str], named: list[str], left: str,
) -> None:  # fmt: skip
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    record = read_record(Path(finished.outputs['record']))
    assert record is not None
    record = replace(record, cmb_count=2, cmb_volume_mm3=9.0, burden_class='1-3')
    write_record(out, record)
    for stem in others:
        # of another dataset: its image is not looked for
        write_record(out, replace(record, stem=stem, source='bids:other:x'))
    write_scans_table(out, '01', None)
    finished.image.unlink()
    (bids / 'sub-02').mkdir()
    assert main([str(bids), str(out), 'participant', '-q', '--model', str(spot_bundle)]) == 66
    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if 'sub-01 still counts' in line]
    paths = [Path(path) for path in re.findall(r'<([^>]*)>', line.partition('remove')[2])]
    assert [path.relative_to(out).as_posix() for path in paths] == named
    for path in paths:
        remove(path)
    assert main([str(bids), str(out), 'group', '-q']) == 0
    assert (out / 'participants.tsv').read_text().splitlines()[1].startswith(left)


def test_a_result_of_an_image_that_is_no_scan_is_named(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    words = [str(bids), str(out), 'participant', '-q', '--model', str(spot_bundle)]
    (bids / 'sub-02').mkdir()
    for picture in ('overview', 'lesions'):
        Path(finished.outputs[picture]).unlink()
    # what a filter leaves out keeps its result
    assert main([*words, '--modality', 'swi']) == 18
    sidecar = finished.image.with_name('sub-01_T2starw.json')
    for metadata, told in (('{}', False), ('{"SeriesDescription": "mIP_Images(SW)"}', True)):
        sidecar.write_text(metadata)
        assert main(words) == (66 if told else 0)
        said = capsys.readouterr().err
        assert (
            'sub-01 still counts, though its image (bids:raw:sub-01/anat/sub-01_T2starw.nii.gz) '
            'is passed over now (SeriesDescription "mIP_Images(SW)" of its sidecar: a projection'
        ) in ' '.join(said.split()) or not told
        assert ('still counts' in said) == told
        assert (
            f'remove <{out / "logs/sub-01/sub-01.json"}> and <{out / "sub-01"}>' in said
        ) == told


def test_a_scan_without_record_does_not_count_by_its_old_table(
    tmp_path: Path, finished: ScanPlan
) -> None:
    """As after a run that was killed while it took a result back."""
    out = tmp_path / 'out'
    record = read_record(Path(finished.outputs['record']))
    assert record is not None
    write_record(out, replace(record, cmb_count=2, cmb_volume_mm3=9.0, burden_class='1-3'))
    write_scans_table(out, '01', None)
    Path(finished.outputs['record']).unlink()
    assert main([str(tmp_path / 'bids'), str(out), 'group', '-q']) == 0
    assert (out / 'participants.tsv').read_text().splitlines()[1].startswith('sub-01\tunfinished')
