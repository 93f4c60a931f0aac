"""The installed command on small trees: what it writes, what it refuses, with which exit code."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.system

QUICK = ('--pdf', 'none', '--no-gallery', '--bootstrap', '50', '--nprocs', '1')
SHAPE = (32, 32, 20)
AFFINE = np.diag([1.0, 1.0, 1.5, 1.0])
#: first voxel of each lesion of 3x3x2 voxels: truth, predictions
SCANS: dict[str, tuple[list[Any], list[Any]]] = {
    'sub-01': ([(4, 4, 4), (20, 4, 4), (4, 20, 4)], [(5, 4, 4), (20, 20, 10)]),
    'sub-02': ([], []),
    'sub-03': ([(4, 4, 4)], [(4, 4, 4)]),
    'sub-04': ([(10, 10, 10)], []),
}


Command = Callable[..., 'subprocess.CompletedProcess[str]']


def installed(*args: Any) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name('shivacmb-tools')
    return subprocess.run(
        [str(program), 'evaluate', *map(str, args)], capture_output=True, text=True, check=False,
        timeout=500,
    )  # fmt: skip


@pytest.fixture(scope='module')
def command(tools_main: Command) -> Command:
    """Return ``shivacmb-tools evaluate`` without a process of its own."""
    return lambda *args: tools_main('evaluate', *args)


def labels(places: list[Any]) -> Any:
    found = np.zeros(SHAPE, np.int16)
    for value, (i, j, k) in enumerate(places, start=1):
        found[i : i + 3, j : j + 3, k : k + 2] = value
    return found


def save(path: Path, values: Any, affine: Any = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def make_tree(root: Path) -> Path:
    """Raw data, truth in derivatives, predictions with probability maps."""
    rng = np.random.default_rng(0)
    raw = root / 'bids'
    for name, (truth, pred) in SCANS.items():
        image = rng.normal(500, 20, SHAPE)
        image[labels(truth) > 0] = 100
        kind = 'swi' if name == 'sub-03' else 'T2starw'
        save(raw / name / 'anat' / f'{name}_{kind}.nii.gz', image.astype(np.int16))
        sidecar = {'MagneticFieldStrength': 3 if name < 'sub-03' else 1.5, 'EchoTime': 0.02}
        (raw / name / 'anat' / f'{name}_{kind}.json').write_text(json.dumps(sidecar))
        save(raw / 'derivatives/truth' / name / f'anat/{name}_desc-CMB_dseg.nii.gz', labels(truth))
        out = root / 'out' / name / 'anat'
        save(out / f'{name}_desc-CMB_dseg.nii.gz', labels(pred))
        prob = np.where(labels(pred) > 0, 0.7, 0).astype(np.float32)
        prob[28:31, 28:31, 16:18] = 0.3
        save(out / f'{name}_label-CMB_probseg.nii.gz', prob)
    (raw / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (raw / 'participants.tsv').write_text(
        'participant_id\tsex\nsub-01\tF\nsub-02\tM\nsub-03\tM\nsub-04\tF\n'
    )
    return root


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tree that tests only read."""
    return make_tree(tmp_path_factory.mktemp('evaluate'))


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """Tree that a test may spoil."""
    shutil.copytree(data, tmp_path / 'copy')
    return tmp_path / 'copy'


def sides(root: Path) -> tuple[Path, Path]:
    return root / 'out', root / 'bids' / 'derivatives' / 'truth'


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def value(folder: Path, rule: str, measure: str, aggregate: str, zero_rule: str = 'n/a') -> float:
    (row,) = [
        row
        for row in rows(folder / 'summary.tsv')
        if (row['rule'], row['measure'], row['aggregate'], row['zero_rule'])
        == (rule, measure, aggregate, zero_rule)
    ]
    return float(row['value'])


