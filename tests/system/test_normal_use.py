"""A dataset as people have them, from the first run to the group tables."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.system

#: Scans -> (how many spots are drawn, suffix of derived images).
SCANS = {
    'sub-01_ses-1': (3, 'T2starw'),
    'sub-01_ses-2': (1, 'T2starw'),
    'sub-02_acq-highres_run-1': (3, 'swi'),
    'sub-02_acq-highres_run-2': (0, 'swi'),
    'sub-03': (2, 'T2starw'),
}
IMAGES = (
    'desc-preproc_{suffix}',
    'res-net_desc-preproc_{suffix}',
    'desc-brain_mask',
    'label-CMB_probseg',
    'label-CMB_desc-ensSD_probseg',
    'label-CMB_mask',
    'desc-zones_dseg',
    'desc-CMB_dseg',
)
OF_DATASET = {
    '.bidsignore',
    'README.md',
    'dataset_description.json',
    'desc-zones_dseg.tsv',
    'descriptions.json',
    'descriptions.tsv',
}


def session_of(stem: str) -> str:
    words = stem.split('_')
    return '_'.join(word for word in words if word.startswith(('sub-', 'ses-')))


def folder_of(stem: str) -> str:
    return session_of(stem).replace('_', '/')


def expected(stems: Any) -> set[str]:
    """The list of DESIGN.md, section 5."""
    files = set(OF_DATASET)
    for stem in stems:
        count, suffix = SCANS[stem]
        anat = f'{folder_of(stem)}/anat/{stem}'
        for image in IMAGES:
            name = f'{anat}_{image.format(suffix=suffix)}'
            files |= {f'{name}.nii.gz', f'{name}.json'}
        files.add(f'{anat}_desc-CMB_dseg.tsv')
        table = f'{folder_of(stem)}/{session_of(stem)}_scans'
        files |= {f'{table}.tsv', f'{table}.json', f'docs/{session_of(stem)}.html'}
        participant = stem.split('_')[0]
        files.add(f'logs/{participant}/{stem}.json')
        pictures = ('overview', 'lesions') if count else ('overview',)
        files |= {f'docs/figures/{participant}/{stem}_{name}.png' for name in pictures}
    return files


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('normal') / 'bids')
    head, spots = tools.head, ((20.0, 5.0, 10.0), (-18.0, 12.0, -14.0))
    tools.place(root, 'sub-01_ses-1_T2starw')
    tools.place(root, 'sub-01_ses-2_T2starw', head(spots[:1], seed=2))
    tools.place(root, 'sub-02_acq-highres_run-1_swi', head(seed=3), EchoTime=0.02)
    tools.place(root, 'sub-02_acq-highres_run-2_swi', head((), seed=4))
    tools.place(root, 'sub-03_T2starw.nii', head(spots, seed=5))
    # applies to every T2starw by inheritance, and is read as a sidecar of each
    (root / 'T2starw.json').write_text(json.dumps({'EchoTime': 25, 'MagneticFieldStrength': 3}))
    return root


@pytest.fixture(scope='module')
def out(app: Any, bids: Path) -> Path:
    """Run for the first time, with the default number of processes."""
    done = app.default(bids, app.root / 'out', '--write-graph')
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert 'Reports: ' in done.stdout
    assert 'For research use only.' in done.stdout
    return app.root / 'out'


@pytest.fixture(scope='module')
def first(out: Path, tools: Any) -> dict[str, str]:
    """Checksums after the first run."""
    return tools.results(out)


def test_outputs_are_those_promised(first: dict[str, str]) -> None:
    assert set(first) == expected(SCANS)


def test_counts_are_those_drawn(out: Path, first: Any, tools: Any) -> None:
    rows = tools.scan_rows(out)
    assert {stem: int(row['cmb_count']) for stem, row in rows.items()} == {
        stem: count for stem, (count, _) in SCANS.items()
    }
    assert all(row['status'] == 'ok' for row in rows.values())
    assert {row['burden_class'] for row in rows.values()} == {'0', '1-3'}


def test_lesion_table_and_label_map_agree(out: Path, first: Any, tools: Any, bids: Path) -> None:
    anat = out / 'sub-01' / 'ses-1' / 'anat'
    table = tools.rows(anat / 'sub-01_ses-1_desc-CMB_dseg.tsv')
    scan = nib.load(bids / 'sub-01' / 'ses-1' / 'anat' / 'sub-01_ses-1_T2starw.nii.gz')
    image = nib.load(anat / 'sub-01_ses-1_desc-CMB_dseg.nii.gz')
    labels = np.asarray(image.dataobj)
    assert image.shape == scan.shape
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
    assert [row['index'] for row in table] == ['1', '2', '3']
    found = []
    for row in table:
        voxels = np.argwhere(labels == int(row['index']))
        centre = nib.affines.apply_affine(image.affine, voxels.mean(axis=0))
        told = [float(row[axis]) for axis in 'xyz']
        np.testing.assert_allclose(centre, told, atol=1.0)
        found.append(told)
    middle = nib.affines.apply_affine(scan.affine, (np.array(scan.shape) - 1) / 2)
    drawn = middle + np.array(((20.0, 5.0, 10.0), (-18.0, 12.0, -14.0), (2.0, -22.0, 6.0)))
    distances = np.linalg.norm(drawn[:, None] - np.array(found)[None], axis=-1)
    assert distances.min(axis=1).max() < 1.0


def test_probability_is_the_mean_of_the_folds(out: Path, first: Any) -> None:
    anat = out / 'sub-03' / 'anat'
    mean = nib.load(anat / 'sub-03_label-CMB_probseg.nii.gz').get_fdata()
    spread = nib.load(anat / 'sub-03_label-CMB_desc-ensSD_probseg.nii.gz').get_fdata()
    mask = np.asarray(nib.load(anat / 'sub-03_label-CMB_mask.nii.gz').dataobj)
    labels = np.asarray(nib.load(anat / 'sub-03_desc-CMB_dseg.nii.gz').dataobj)
    assert 0.9 < mean.max() <= 1
    assert 0 < spread.max() <= 0.5
    np.testing.assert_array_equal(mask, labels > 0)


def test_sidecars_say_where_and_how(out: Path, first: Any) -> None:
    path = out / 'sub-03' / 'anat' / 'sub-03_desc-CMB_dseg.json'
    sidecar = json.loads(path.read_text())
    assert sidecar['Sources'] == ['bids:raw:sub-03/anat/sub-03_T2starw.nii']
    assert sidecar['Parameters']['threshold'] == 0.4
    assert len(sidecar['InputSHA256']) == 64
    assert [fold['file'] for fold in sidecar['Model']['Folds']] == ['fold-0.keras', 'fold-1.keras']
    brain = sidecar['BrainModel']
    assert (brain['Name'], brain['UsedFor']) == ('brain-zones', ['zones'])
    for words in ('spots 1.0', 'Tests of the software only.', brain['IntendedUse'], 'of zones'):
        assert words in (out / 'docs' / 'sub-03.html').read_text(encoding='utf-8')
    for software in ('shivacmb', 'nipype', 'openvino'):
        assert software in json.dumps(sidecar['Software'])


def test_inherited_sidecar_is_read(out: Path, first: Any, tools: Any) -> None:
    """EchoTime 25 stands at the root only; it is taken for milliseconds, with a warning."""
    rows = tools.scan_rows(out)
    assert 'EchoTime 25 was read as milliseconds' in rows['sub-01_ses-1']['warnings']
    assert rows['sub-02_acq-highres_run-1']['warnings'] == 'n/a'


def test_log_folder_of_the_run(out: Path, first: Any, app: Any) -> None:
    (run,) = (out / 'logs').glob('run-*')
    names = {path.name for path in run.iterdir()}
    assert {'settings.toml', 'run.log', 'graph.dot'} <= names
    assert ('graph.svg' in names) == (shutil.which('dot') is not None)
    assert not any(name.startswith('crash') for name in names)
    settings = tomllib.loads((run / 'settings.toml').read_text())['settings']
    assert settings['model'] == str(app.bundle)
    environment = tomllib.loads((run / 'settings.toml').read_text())['environment']
    assert 'microbleed' in (out / 'logs' / environment['citation']).read_text()
    assert app.temporary == []


def test_logs_are_those_that_the_documentation_lists(out: Path, first: Any) -> None:
    text = (Path(__file__).parents[2] / 'docs' / 'outputs.md').read_text(encoding='utf-8')
    table = text.split('## Logs')[1].split('\n## ')[0]
    patterns = [
        name.replace('X/<scan>', '*/*') for name in re.findall(r'^\| `(.+?)`', table, re.M)
    ]
    assert len(patterns) > 4
    logs = out / 'logs'
    # the folder of a run over one participant lies in that of the participant
    files = {
        re.sub(r'^sub-\w+/run-', 'run-', path.relative_to(logs).as_posix())
        for path in logs.rglob('*')
        if path.is_file()
    }
    assert {name for name in files if not any(fnmatch(name, p) for p in patterns)} == set()
    unused = [p for p in patterns if not any(fnmatch(name, p) for name in files)]
    assert unused == ['run-*/crash-*']


def test_validator_finds_no_error(out: Path, first: Any, bids: Path, app: Any) -> None:
    gathered = app.run(bids, out, 'group')
    assert gathered.returncode == 0, gathered.stderr
    index = (out / 'docs' / 'index.html').read_text(encoding='utf-8')
    for words in ('About the model spots 1.0.', 'About mask and zones by brain-zones'):
        assert index.count(words) == 1
    program = Path(sys.executable).with_name('bids-validator-deno')
    done = subprocess.run(
        [program, out, '--format', 'json'], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)['issues']['issues']
    assert [item for item in issues if item['severity'] == 'error'] == []
    assert done.returncode == 0


def test_pybids_reads_it_back(out: Path, first: Any) -> None:
    from bids import BIDSLayout

    layout = BIDSLayout(out, validate=False, config=['bids', 'derivatives'])
    labels = layout.get(desc='CMB', suffix='dseg', extension='.nii.gz')
    assert {item.filename.split('_desc-')[0] for item in labels} == set(SCANS)
    (scan,) = layout.get(
        subject='01', session='2', label='CMB', suffix='probseg', desc=None, extension='.nii.gz'
    )
    assert scan.get_metadata()['Sources'] == [
        'bids:raw:sub-01/ses-2/anat/sub-01_ses-2_T2starw.nii.gz'
    ]


def test_second_run_skips_what_is_finished(
    app: Any, bids: Path, out: Path, first: dict[str, str], tools: Any
) -> None:
    logs = sorted((out / 'logs').glob('run-*'))
    images = {path: path.stat().st_mtime_ns for path in out.rglob('*.nii.gz')}
    done = app.default(bids, out, '--write-graph')
    assert done.returncode == 0, done.stderr
    assert 'shivacmb: no scan is left to process, so no graph was written' in done.stderr
    assert '5 already finished with the same settings (--overwrite redoes)' in done.stdout
    after = tools.results(out)
    assert {name: after[name] for name in first} == first
    assert sorted((out / 'logs').glob('run-*')) == logs
    # a scan that is redone has new files, even of the same bytes
    assert images
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*.nii.gz')} == images


def test_overwrite_gives_the_same_bytes(
    app: Any, bids: Path, out: Path, first: dict[str, str], tools: Any
) -> None:
    done = app.default(bids, out, '--overwrite', '--nprocs', '1')
    assert done.returncode == 0, done.stderr
    after = tools.results(out)
    assert {name: after[name] for name in first} == first


def test_other_settings_redo(app: Any, bids: Path, out: Path, tools: Any, first: Any) -> None:
    alone = ('--participant-label', '03')
    done = app.default(bids, out, *alone, '--threshold', '0.9', '--min-size', '5')
    assert done.returncode == 0, done.stderr
    assert 'already finished' not in done.stdout
    assert '1 scan(s) were finished with another model, version or settings' in done.stderr
    # the group level may have run by now, or not
    gathered = (out / 'group_desc-CMB_counts.tsv').exists()
    assert ('run the level "group" again' in done.stderr) is gathered
    row = tools.scan_rows(out)['sub-03']
    assert (row['threshold'], row['min_voxels']) == ('0.9', '5')
    assert float(row['cmb_volume_mm3']) > 0
    back = app.default(bids, out, *alone)
    assert back.returncode == 0, back.stderr
    after = tools.results(out)
    assert {name: after[name] for name in first} == first


def test_settings_of_a_run_are_accepted_back(
    app: Any, bids: Path, out: Path, tools: Any, tmp_path: Path
) -> None:
    alone = ('--participant-label', 'sub-03')
    done = app.participant(bids, tmp_path / 'one', *alone, '--threshold', '0.7')
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / 'one' / 'logs' / 'sub-03').glob('run-*')
    saved = run / 'settings.toml'
    again = app.run(bids, tmp_path / 'one', 'participant', '--config-file', saved)
    assert again.returncode == 0, again.stderr
    assert '1 already finished' in again.stdout
    assert set(tools.scan_rows(tmp_path / 'one')) == {'sub-03'}


def test_dry_run_writes_nothing(app: Any, bids: Path, tmp_path: Path) -> None:
    done = app.participant(bids, tmp_path / 'out', '--dry-run')
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / 'out').exists()
    for words in ('5 scan(s) in', 'sub-03/anat/sub-03_T2starw.nii', 'would be processed'):
        assert words in done.stdout


def test_participants_from_a_file(app: Any, bids: Path, tmp_path: Path) -> None:
    (tmp_path / 'labels.txt').write_text('# first batch\nsub-03\n02\n')
    done = app.participant(
        bids, tmp_path / 'out', '--dry-run', '--participant-label', tmp_path / 'labels.txt'
    )
    assert done.returncode == 0, done.stderr
    assert '3 scan(s) in' in done.stdout
    assert 'sub-01' not in done.stdout


def test_sessions_and_filters(app: Any, bids: Path, tmp_path: Path) -> None:
    (tmp_path / 'filter.json').write_text('{"scan": {"run": 2}}')
    for arguments, stem in (
        (('--session-label', 'ses-2'), 'sub-01_ses-2'),
        (('--bids-filter-file', tmp_path / 'filter.json'), 'sub-02_acq-highres_run-2'),
        (('--modality', 'swi', '--exclude-participant-label', '01'), 'sub-02_acq-highres_run-1'),
    ):
        done = app.participant(bids, tmp_path / 'out', '--dry-run', *arguments)
        assert done.returncode == 0, done.stderr
        assert stem in done.stdout
        assert 'sub-03/' not in done.stdout.split('passed over')[0]


def test_work_folder_is_kept_on_demand(app: Any, bids: Path, tmp_path: Path) -> None:
    common = ('--participant-label', '03', '-w', tmp_path / 'work')
    done = app.participant(bids, tmp_path / 'out', *common)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / 'work').rglob('*'))
    kept = app.participant(bids, tmp_path / 'out', *common, '--keep-work', '--overwrite')
    assert kept.returncode == 0, kept.stderr
    assert list((tmp_path / 'work').rglob('network_input.npy'))


def test_plugin_file(
    app: Any, bids: Path, tmp_path: Path, first: dict[str, str], tools: Any
) -> None:
    """One run; the kinds of files are read in tests/cli, the serial plugin runs elsewhere."""
    file = tmp_path / 'plugin.yml'
    file.write_text('plugin: MultiProc\nplugin_args: {n_procs: 2, raise_insufficient: false}\n')
    done = app.default(bids, tmp_path / 'out', '--use-plugin', file, '--participant-label', '02')
    assert done.returncode == 0, done.stderr
    after = tools.results(tmp_path / 'out')
    assert {name for name in after if 'sub-02' in name} == {
        name for name in first if 'sub-02' in name
    }
    assert all(after[name] == first[name] for name in after if name in first)


@pytest.mark.parametrize('content', ['{"plugin_args": {}}', '[1, 2]', '{"plugin": '])
def test_plugin_file_that_is_none(
    app: Any, bids: Path, tmp_path: Path, tools: Any, content: str
) -> None:
    (tmp_path / 'plugin.json').write_text(content)
    done = app.participant(bids, tmp_path / 'out', '--use-plugin', tmp_path / 'plugin.json')
    assert done.returncode == 64, done.stderr
    assert '--use-plugin <' in tools.sentence(done.stderr)
    assert not list(tmp_path.glob('out/logs/**/run-*'))


def test_precomputed_masks(app: Any, bids: Path, tmp_path: Path, tools: Any) -> None:
    """A mask in derivatives and one by pattern give the same result, and are named."""
    scan = nib.load(bids / 'sub-03' / 'anat' / 'sub-03_T2starw.nii')
    mask = nib.Nifti1Image((np.asarray(scan.dataobj) > 0).astype(np.uint8), scan.affine)
    anat = tmp_path / 'masks' / 'sub-03' / 'anat'
    anat.mkdir(parents=True)
    path = anat / 'sub-03_desc-brain_mask.nii.gz'
    mask.to_filename(path)
    results = []
    for name, arguments in (
        ('a', ('-d', f'masks={tmp_path / "masks"}')),
        ('b', ('--brain-mask', str(path).replace('sub-03_', 'sub-{participant}_'))),
    ):
        out = tmp_path / name
        done = app.participant(bids, out, '--participant-label', '03', *arguments)
        assert done.returncode == 0, done.stderr
        row = tools.scan_rows(out)['sub-03']
        assert (row['brain_mask'], row['cmb_count']) == ('given', '2')
        sidecar = json.loads((out / 'sub-03/anat/sub-03_desc-CMB_dseg.json').read_text())
        assert sidecar['Sources'][1:] == [path.as_uri()]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert sidecar['FurtherSourcesSHA256'] == {path.as_uri(): digest}
        results.append(tools.results(out))
    assert results[0] == results[1]


def test_group_while_half_is_there_and_reports_only(
    app: Any, bids: Path, out: Path, first: Any, tmp_path: Path, tools: Any
) -> None:
    half = tmp_path / 'half'
    shutil.copytree(out, half)
    for name in ('sub-02', 'logs/sub-02', 'sub-03/anat'):
        shutil.rmtree(half / name)
    # the raw data are not needed
    done = app.run(tmp_path / 'gone', half, 'group')
    assert done.returncode == 0, done.stderr
    counts = tools.rows(half / 'group_desc-CMB_counts.tsv')
    assert {'sub-01', 'sub-03'} >= {row['participant_id'] for row in counts}
    pages = {path: path.read_bytes() for path in (half / 'docs').glob('sub-01*.html')}
    tables = {path: path.read_bytes() for path in (half / 'sub-01').rglob('*_scans.tsv')}
    assert len(pages) == len(tables) == 2
    for path in (*pages, *tables):
        path.unlink()
    shutil.rmtree(half / 'sub-03')
    shutil.rmtree(half / 'logs' / 'sub-03')
    again = app.run(tmp_path / 'gone', half, 'group', '--reports-only')
    assert again.returncode == 0, again.stderr
    for path, content in {**pages, **tables}.items():
        assert path.read_bytes() == content


def test_group_tables(app: Any, bids: Path, out: Path, first: Any, tools: Any) -> None:
    done = app.run(bids, out, 'group')
    assert done.returncode == 0, done.stderr
    assert '5 scan(s): 5 ok, 0 failed' in done.stdout
    counts = tools.rows(out / 'group_desc-CMB_counts.tsv')
    assert sorted(int(row['cmb_count']) for row in counts) == [0, 1, 2, 3, 3]
    participants = tools.rows(out / 'participants.tsv')
    assert [row['participant_id'] for row in participants] == ['sub-01', 'sub-02', 'sub-03']
    assert (out / 'docs' / 'index.html').is_file()
    again = app.run(bids, out, 'group', '-q')
    assert (again.returncode, again.stdout) == (0, '')


def test_group_without_results(app: Any, bids: Path, tmp_path: Path, tools: Any) -> None:
    done = app.run(bids, tmp_path / 'absent', 'group')
    assert done.returncode == 66
    assert 'run the participant level first' in tools.sentence(done.stderr)
    assert not (tmp_path / 'absent').exists()


def test_a_renamed_scan_counts_once(app: Any, tmp_path: Path, tools: Any) -> None:
    raw, out = tools.dataset(tmp_path / 'bids'), tmp_path / 'out'
    image = tools.place(raw, 'sub-03_T2starw.nii', tools.head(((20.0, 5.0, 10.0),), seed=5))
    assert app.participant(raw, out).returncode == 0
    image.rename(image.with_name('sub-03_run-1_T2starw.nii'))
    again = app.participant(raw, out)
    assert again.returncode == 0
    assert 'sub-03 is sub-03_run-1 now; its earlier results were removed' in again.stderr
    left = [path.name for path in out.rglob('sub-03*') if path.is_file()]
    assert [name for name in left if name.startswith(('sub-03_desc', 'sub-03_label'))] == []
    assert 'sub-03_run-1_desc-CMB_dseg.nii.gz' in left
    assert app.run(raw, out, 'group').returncode == 0
    (row,) = (out / 'participants.tsv').read_text().splitlines()[1:]
    assert row.startswith('sub-03\tok\t1\t1\t0\t1\t1\t')


def test_another_echo_takes_the_place_of_the_first(app: Any, tmp_path: Path, tools: Any) -> None:
    raw, out = tools.dataset(tmp_path / 'bids'), tmp_path / 'out'
    for echo, seed in ((1, 5), (2, 6)):
        image = tools.head(((20.0, 5.0, 10.0),), seed=seed)
        tools.place(raw, f'sub-03_echo-{echo}_T2starw.nii', image)
    assert app.participant(raw, out).returncode == 0
    assert (out / 'logs/sub-03/sub-03_echo-1.json').is_file()
    for echo, time in ((1, 0.01), (2, 0.02)):
        sidecar = raw / f'sub-03/anat/sub-03_echo-{echo}_T2starw.json'
        sidecar.write_text(json.dumps({'EchoTime': time}))
    again = app.participant(raw, out)
    assert again.returncode == 0
    assert 'sub-03_echo-2 is read of its acquisition now, no longer sub-03_echo-1' in again.stderr
    assert app.run(raw, out, 'group').returncode == 0
    (row,) = (out / 'participants.tsv').read_text().splitlines()[1:]
    assert row.startswith('sub-03\tok\t1\t1\t0\t1\t1\t')
    assert not list(out.rglob('*echo-1*'))
