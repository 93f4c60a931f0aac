"""The command on small trees, each with one thing that is odd: names, files and settings."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.system

Command = Callable[..., 'subprocess.CompletedProcess[str]']
A, B, C = (5, 5, 5), (15, 5, 5), (25, 25, 25)


@pytest.fixture
def command(tools_main: Command) -> Command:
    """Return the command without pictures, in this process."""
    quick = ('--pdf', 'none', '--no-gallery', '--bootstrap', '50', '--nprocs', '1')
    return lambda *args: tools_main('evaluate', *quick, *args)


def save(path: Path, *places: tuple[int, int, int]) -> Path:
    """Label map with a lesion of 2x2x2 voxels of 1 mm at each place."""
    found = np.zeros((30, 30, 30), np.uint8)
    for number, place in enumerate(places, start=1):
        found[tuple(slice(at - 1, at + 1) for at in place)] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(found, np.eye(4)), path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def pooled(folder: Path, rule: str, measure: str) -> Any:
    (row,) = [
        row
        for row in rows(folder / 'summary.tsv')
        if (row['rule'], row['measure'], row['aggregate']) == (rule, measure, 'pooled')
    ]
    return float(row['value'])


def test_only_file_of_each_folder_is_a_pair_with_a_remark(
    tmp_path: Path, command: Command
) -> None:
    pred = save(tmp_path / 'p' / 'patient7_pred.nii.gz', A, B)
    truth = save(tmp_path / 't' / 'patient9_truth.nii.gz', A, C)
    patterns = ('--pred-pattern', '*_pred.nii.gz', '--truth-pattern', '*_truth.nii.gz')
    done = command(pred.parent, truth.parent, '-o', tmp_path / 'o', *patterns)
    assert done.returncode == 0, done.stderr
    said = (
        'prediction <patient7_pred.nii.gz> and truth <patient9_truth.nii.gz> were paired as the '
        'only ones; see whether they are of one scan'
    )
    assert said in done.stderr
    assert [row['notes'] for row in rows(tmp_path / 'o/pairs.tsv')] == [said]
    done = command(pred, truth, '-o', tmp_path / 'o', '--compare', truth)
    assert (done.returncode, 'were paired' in done.stderr) == (0, False)
    pred.rename(pred.with_name('patient9_pred.nii.gz'))
    done = command(pred.parent, truth.parent, '-o', tmp_path / 'o', *patterns)
    assert (done.returncode, 'were paired' in done.stderr) == (0, False)


def test_numbers_alone_have_no_sweep_and_no_excuse(tmp_path: Path, command: Command) -> None:
    truth = save(tmp_path / 't' / 'sub-01_desc-CMB_dseg.nii.gz', A, B).parent
    done = command(truth, truth, '-o', tmp_path / 'o', '--rules', 'ko')
    assert (done.returncode, 'only the numbers' in done.stderr) == (0, False)
    for option in (['--sweep'], ['--compare', truth]):
        done = command(truth, truth, '-o', tmp_path / 'o', '--rules', 'ko', *option)
        assert done.returncode == 64
        assert f'{option[0]} needs a rule that matches lesions' in done.stderr


def test_nothing_of_an_earlier_run_stays(tmp_path: Path, command: Command) -> None:
    truth = save(tmp_path / 't' / 'sub-01_dseg.nii.gz', A, B).parent
    out = tmp_path / 'o'

    def files() -> set[str]:
        return {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()}

    def run(*args: Any) -> set[str]:
        done = command(truth, truth, '-o', out, *args)
        assert done.returncode == 0, done.stderr
        return files()

    mine = {
        'table3.txt', 'table3_mine.md', 'figures/paper/counts.png', 'figures/old/2024/sizes.png',
    }  # fmt: skip
    first = {'table3.md', 'figures/misses.png', 'report.pdf'}  # from before evaluate ran here
    for name in mine | first:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text('mine')
    one = run('--classes', 'CMB=1', 'iron=2', '--pdf', 'none')
    assert {'table3_CMB.md', 'table3_iron.tex', 'figures/iron/counts.png'} <= one
    assert mine | first <= one
    for name in first:
        (out / name).unlink()
    one = run('--pdf', 'plain')
    assert {'table3.md', 'table3.tex', 'figures/counts.png', 'report.pdf'} <= one
    assert mine <= one
    assert not any('CMB' in name or 'iron' in name for name in one)
    two = run('--classes', 'CMB=1', 'iron=2', '--pdf', 'none')
    assert {'table3_CMB.md', 'table3_iron.tex', 'figures/iron/counts.png'} | mine <= two
    assert two & {'table3.md', 'table3.tex', 'figures/counts.png', 'report.pdf'} == set()
    (out / 'report.pdf').write_text('mine')
    assert run('--pdf', 'none') == one  # the last evaluation made none: it is not ours
    (out / 'evaluation.json').write_text(
        '{"software": "another", "files": ["table3.md", "report.pdf"]}'
    )
    assert {'table3.md', 'report.pdf'} <= run('--classes', 'CMB=1', 'iron=2', '--pdf', 'none')


def test_tables_of_others_stay_where_evaluate_writes_none(
    tmp_path: Path, command: Command
) -> None:
    truth = save(tmp_path / 't' / 'sub-01_dseg.nii.gz', A, B).parent
    out = tmp_path / 'o'
    out.mkdir()
    for name in ('sweep.tsv', 'froc.json'):
        (out / name).write_text('mine')
    assert command(truth, truth, '-o', out).returncode == 0
    assert [(out / name).read_text() for name in ('sweep.tsv', 'froc.json')] == ['mine', 'mine']
    assert command(truth, truth, '-o', out, '--compare', truth).returncode == 0
    assert (out / 'comparison.tsv').exists()
    assert (out / 'comparison.json').exists()
    assert command(truth, truth, '-o', out).returncode == 0  # of the run before, and gone with it
    assert not list(out.glob('comparison.*'))


@pytest.mark.parametrize(
    ('option', 'cells', 'said'),
    [
        ((), '0.75 (0.35) | 1.00 (0.00)', 'has sensitivity 0 if there is a false positive and 1'),
        (('--zero-rule', 'drop'), '0.50 (n/a) | 1.00 (n/a)', 'left out of the mean of a ratio'),
        (('--zero-rule', 'valdo'), '0.50 (n/a) | 1.00 (n/a)', 'without lesions is left out of'),
    ],
)
def test_paper_table_says_how_empty_scans_count(
    tmp_path: Path, command: Command, option: tuple[str, ...], cells: str, said: str
) -> None:
    pred, truth = tmp_path / 'p', tmp_path / 't'
    for label, found, there in (('01', (A,), (A, B)), ('02', (), ())):
        save(pred / f'sub-{label}_dseg.nii.gz', *found)
        save(truth / f'sub-{label}_dseg.nii.gz', *there)
    assert command(pred, truth, '-o', tmp_path / 'o', *option).returncode == 0
    for name in ('table3.md', 'table3.tex'):
        text = (tmp_path / 'o' / name).read_text()
        assert said in text
        assert ('and 1 otherwise' in text) == (not option)
    assert cells in (tmp_path / 'o' / 'table3.md').read_text()


def test_slices_of_points_are_not_known(tmp_path: Path, command: Command) -> None:
    table = tmp_path / 'points.tsv'
    table.write_text('participant_id\tx\ty\tz\nsub-01\t4\t4\t4\n', encoding='utf-8')
    save(tmp_path / 'p' / 'sub-01_dseg.nii.gz', A)
    for pred, kinds in ((table, set()), (tmp_path / 'p', {'<1.5 mm'})):
        done = command(pred, table, '-o', tmp_path / 'o')
        assert done.returncode == 0, done.stderr
        strata = tmp_path / 'o' / 'strata.tsv'
        found = rows(strata) if strata.exists() else []
        assert {row['kind'] for row in found if row['stratum'] == 'slice_thickness'} == kinds


def test_predictions_under_other_names_are_not_missing(tmp_path: Path, command: Command) -> None:
    pred, truth, out = (tmp_path / name for name in ('p', 't', 'o'))
    for label, places in (('01', (A, B)), ('03', (A,)), ('04', (C,))):
        save(truth / f'sub-{label}_desc-CMB_dseg.nii.gz', *places)
    save(pred / 'sub-01_desc-CMB_dseg.nii.gz', A)
    for session in '12':
        save(pred / f'sub-03_ses-{session}_desc-CMB_dseg.nii.gz', A)
    done = command(pred, truth, '-o', out, '--missing-as-empty')
    assert done.returncode == 0, done.stderr
    status = {row['scan']: row['status'] for row in rows(out / 'pairs.tsv')}
    assert status == {
        'sub-01': 'scored', 'sub-03': 'no_prediction', 'sub-03_ses-1': 'no_truth',
        'sub-03_ses-2': 'no_truth', 'sub-04': 'counted_empty',
    }  # fmt: skip
    assert '1 scan(s) have no prediction: sub-03 (not counted as empty' in done.stderr
    assert 'count as if nothing had been found: sub-04' in done.stderr
    assert pooled(out, 'shiva', 'sensitivity') == pytest.approx(1 / 3, abs=1e-6)
    second = command(truth, truth, '-o', out, '--compare', pred, '--missing-as-empty')
    assert second.returncode == 0, second.stderr
    assert 'second set: 1 scan(s) have no prediction: sub-03 (not counted' in second.stderr
    assert 'second set: 1 scan(s) without a prediction count as if nothing' in second.stderr


def test_columns_of_pairs_have_one_order(tmp_path: Path, command: Command) -> None:
    pred, truth = tmp_path / 'p', tmp_path / 't'
    for label in '12':
        save(truth / f'sub-{label}_desc-CMB_dseg.nii.gz', A)
    save(pred / 'sub-2_desc-CMB_dseg.nii.gz', A)
    for sides in ((pred, truth), (truth, pred), (truth, truth)):
        assert command(*sides, '-o', tmp_path / 'o').returncode == 0
        head = (tmp_path / 'o' / 'pairs.tsv').read_text().splitlines()[0]
        assert head.split('\t')[-4:] == ['status', 'predictions', 'truth', 'notes']


def test_volumes_have_three_decimals_at_most(tmp_path: Path, command: Command) -> None:
    pred, truth = tmp_path / 'p.nii.gz', tmp_path / 't.nii.gz'
    for path, places in ((pred, (A,)), (truth, (A, B, C))):
        image = nib.load(save(path, *places))
        affine = np.diag([3.3, 3.3, 3.3, 1])  # 574.991975 by its header
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    done = command(pred, truth, '-o', tmp_path / 'o')
    assert done.returncode == 0, done.stderr
    assert {row['volume_difference_mm3'] for row in rows(tmp_path / 'o' / 'scores.tsv')} == {
        '574.992'
    }
    summary = rows(tmp_path / 'o' / 'summary.tsv')
    assert {row['value'] for row in summary if row['measure'] == 'volume_difference_mm3'} == {
        '574.992'
    }


def test_session_that_one_side_names_is_in_the_tables(tmp_path: Path, command: Command) -> None:
    one = save(tmp_path / 'p' / 'sub-01_ses-2_desc-CMB_dseg.nii.gz', A).parent
    other = save(tmp_path / 't' / 'sub-01_desc-CMB_dseg.nii.gz', A, B).parent
    for pred, truth in ((one, other), (other, one)):
        assert command(pred, truth, '-o', tmp_path / 'o').returncode == 0
        for name in ('counts.tsv', 'pairs.tsv'):
            (row,) = rows(tmp_path / 'o' / name)
            assert (row['scan'], row['session_id']) == ('sub-01_ses-2', 'ses-2')


def test_dataset_without_the_scans_is_told(tmp_path: Path, command: Command) -> None:
    truth = save(tmp_path / 't' / 'sub-01_dseg.nii.gz', A, B).parent
    raw = save(tmp_path / 'study' / 'bids' / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz', A)
    for folder, told in ((tmp_path / 'study', True), (tmp_path / 'study' / 'bids', False)):
        done = command(truth, truth, '-o', tmp_path / 'o', '--bids-dir', folder)
        assert done.returncode == 0, done.stderr
        assert (
            f'CMB: none of these scans was found in --bids-dir <{folder}>' in done.stderr
        ) == told
    raw.rename(raw.with_name('sub-01_T1w.nii.gz'))
    assert 'none of these scans was found' in command(
        truth, truth, '-o', tmp_path / 'o', '--bids-dir', tmp_path / 'study' / 'bids'
    ).stderr  # fmt: skip


def test_what_is_odd_about_the_second_set_is_said(tmp_path: Path, command: Command) -> None:
    truth = save(tmp_path / 't' / 'sub-01_desc-CMB_dseg.nii.gz', A, B)
    second = save(tmp_path / 's' / 'sub-01_ses-2_desc-CMB_dseg.nii.gz', A, (2, 25, 5))
    image = nib.load(second)
    moved = np.array(image.affine)
    moved[0, 3] = -10
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), second)
    run = (truth.parent, truth.parent, '-o', tmp_path / 'o', '--resample', 'predictions')
    done = command(*run, '--compare', second.parent)
    assert done.returncode == 0, done.stderr
    for said in (
        'sub-01_ses-2, second set: the predictions were resampled',
        'sub-01_ses-2, second set: 2 of them lie outside it and are gone',
        'CMB, second set: the names of 1 pair(s) do not agree in everything: prediction '
        'sub-01_ses-2 and truth sub-01 were paired by participant',
    ):
        assert said in done.stderr
        assert said in (tmp_path / 'o' / 'report.html').read_text()
    assert 'second set' not in command(*run, '--compare', truth.parent).stderr


def test_participants_of_a_table_without_zeros_are_chosen_by_their_labels(
    tmp_path: Path, command: Command
) -> None:
    table = tmp_path / 'truth.tsv'
    table.write_text(
        'participant_id\tx\ty\tz\n'
        + ''.join(f'{number}\t4.5\t4.5\t4.5\n' for number in (1, 2, 10, 11))
    )
    for label in ('01', '02', '10', '11'):
        path = save(tmp_path / 'p' / f'sub-{label}_desc-CMB_dseg.nii.gz', A)
        probability = path.with_name(f'sub-{label}_label-CMB_probseg.nii.gz')
        values = np.asarray(nib.load(path).dataobj) * np.float32(0.8)
        nib.save(nib.Nifti1Image(values, np.eye(4)), probability)
    run = (tmp_path / 'p', table, '-o', tmp_path / 'o')
    done = command(*run, '--sweep', '--choose-on', '01', '10', '--main-rule', 'deepmir-mm')
    assert done.returncode == 0, done.stderr
    assert 'chosen on 2 scan(s)' in done.stdout
    assert 'On the 2 other scan(s)' in done.stdout
    done = command(*run, '--participant-label', '01', '10')
    assert done.returncode == 0, done.stderr
    assert [row['scan'] for row in rows(tmp_path / 'o' / 'pairs.tsv')] == ['sub-01', 'sub-10']
    with table.open('a') as stream:  # 1 and 01 are two people where both are there
        stream.write('01\t4.5\t4.5\t4.5\n')
    assert command(*run, '--participant-label', '01', '10').returncode == 0
    assert [row['participant_id'] for row in rows(tmp_path / 'o' / 'pairs.tsv')] == [
        'sub-01', 'sub-10',
    ]  # fmt: skip


def test_pooled_difference_of_one_participant_has_no_interval(
    tmp_path: Path, command: Command
) -> None:
    found = {'p': (A,), 's': (A, B), 't': (A, B)}
    for label in ('01', '02', '03'):
        for side, places in found.items():
            here = places if label == '01' else ()
            save(tmp_path / side / f'sub-{label}_desc-CMB_dseg.nii.gz', *here)
    run = (tmp_path / 'p', tmp_path / 't', '-o', tmp_path / 'o', '--compare', tmp_path / 's')

    def pooled_row() -> dict[str, str]:
        assert command(*run).returncode == 0
        found = rows(tmp_path / 'o' / 'comparison.tsv')
        return next(
            row for row in found if (row['rule'], row['measure']) == ('shiva', 'f1_pooled')
        )

    row = pooled_row()
    assert (row['difference'], row['low'], row['n']) == ('0.333333', 'n/a', '3')
    save(tmp_path / 's' / 'sub-02_desc-CMB_dseg.nii.gz', A)  # a false positive is one to draw
    assert pooled_row()['low'] != 'n/a'


@pytest.mark.parametrize('option', [(), ('--pred-pattern', '*_dseg.nii.gz')])
def test_link_to_a_file_that_is_not_here_is_no_missing_prediction(
    tmp_path: Path, command: Command, option: tuple[str, ...]
) -> None:
    for label in ('01', '02'):
        for side in ('p', 't'):
            save(tmp_path / side / f'sub-{label}_desc-CMB_dseg.nii.gz', A)
    link = tmp_path / 'p' / 'sub-02_desc-CMB_dseg.nii.gz'
    link.unlink()
    link.symlink_to(tmp_path / 'annex' / 'key')
    run = (tmp_path / 'p', tmp_path / 't', '-o', tmp_path / 'o', '--missing-as-empty', *option)
    done = command(*run)
    assert done.returncode == 65
    assert f'<{link}> (predictions) is a link to a file that is not here: fetch it' in done.stderr
    done = command(*run, '--participant-label', '01')
    assert done.returncode == 0, done.stderr


def test_probability_maps_beside_are_found_as_the_maps_are(
    tmp_path: Path, command: Command
) -> None:
    pred = save(tmp_path / 'p' / 'sub-01_desc-CMB_dseg.nii', A)
    truth = save(tmp_path / 't' / 'sub-01_desc-CMB_dseg.nii.gz', A)
    probability = save(pred.with_name('sub-01_label-CMB_probseg.nii'), A)
    run = (pred.parent, truth.parent, '-o', tmp_path / 'o', '--sweep')
    done = command(*run)
    assert done.returncode == 0, done.stderr
    assert 'no probability map' not in done.stderr
    assert 'chosen on 1 scan(s)' in done.stdout
    probability.unlink()
    probability.symlink_to(tmp_path / 'annex' / 'key')
    done = command(*run)
    assert done.returncode == 65
    assert f'<{probability}> (predictions) is a link to a file that is not here' in done.stderr


def test_table_that_is_not_here_is_named(tmp_path: Path, command: Command) -> None:
    save(tmp_path / 'p' / 'sub-01_desc-CMB_dseg.nii.gz', A)
    save(tmp_path / 'p' / 'sub-02_desc-CMB_dseg.nii.gz', A)
    truth = tmp_path / 't'
    truth.mkdir()
    (truth / 'sub-01_desc-CMB_points.tsv').write_text('x\ty\tz\n5\t5\t5\n', encoding='utf-8')
    link = truth / 'sub-02_desc-CMB_points.tsv'
    link.symlink_to(tmp_path / 'annex' / 'key')
    run = (tmp_path / 'p', truth, '-o', tmp_path / 'o')
    done = command(*run)
    assert done.returncode == 65
    assert f'The table <{link}> is a link to a file that is not here' in done.stderr
    done = command(*run, '--participant-label', '01')
    assert done.returncode == 0, done.stderr