@pytest.fixture(scope='module')
def full(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the command can write."""
    out = tmp_path_factory.mktemp('full') / 'scores'
    done = installed(
        *sides(data), '-o', out, '--sweep', '--choose-on', '01', 'sub-02', '--strata', 'sex',
        '--compare', sides(data)[1], '--names', 'model', 'perfect', '--bootstrap', '100',
        '--pdf', 'plain', '--title', 'Test <of> all', '--nprocs', '2',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'CMB: 4 scans of 4 participants, 5 lesions, 3 predictions' in done.stdout
    return out


def test_hand_worked_scores(full: Path) -> None:
    # pooled: 2 of 5 lesions found, 2 of 3 predictions right
    assert value(full, 'shiva', 'sensitivity', 'pooled') == pytest.approx(0.4)
    assert value(full, 'shiva', 'precision', 'pooled') == pytest.approx(2 / 3, abs=1e-6)
    assert value(full, 'shiva', 'f1_count', 'pooled') == 0.5
    assert value(full, 'shiva', 'fp_avg', 'pooled') == 0.25
    assert value(full, 'shiva', 'fp_cmb', 'pooled') == 0.2
    # per scan: sensitivity 1/3 1 1 0, precision 1/2 1 1 0, F1 2/5 1 1 0
    assert value(full, 'shiva', 'sensitivity', 'mean', 'shiva') == pytest.approx(7 / 12, abs=1e-6)
    assert value(full, 'shiva', 'precision', 'mean', 'shiva') == pytest.approx(0.625)
    assert value(full, 'shiva', 'f1_count', 'mean', 'shiva') == pytest.approx(0.6)
    # the scan without lesions drops out: F1 2/5 1 0
    assert value(full, 'valdo-mm', 'f1_count', 'median', 'valdo') == pytest.approx(0.4)
    # numbers 3:2, 0:0, 1:1, 1:0
    assert value(full, 'ko', 'ko_sensitivity', 'pooled') == pytest.approx(1 / 3, abs=1e-6)
    assert value(full, 'ko', 'presence_sensitivity', 'pooled') == pytest.approx(2 / 3, abs=1e-6)


def test_every_table_has_a_dictionary_for_every_column(full: Path) -> None:
    names = {path.stem for path in full.glob('*.tsv')}
    assert names == {
        'pairs', 'summary', 'scores', 'counts', 'lesions', 'agreement', 'confusion', 'sizes',
        'strata', 'sweep', 'froc', 'comparison',
    }  # fmt: skip
    for name in names:
        columns = rows(full / f'{name}.tsv')[0]
        known = json.loads((full / f'{name}.json').read_text())
        assert list(known) == list(columns)
        assert all(len(entry['Description']) > 3 for entry in known.values())


def test_lesions_say_their_fate(full: Path) -> None:
    fates = [
        (row['side'], row['index'], row['shiva'], row['optimal'])
        for row in rows(full / 'lesions.tsv')
        if row['scan'] == 'sub-01'
    ]
    assert fates == [
        ('truth', '1', 'hit', 'hit'),
        ('truth', '2', 'miss', 'miss'),
        ('truth', '3', 'miss', 'miss'),
        ('prediction', '1', 'hit', 'hit'),
        ('prediction', '2', 'miss', 'miss'),
    ]


def test_strata_come_from_the_raw_data(full: Path) -> None:
    found = {(row['stratum'], row['kind']): row['scans'] for row in rows(full / 'strata.tsv')}
    assert found[('contrast', 'swi')] == '1'
    assert found[('field_strength', '1.5 T')] == '2'
    assert found[('sex', 'M')] == '2'
    assert found[('slice_thickness', '1.5-3 mm')] == '4'
    assert {row['rule'] for row in rows(full / 'strata.tsv')} == {'shiva-mm3'}


def test_sweep_chooses_on_some_and_reports_on_others(full: Path) -> None:
    best = json.loads((full / 'evaluation.json').read_text())['best']['CMB']
    # at 0.3 every scan has one more false positive of 18 voxels
    assert (best['threshold'], best['reported_on']) == (0.7, 'report')
    assert best['f1'] == pytest.approx(2 / 3)  # sub-03 and sub-04: one found, one missed
    assert {row['part'] for row in rows(full / 'sweep.tsv')} == {'choose', 'report'}
    at = next(
        row
        for row in rows(full / 'sweep.tsv')
        if (row['part'], row['threshold'], row['min_voxels']) == ('choose', '0.3', '3')
    )
    assert (at['n_pred'], at['tp_pred']) == ('4', '1')


def test_comparison_with_the_truth_itself(full: Path) -> None:
    found = {
        (row['rule'], row['measure']): row
        for row in rows(full / 'comparison.tsv')
        if row['zero_rule'] in ('shiva', 'n/a')
    }
    row = found[('shiva', 'f1_count')]
    assert (row['first'], row['second'], row['difference']) == ('0.6', '1', '0.4')
    assert found[('shiva', 'f1_pooled')]['difference'] == '0.5'


def test_paper_tables(full: Path) -> None:
    lines = (full / 'table3.md').read_text().splitlines()
    assert lines[2].startswith('| All | 4 | 5 | 0.58 (0.50) | 0.62 (0.48) | 0.60 (0.49) | 0.40 |')
    assert [line.split(' | ')[0] for line in lines[3:5]] == ['| T2starw', '| swi']
    text = (full / 'table3.tex').read_text()
    assert text.count(r'\\') == 5
    assert 'T2starw & 3 & 4 &' in text


def test_page_and_pdf(full: Path) -> None:
    html = (full / 'report.html').read_text()
    assert 'Test &lt;of&gt; all' in html
    for picture in ('counts', 'bland-altman', 'classes', 'sizes', 'froc', 'precision-recall',
                    'misses', 'false-positives'):  # fmt: skip
        assert f'src="figures/{picture}.png"' in html
        assert (full / 'figures' / f'{picture}.png').read_bytes().startswith(b'\x89PNG')
    assert (full / 'report.pdf').read_bytes().startswith(b'%PDF')
    assert 'src="http' not in html
    assert 'href="http' not in html


def test_same_input_gives_the_same_bytes(data: Path, full: Path, tmp_path: Path) -> None:
    again = tmp_path / 'again'
    done = installed(
        *sides(data), '-o', again, '--sweep', '--choose-on', '01', 'sub-02', '--strata', 'sex',
        '--compare', sides(data)[1], '--names', 'model', 'perfect', '--bootstrap', '100',
        '--pdf', 'plain', '--title', 'Test <of> all', '--nprocs', '1',
    )  # fmt: skip
    assert done.returncode == 0
    for path in sorted(full.rglob('*')):
        if path.is_file() and path.name not in ('report.html', 'evaluation.json'):
            assert path.read_bytes() == (again / path.relative_to(full)).read_bytes(), path


def test_missing_partners_are_listed_and_counted(copy: Path, command: Command) -> None:
    pred, truth = sides(copy)
    (pred / 'sub-03/anat/sub-03_desc-CMB_dseg.nii.gz').unlink()
    shutil.rmtree(truth / 'sub-02')
    done = command(pred, truth, '-o', copy / 'scores', *QUICK)
    assert done.returncode == 0
    assert '1 scan(s) have no prediction: sub-03' in done.stderr
    assert '1 scan(s) have no truth: sub-02' in done.stderr
    status = {row['scan']: row['status'] for row in rows(copy / 'scores/pairs.tsv')}
    assert status == {
        'sub-01': 'scored', 'sub-02': 'no_truth', 'sub-03': 'no_prediction', 'sub-04': 'scored',
    }  # fmt: skip
    assert 'Scans without a partner' in (copy / 'scores/report.html').read_text()

    strict = command(pred, truth, '-o', copy / 'strict', *QUICK, '--strict')
    assert strict.returncode == 65
    assert 'sub-03' in strict.stderr

    empty = command(pred, truth, '-o', copy / 'empty', *QUICK, '--missing-as-empty')
    assert empty.returncode == 0
    assert value(copy / 'empty', 'shiva', 'sensitivity', 'pooled') == 0.2  # 1 of 5
    said = '1 scan(s) without a prediction count as if nothing had been found: sub-03'
    assert said in empty.stderr


def test_two_files_without_a_dataset(data: Path, tmp_path: Path, command: Command) -> None:
    pred, truth = sides(data)
    name = 'sub-01/anat/sub-01_desc-CMB_dseg.nii.gz'
    done = command(pred / name, truth / name, '-o', tmp_path, *QUICK, '--rules', 'shiva', 'ko')
    assert done.returncode == 0
    # a name stands for its variants, as deepmir and valdo do for theirs
    found = {row['rule'] for row in rows(tmp_path / 'summary.tsv')}
    assert found == {'shiva', 'shiva-mm3', 'ko'}


def test_threshold_makes_predictions_from_probabilities(
    data: Path, tmp_path: Path, command: Command
) -> None:
    done = command(*sides(data), '-o', tmp_path, *QUICK, '--threshold', '0.3')
    assert done.returncode == 0
    assert value(tmp_path, 'shiva', 'fp_avg', 'pooled') == 1.25


def test_threshold_that_took_effect_is_said(data: Path, tmp_path: Path, command: Command) -> None:
    done = command(*sides(data), '-o', tmp_path, *QUICK, '--pred-kind', 'probability')
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / 'evaluation.json').read_text())['settings']
    assert (settings['threshold'], settings['min_size']) == (0.4, 1)
    said = 'clusters of at least 1 voxel with a probability of at least 0.4'
    assert said in (tmp_path / 'report.html').read_text()


def test_truth_as_points_and_as_counts(data: Path, tmp_path: Path, command: Command) -> None:
    points = ['participant_id\tx\ty\tz']
    counts = ['participant_id\tcount']
    for name, (truth, _) in SCANS.items():
        counts.append(f'{name}\t{len(truth)}')
        points += [f'{name}\t{i + 1}\t{j + 1}\t{1.5 * k + 0.75}' for i, j, k in truth]
    (tmp_path / 'points.tsv').write_text('\n'.join(points) + '\n')
    (tmp_path / 'counts.tsv').write_text('\n'.join(counts) + '\n')
    done = command(sides(data)[0], tmp_path / 'points.tsv', '-o', tmp_path / 'p', *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'no truth: sub-02' in done.stderr  # a list of points cannot say "none"
    assert value(tmp_path / 'p', 'optimal', 'sensitivity', 'pooled') == 0.4
    assert value(tmp_path / 'p', 'shiva', 'sensitivity', 'pooled') == 0.4
    done = command(sides(data)[0], tmp_path / 'counts.tsv', '-o', tmp_path / 'c', *QUICK)
    assert done.returncode == 0, done.stderr
    assert 'rules that match lesions do not apply' in done.stderr
    assert value(tmp_path / 'c', 'ko', 'ko_accuracy', 'pooled') == 0.5
    assert not (tmp_path / 'c' / 'scores.tsv').exists()


def test_two_classes_in_one_map(data: Path, tmp_path: Path, command: Command) -> None:
    for side in ('p', 't'):
        values = labels([(4, 4, 4)])
        values[20:24, 20:24, 10:12] = 2
        save(tmp_path / side / 'sub-1_dseg.nii.gz', values)
    done = command(tmp_path / 'p', tmp_path / 't', '-o', tmp_path / 'o', *QUICK,
                   '--classes', 'CMB=1', 'iron=2')  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / 'o' / 'counts.tsv')
    assert [(row['class'], row['n_truth']) for row in found] == [('CMB', '1'), ('iron', '1')]
    text = (tmp_path / 'o' / 'report.html').read_text()
    assert 'figures/iron/counts.png' in text
    assert 'Tolerance CMB 3 mm, iron 5 mm.' in text
    told = json.loads((tmp_path / 'o' / 'evaluation.json').read_text())['definitions']['rules']
    assert told['deepmir-mm']['tolerance'] == {'CMB': 3, 'iron': 5}
    assert (told['optimal']['tolerance'], told['shiva']['tolerance']) == (5, None)
    assert (tmp_path / 'o' / 'table3_iron.md').is_file()


@pytest.mark.parametrize(
    ('args', 'code', 'message'),
    [
        (['{pred}', '{root}/no', '-o', '{out}'], 66, 'There is no <'),
        (['{pred}', '{root}/bids', '-o', '{out}', '--truth-pattern', '*.mgz'], 66, 'No truth in'),
        (['{pred}', '{truth}'], 64, 'required: -o'),
        (['{pred}', '{truth}', '-o', '{out}', '--rules', 'best'], 64, 'invalid choice'),
        (['{pred}', '{truth}', '-o', '{out}', '--classes', 'a=b'], 64, 'NAME=VALUE'),
        (['{pred}', '{truth}', '-o', '{out}', '--classes', 'a=00'], 64, '0 is the background'),
        (['{pred}', '{truth}', '-o', '{out}', '--point-radius', '51'], 64, 'is at most 50 mm'),
        (['{pred}', '{truth}', '-o', '{truth}'], 64, 'one of the inputs'),
        (['{pred}', '{truth}', '-o', '{out}', '--choose-on', '01'], 64, 'goes with --sweep'),
        (['{pred}', '{truth}', '-o', '{out}', '--min-size', '2'], 64, 'goes with --threshold'),
        (['{truth}', '{truth}', '-o', '{out}', '--threshold', '.5'], 64, 'needs probability maps'),
        (
            ['{pred}', '{truth}', '-o', '{out}', '--participant-label', '01', '99'],
            64,
            '--participant-label names participants that neither',
        ),
        (
            ['{pred}', '{truth}', '-o', '{out}', '--strata', 'sex', 'hand'],
            64,
            'sidecar has: hand.',
        ),
        (['{pred}', '{truth}', '-o', '{out}', '--table-by', 'sex'], 64, '--table-by sex is no'),
        (['{pred}', '{truth}', '-o', '/proc/none'], 73, 'cannot write'),
        (['{pred}', '{truth}', '-o', '{out}', '--sweep', '--choose-on', '99'], 64, 'has: 99'),
        (
            ['{pred}', '{truth}', '-o', '{out}', '--sweep', '--choose-on', '01', '02', '03', '04'],
            66,
            'no scan to',
        ),
    ],
)
def test_refusals(
    data: Path, tmp_path: Path, args: list[str], code: int, message: str, command: Command
) -> None:
    pred, truth = sides(data)
    places = {'pred': pred, 'truth': truth, 'root': data, 'out': tmp_path / 'out'}
    done = command(*(arg.format(**places) for arg in args), *QUICK)
    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr
    assert 'Traceback' not in done.stderr


def test_bad_files_stop_with_both_names(copy: Path, command: Command) -> None:
    pred, truth = sides(copy)
    target = pred / 'sub-03/anat/sub-03_desc-CMB_dseg.nii.gz'
    save(target, np.zeros((32, 32, 21), np.int16))
    done = command(pred, truth, '-o', copy / 'o', *QUICK)
    assert done.returncode == 65
    assert 'The grids differ' in done.stderr
    assert str(target) in done.stderr
    assert str(truth / 'sub-03/anat/sub-03_desc-CMB_dseg.nii.gz') in done.stderr
    done = command(pred, truth, '-o', copy / 'o', *QUICK, '--resample', 'predictions')
    assert done.returncode == 0
    assert 'sub-03: the predictions were resampled' in done.stderr
    save(target, labels([]) + np.float32(0.5))
    done = command(pred, truth, '-o', copy / 'o', *QUICK)
    assert (done.returncode, 'not whole' in done.stderr) == (65, True)
    save(target, np.zeros((*SHAPE, 2), np.int16))
    done = command(pred, truth, '-o', copy / 'o', *QUICK)
    assert (done.returncode, 'one 3-D volume' in done.stderr) == (65, True)
    twin = pred / 'again/sub-03_desc-CMB_dseg.nii.gz'
    save(twin, labels([]))
    done = command(pred, truth, '-o', copy / 'o', *QUICK)
    assert (done.returncode, 'sub-03 is there twice' in done.stderr) == (65, True)


def test_sweep_says_which_scans_have_no_map_and_counts_empty_ones(
    copy: Path, command: Command
) -> None:
    pred, truth = sides(copy)
    (pred / 'sub-03/anat/sub-03_label-CMB_probseg.nii.gz').unlink()
    shutil.rmtree(pred / 'sub-01')
    done = command(pred, truth, '-o', copy / 'o', *QUICK, '--sweep', '--missing-as-empty')
    assert done.returncode == 0, done.stderr
    assert '1 of 4 scans have no probability map: sub-03' in done.stderr
    at = next(row for row in rows(copy / 'o/sweep.tsv') if row['threshold'] == '0.7')
    assert (at['scans'], at['n_truth'], at['n_pred']) == ('3', '4', '0')  # sub-01, 02 and 04
    counts = {row['scan']: row['voxel_dice'] for row in rows(copy / 'o/counts.tsv')}
    assert (counts['sub-01'], counts['sub-02']) == ('0', 'n/a')


def test_second_set_is_paired_by_the_truth_and_its_gaps_are_said(
    copy: Path, command: Command
) -> None:
    pred, truth = sides(copy)
    second = copy / 'second'
    for name in ('sub-01', 'sub-03', 'sub-04'):  # other names than those of the first set
        save(second / f'{name}_acq-x_desc-CMB_dseg.nii.gz', labels(SCANS[name][0]))
    done = command(pred, truth, '-o', copy / 'o', *QUICK, '--compare', second)
    assert done.returncode == 0, done.stderr
    assert {row['n'] for row in rows(copy / 'o/comparison.tsv') if row['measure'] == 'fp'} == {'3'}
    assert 'CMB, second set: 1 scan(s) have no prediction: sub-02' in done.stderr
    assert (
        '1 of 4 scans are in one prediction set only and are not compared: sub-02' in done.stderr
    )
    strict = command(pred, truth, '-o', copy / 's', *QUICK, '--compare', second, '--strict')
    assert (strict.returncode, 'second set' in strict.stderr) == (65, True)
    (copy / 'n.tsv').write_text('participant_id\tcount\nsub-01\t3\n')
    counts = command(pred, copy / 'n.tsv', '-o', copy / 'c', *QUICK, '--compare', second)
    assert (counts.returncode, 'only numbers of lesions are known' in counts.stderr) == (66, True)


def test_images_that_cannot_be_shown_cost_pictures_and_nothing_else(
    copy: Path, command: Command
) -> None:
    pred, truth = sides(copy)
    raw = copy / 'bids'
    save(raw / 'sub-01/anat/sub-01_T2starw.nii.gz', np.zeros((*SHAPE, 2), np.int16))
    (raw / 'sub-04/anat/sub-04_T2starw.nii.gz').write_bytes(b'no image')
    done = command(pred, truth, '-o', copy / 'o', '--pdf', 'none', '--bootstrap', '0',
                   '--nprocs', '1')  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'sub-01: no pictures' in done.stderr
    assert 'shape 32x32x20x2' in done.stderr
    assert 'sub-01: no pictures' in (copy / 'o/report.html').read_text()
    assert 'sub-01: no pictures' in (copy / 'o/evaluation.json').read_text()
    assert not (copy / 'o/figures/misses.png').exists()


def test_page_of_two_plain_files_without_draws(
    data: Path, tmp_path: Path, command: Command
) -> None:
    pred, truth = sides(data)
    for side, name in ((pred, 'mine'), (truth, 'ref')):
        target = tmp_path / f'{name}.nii.gz'
        shutil.copy(side / 'sub-01/anat/sub-01_desc-CMB_dseg.nii.gz', target)
    done = command(tmp_path / 'mine.nii.gz', tmp_path / 'ref.nii.gz', '-o', tmp_path / 'o', *QUICK,
                   '--bootstrap', '0')  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row['scan'] for row in rows(tmp_path / 'o/pairs.tsv')] == ['sub-mine']
    page = (tmp_path / 'o/report.html').read_text()
    assert 'from 0 draws' not in page
    assert 'Without intervals' in page
    assert 'are all counted here' in page


def test_page_shows_the_magnitude_accuracy(full: Path) -> None:
    text = (full / 'report.html').read_text()
    assert 'magnitude<br>of means' in text
    assert f'<td>{value(full, "deepmir-mm", "magnitude", "of-means", "drop"):.2f}<small>' in text


def test_every_measure_of_the_tables_is_defined(full: Path) -> None:
    told = json.loads((full / 'evaluation.json').read_text())['definitions']['measures']
    for table in ('summary', 'agreement', 'comparison'):
        assert {row['measure'] for row in rows(full / f'{table}.tsv')} <= set(told)
