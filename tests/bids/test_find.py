from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shivacmb.bids import find_scans
from shivacmb.exceptions import DataError, DatasetError, FilterError, UsageError

EXAMPLES = sorted((Path(__file__).parents[2] / 'bids_examples').glob('*/expected.tsv'))


def taken(found):
    return [scan.name for scan in found.scans]


def reason_of(found, name):
    return next(item.reason for item in found.passed_over if item.path.name == name)


@pytest.mark.parametrize('expected', EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_give_the_decisions_written_beside_them(expected):
    root = expected.parent
    found = find_scans(root)
    rows = [(scan.relative_path, 'taken', scan.reason) for scan in found.scans]
    rows += [
        (item.path.relative_to(root).as_posix(), 'passed over', item.reason)
        for item in found.passed_over
    ]
    with expected.open(newline='') as file:
        table = csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE)
        wanted = [tuple(row) for row in table][1:]
    assert sorted(rows) == wanted


@pytest.mark.parametrize('expected', EXAMPLES, ids=lambda path: path.parent.name)
def test_the_way_to_take_a_file_that_its_reason_names_works(expected):
    root = expected.parent
    tried = 0
    for item in find_scans(root).passed_over:
        participant = [item.path.relative_to(root).parts[0]]
        if match := re.search(r'one: --modality (\w+)', item.reason):
            found = find_scans(root, participants=participant, modality=match[1])
        elif match := re.search(r'--bids-filter-file with (\{.*\})', item.reason):
            filters = json.loads(match[1])
            found = find_scans(root, participants=participant, filters=filters)
        else:
            continue
        tried += 1
        assert item.path.name in taken(found), item
    assert tried or expected.parent.name == 'sessions-and-runs'


def test_examples_exist():
    assert len(EXAMPLES) >= 3


def test_letter_case_extension_and_folder_are_decided_the_same_way_every_time(dataset):
    root = dataset(
        'sub-01/anat/sub-01_SWI.nii.gz',
        'sub-01/anat/sub-01_swi.nii',
        'sub-01/swi/sub-01_swi.nii.gz',
        'sub-01/anat/sub-01_swi.nii.gz',
    )
    found = find_scans(root)
    assert [scan.relative_path for scan in found.scans] == ['sub-01/anat/sub-01_swi.nii.gz']
    assert 'usual suffix swi' in reason_of(found, 'sub-01_SWI.nii.gz')
    assert '.nii.gz goes before .nii' in reason_of(found, 'sub-01_swi.nii')
    assert len(found.passed_over) == 3


def test_a_name_with_its_session_goes_before_one_without(dataset):
    folder = 'sub-01/ses-1/anat'
    names = ['sub-01_T2starw.nii.gz', 'sub-01_ses-1_T2starw.nii.gz']
    found = find_scans(dataset(*(f'{folder}/{name}' for name in names)))
    assert [scan.name for scan in found.scans] == [names[1]]
    assert 'the same name with its session' in reason_of(found, names[0])


def test_labels_that_differ_in_letter_case_only_cannot_both_have_outputs(dataset):
    root = dataset('sub-01/anat/sub-01_acq-A_swi.nii.gz', 'sub-01/anat/sub-01_acq-a_swi.nii.gz')
    found = find_scans(root)
    assert taken(found) == ['sub-01_acq-A_swi.nii.gz']
    assert 'upper and lower case only' in reason_of(found, 'sub-01_acq-a_swi.nii.gz')


def test_folded_entities_cannot_make_two_scans_share_output_names(dataset):
    root = dataset(
        'sub-01/anat/sub-01_mod-gre_T2starw.nii.gz',
        'sub-01/anat/sub-01_acq-ModGre_T2starw.nii.gz',
    )
    found = find_scans(root)
    assert [scan.stem for scan in found.scans] == ['sub-01_acq-ModGre']
    assert len(found.passed_over) == 1
    assert 'its outputs would have the names' in found.passed_over[0].reason


def test_stem_puts_entities_in_the_order_of_bids_and_keeps_zeros(dataset):
    root = dataset('sub-01/ses-a/anat/sub-01_ses-a_run-01_rec-n_acq-x_T2starw.nii.gz')
    (scan,) = find_scans(root).scans
    assert scan.stem == 'sub-01_ses-a_acq-x_rec-n_run-01'
    assert scan.entities['run'] == '01'
    assert scan.entities['reconstruction'] == 'n'
    assert scan.uri == 'bids:raw:sub-01/ses-a/anat/sub-01_ses-a_run-01_rec-n_acq-x_T2starw.nii.gz'


def test_folders_above_the_dataset_and_of_temporary_files_name_nothing(
    dataset, tmp_path, monkeypatch
):
    temporary = tmp_path / 'run-5_acq-zz' / 'part-phase'
    temporary.mkdir(parents=True)
    monkeypatch.setattr('tempfile.tempdir', str(temporary))
    root = dataset(
        'sub-01/anat/sub-01_run-1_swi.nii.gz',
        'sub-01/anat/sub-01_acq-a_run-2_part-mag_T2starw.nii.gz',
        name='run-7/echo-2/raw',
    )
    found = find_scans(root)
    stems = [scan.stem for scan in found.scans]
    assert stems == ['sub-01_acq-a_run-2_part-mag', 'sub-01_run-1']
    assert found.passed_over == ()


@pytest.mark.parametrize('label', ['01', 'sub-01'])
def test_participants_are_found_with_and_without_prefix_and_the_absent_are_listed(dataset, label):
    root = dataset('sub-01/anat/sub-01_swi.nii.gz', 'sub-02/anat/sub-02_swi.nii.gz')
    found = find_scans(root, participants=[label, 'sub-99'])
    assert taken(found) == ['sub-01_swi.nii.gz']
    assert found.missing == ('99',)


def test_excluded_participants_are_not_searched(dataset):
    root = dataset('sub-01/anat/sub-01_swi.nii.gz', 'sub-02/anat/sub-02_swi.nii.gz')
    assert taken(find_scans(root, exclude=['sub-01'])) == ['sub-02_swi.nii.gz']
    with pytest.raises(FilterError, match=r'no participant of .* is left'):
        find_scans(root, participants=['01'], exclude=['01'])


def test_sessions_restrict(dataset):
    root = dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_swi.nii.gz', 'sub-01/ses-b/anat/sub-01_ses-b_swi.nii.gz'
    )
    assert taken(find_scans(root, sessions=['ses-b'])) == ['sub-01_ses-b_swi.nii.gz']
    with pytest.raises(FilterError, match='--session-label'):
        find_scans(root, sessions=['c'])


def test_labels_that_stand_for_nothing_are_named(dataset):
    root = dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_swi.nii.gz', 'sub-02/ses-b/anat/sub-02_ses-b_swi.nii.gz'
    )
    assert find_scans(root, sessions=['ses-a', 'b'], exclude=['sub-02']).mistyped == (
        '--session-label: no ses-b in any participant asked for; see whether that is what you '
        'meant',
    )
    assert find_scans(root, sessions=['a', 'b']).mistyped == ()
    some = [f'x{number:02}' for number in range(12)]
    assert find_scans(root, exclude=[*some, '02']).mistyped == (
        f'--exclude-participant-label: no sub-{", sub-".join(some[:10])} and 2 more in <{root}>; '
        'see whether that is what you meant',
    )


def test_who_is_left_out_by_filters_is_told_from_who_has_no_scan(dataset):
    root = dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_swi.nii.gz',
        'sub-02/ses-b/anat/sub-02_ses-b_swi.nii.gz',
        'sub-03/ses-a/anat/sub-03_ses-a_T2starw.nii.gz',
        'sub-04/ses-a/anat/sub-04_ses-a_T1w.nii.gz',
    )
    found = find_scans(root, participants=['01', '02', '03', '04', '1'], sessions=['a'],
                       modality='swi')  # fmt: skip
    assert taken(found) == ['sub-01_ses-a_swi.nii.gz']
    assert (found.missing, found.filtered) == (('02', '03', '04', '1'), ('02', '03'))
    assert [str(error) for error in found.left_out(root).values()] == [
        'sub-02 has no scan that passes --session-label, --modality and --bids-filter-file (see '
        '--dry-run)',
        'sub-03 has no scan that passes --session-label, --modality and --bids-filter-file (see '
        '--dry-run)',
        'sub-04 has no usable scan (see --dry-run)',
        f'no sub-1 in <{root}>',
    ]


def test_a_participant_without_scan_is_missing_and_no_filter_error(dataset):
    found = find_scans(dataset('sub-01/anat/sub-01_T1w.nii.gz'), modality='swi')
    assert found.scans == ()
    assert found.missing == ('01',)


def test_modality_that_leaves_nothing_is_a_filter_error_with_an_example(dataset):
    root = dataset('sub-01/anat/sub-01_T2starw.nii.gz')
    with pytest.raises(FilterError, match=r'sub-01_T2starw.*--modality swi was asked for'):
        find_scans(root, modality='swi')
    with pytest.raises(UsageError, match='auto, swi or t2s'):
        find_scans(root, modality='flair')


def test_sidecars_are_inherited_from_all_levels_the_nearer_winning(dataset):
    root = dataset(
        ('T2starw.json', {'RepetitionTime': 1, 'EchoTime': 0.1, 'FlipAngle': 5}),
        ('swi.json', {'RepetitionTime': 9}),
        ('acq-other_T2starw.json', {'RepetitionTime': 8}),
        ('sub-01/sub-01_T2starw.json', {'EchoTime': 0.2, 'FlipAngle': 6}),
        ('sub-01/ses-1/sub-01_ses-1_T2starw.json', {'FlipAngle': 7}),
        ('sub-01/ses-1/anat/sub-01_ses-1_acq-x_T2starw.json', {'SliceThickness': 2}),
        'sub-01/ses-1/anat/sub-01_ses-1_acq-x_T2starw.nii.gz',
    )
    (scan,) = find_scans(root).scans
    assert scan.metadata == {
        'RepetitionTime': 1,
        'EchoTime': 0.2,
        'FlipAngle': 7,
        'SliceThickness': 2,
    }


def test_an_unreadable_sidecar_stops_its_scan_only(dataset):
    root = dataset(
        ('sub-01/anat/sub-01_swi.json', '{"EchoTime": '),
        'sub-01/anat/sub-01_swi.nii.gz',
        'sub-02/anat/sub-02_swi.nii.gz',
    )
    bad, good = find_scans(root).scans
    good.check()
    with pytest.raises(DataError, match=r'sidecar <.*sub-01_swi.json> cannot be read'):
        bad.check()
    (alone,) = find_scans(root, participants=['02']).scans
    assert alone.error is None


def test_a_link_to_a_file_that_was_not_fetched_stops_its_scan_with_the_remedy(dataset):
    root = dataset('sub-01/anat/sub-01_T1w.nii.gz', 'sub-02/anat/sub-02_swi.nii.gz')
    (root / 'sub-01/anat/sub-01_swi.nii.gz').symlink_to('../../.git/annex/objects/absent')
    bad, good = find_scans(root).scans
    assert good.error is None
    with pytest.raises(DataError, match=r'sub-01_swi.nii.gz> is a link .*"datalad get"'):
        bad.check()


def test_a_sidecar_that_was_not_fetched_is_to_be_fetched(dataset):
    text = '/annex/objects/MD5E-s9--0123.json\n'
    root = dataset('sub-01/anat/sub-01_swi.nii.gz', ('sub-01/anat/sub-01_swi.json', text))
    with pytest.raises(DataError, match=r'sub-01_swi.json> stands for data that are not here'):
        find_scans(root).scans[0].check()


def test_dataset_errors_say_what_to_do(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r'cannot be read .* in a container, bind it'):
        find_scans(tmp_path / 'absent')
    root = dataset('sub-01/anat/sub-01_swi.nii.gz')
    (root / 'dataset_description.json').write_text('{')
    with pytest.raises(DatasetError, match=r'dataset_description.json> cannot be read'):
        find_scans(root)
    (root / 'dataset_description.json').unlink()
    with pytest.raises(DatasetError, match=r'is missing: write one'):
        find_scans(root)
    assert taken(find_scans(root, require_description=False)) == ['sub-01_swi.nii.gz']
    shutil.rmtree(root / 'sub-01')
    with pytest.raises(DatasetError, match=r'no sub-\* folder'):
        find_scans(root, require_description=False)


def test_only_the_participants_asked_for_are_opened(dataset, monkeypatch):
    files = [f'sub-{i:03d}/anat/sub-{i:03d}_swi.nii.gz' for i in range(50)]
    root = dataset(*files)
    opened = []
    import os

    listdir = os.listdir
    monkeypatch.setattr(os, 'listdir', lambda path: opened.append(Path(path)) or listdir(path))
    find_scans(root, participants=['007'])
    inside = [path for path in opened if path.is_relative_to(root)]
    assert inside == [root, root / 'sub-007', root / 'sub-007/anat']


@pytest.mark.parametrize(
    ('name', 'metadata', 'contrast'),
    [
        ('acq-swi_T2starw', {}, 'swi'),
        ('acq-swi_part-mag_T2starw', {}, 'T2starw'),
        ('rec-SWAN_T2starw', {}, 'swi'),
        ('T2starw', {'SeriesDescription': 'ax_SWI_3mm'}, 'swi'),
        ('T2starw', {'SeriesDescription': 'swimming'}, 'T2starw'),
        ('T2starw', {'ImageType': ['ORIGINAL', 'PRIMARY', 'M', 'SWI']}, 'swi'),
        ('SWI', {}, 'swi'),
        ('GRE', {}, 'T2starw'),
    ],
)
def test_contrast_is_told_from_suffix_labels_and_sidecar(dataset, name, metadata, contrast):
    root = dataset(
        f'sub-01/anat/sub-01_{name}.nii.gz', (f'sub-01/anat/sub-01_{name}.json', metadata)
    )
    (scan,) = find_scans(root).scans
    assert scan.contrast == contrast


@pytest.mark.parametrize(
    ('image_type', 'words'),
    [
        (['ORIGINAL', 'PRIMARY', 'P', 'ND'], 'a phase image'),
        (['DERIVED', 'SECONDARY', 'MNIP'], 'a projection'),
        (['ORIGINAL', 'PRIMARY', 'R_FFE', 'R'], 'real or imaginary'),
        (['DERIVED', 'PRIMARY', 'M', 'MINIP'], 'a projection'),
    ],
)
def test_image_type_refuses(dataset, image_type, words):
    root = dataset(
        'sub-01/anat/sub-01_swi.nii.gz', ('sub-01/anat/sub-01_swi.json', {'ImageType': image_type})
    )
    found = find_scans(root)
    assert found.scans == ()
    assert words in reason_of(found, 'sub-01_swi.nii.gz')


PROJECTION, PHASE = 'a projection over several slices', 'a phase image'


@pytest.mark.parametrize(
    ('description', 'words'),
    [
        ('mIP_Images(SW)', PROJECTION),
        ('t2_swi_tra_p2_mIP', PROJECTION),
        ('MinIP: Ax SWAN', PROJECTION),
        ('MPR Ob_Ax_I -> S_Min IP_sp:5.0_th:5.0', PROJECTION),
        ('PJN:SWAN', PROJECTION),
        ('Pha_Images', PHASE),
        ('t2_swi_tra_p2_Pha', PHASE),
        ('FILT_PHA: OAx SWI', PHASE),
        ('SWI Phase', PHASE),
        ('SWIPhase', PHASE),
        ('SWI\nmIP', PROJECTION),
        ('Ax SWI HP filtered phase mask', PHASE),
        ('Phase', PHASE),
    ],
)
def test_series_description_refuses_and_image_type_overrules_it(dataset, description, words):
    names = ('run-1_swi', 'run-2_swi')
    root = dataset(*(f'sub-01/anat/sub-01_{name}.nii.gz' for name in names))
    for name, text in zip(names, ('SWI_Images', description), strict=True):
        metadata = {'SeriesDescription': text, 'ImageType': ['ORIGINAL', 'PRIMARY', 'OTHER']}
        (root / f'sub-01/anat/sub-01_{name}.json').write_text(json.dumps(metadata))
    found = find_scans(root)
    assert taken(found) == ['sub-01_run-1_swi.nii.gz']
    reason = reason_of(found, 'sub-01_run-2_swi.nii.gz')
    shown = description.replace('\n', ' ')
    assert reason.startswith(f'SeriesDescription "{shown}" of its sidecar: {words}')
    # a filter that tells the contrast of all scans says nothing of this image
    filtered = find_scans(root, filters={'swi': {'suffix': 'swi'}})
    assert taken(filtered) == ['sub-01_run-1_swi.nii.gz']
    assert 'add "M" (magnitude) to ImageType in its sidecar' in reason
    metadata['ImageType'].append('M')
    (root / 'sub-01/anat/sub-01_run-2_swi.json').write_text(json.dumps(metadata))
    assert len(taken(find_scans(root))) == 2


@pytest.mark.parametrize(
    ('name', 'metadata'),
    [
        ('swi', {'SeriesDescription': 'Pha_Images', 'ImageType': ['ORIGINAL', 'PRIMARY', 'M']}),
        ('swi', {'SeriesDescription': 'SWI_mIP', 'ImageType': 'ORIGINAL\\PRIMARY\\M_FFE'}),
        ('part-mag_T2starw', {'SeriesDescription': 'swi_pha'}),
        # of the acquisition, whatever this image of it shows
        ('swi', {'ProtocolName': 'swi_mag_pha_mIP', 'SequenceName': 'phase'}),
        ('swi', {'StudyDescription': 'Phase 2 MIP', 'SeriesDescription': 'SWI_Images'}),
        *(
            ('T2starw', {'SeriesDescription': text})
            for text in (
                'SWI + phase', 'swi_with_mIP', 'SWI_Mag_Phase', 'GRE in-phase', 'T2* InPhase',
                'gre opp phase', 'OAx PWI 50 Phase', 'T2s phase enc AP', 'alpha', 'HIPs', 7,
                'SWI phase AP', 'Ax SWI PHASE R-L', 'SWI phase A>P', 'T2*_phase_RL',
                'Ax T2* GRE no phase wrap', 'ax t2 gre SWAP PHASE', 'SWI phase FOV 80',
                'SWI partial phase', 'SWI 75% phase', 'SWI PhaseWeighted', 'T2* delayed phase',
                'SWI_PE_phase',
            )
        ),
    ],
)  # fmt: skip
def test_series_descriptions_that_refuse_nothing(dataset, name, metadata):
    root = dataset(
        f'sub-01/anat/sub-01_{name}.nii.gz', (f'sub-01/anat/sub-01_{name}.json', metadata)
    )
    assert taken(find_scans(root)) == [f'sub-01_{name}.nii.gz']


@pytest.mark.parametrize(
    ('label', 'words'),
    [
        *((label, None) for label in (
            'alpha', 'PH3T', 'PHSWI', 'inphase', 'InPhase', 'opphase', 'greinphase', 'oppPhase',
            'outOfPhase', 'graph', 'GREinphase', 'T2starinphase', 'swiinphase', 'dixinphase',
        )),
        *((label, PHASE) for label in (
            'phase', 'Pha', 'PH', 'swiPh', 'swipha', 'SWIPHA', 'swi3Phase', 'brainphase',
            'filtPhase', 'swiphase2',
        )),
        *((label, PROJECTION) for label in ('mIP', 'swiMinIP', 'mip8', 'MNIP')),
    ],
)  # fmt: skip
def test_labels_that_speak_of_phase_or_projection(dataset, label, words):
    found = find_scans(dataset(f'sub-01/anat/sub-01_acq-{label}_T2starw.nii.gz'))
    assert len(found.scans) == (words is None)
    if words:
        assert words in reason_of(found, f'sub-01_acq-{label}_T2starw.nii.gz')


def test_echo_time_in_milliseconds_is_read_with_a_warning(dataset):
    root = dataset(
        'sub-01/anat/sub-01_echo-1_MEGRE.nii.gz',
        ('sub-01/anat/sub-01_echo-1_MEGRE.json', {'EchoTime': 40}),
        'sub-01/anat/sub-01_echo-2_MEGRE.nii.gz',
        ('sub-01/anat/sub-01_echo-2_MEGRE.json', {'EchoTime': 22}),
    )
    (scan,) = find_scans(root).scans
    assert scan.entities['echo'] == '2'
    assert scan.warnings == ('EchoTime 22 was read as milliseconds',)


def test_equally_close_echoes_give_the_first(dataset):
    root = dataset(
        'sub-01/anat/sub-01_echo-1_MEGRE.nii.gz',
        ('sub-01/anat/sub-01_echo-1_MEGRE.json', {'EchoTime': 0.015}),
        'sub-01/anat/sub-01_echo-2_MEGRE.nii.gz',
        ('sub-01/anat/sub-01_echo-2_MEGRE.json', {'EchoTime': 0.025}),
    )
    assert find_scans(root).scans[0].entities['echo'] == '1'


def test_no_temporary_files_are_needed(dataset, tmp_path, monkeypatch):
    root = dataset('sub-01/anat/sub-01_swi.nii.gz')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'absent'))
    assert taken(find_scans(root)) == ['sub-01_swi.nii.gz']


def test_a_task_opens_few_files_of_a_large_dataset(dataset):
    """Listings of participant and anat, the sidecar; the image is only asked for (no audit)."""
    names = [f'sub-{number:03d}/anat/sub-{number:03d}_T2starw' for number in range(300)]
    raw = dataset(*[f'{name}.nii.gz' for name in names])
    for name in names:
        (raw / f'{name}.json').write_text('{"EchoTime": 0.02}')
    code = (
        'import sys\n'
        'from shivacmb.bids import find_scans\n'
        'heard = []\n'
        'wanted = ("open", "os.listdir", "os.scandir")\n'
        'sys.addaudithook(lambda event, args: event in wanted and heard.append(str(args[0])))\n'
        'found = find_scans(sys.argv[1], participants=sys.argv[2:])\n'
        'assert len(found.scans) == len(sys.argv) - 2\n'
        'print(sum(path.startswith(sys.argv[1]) for path in heard))\n'
    )
    counts = []
    for wanted in (['007'], ['007', '107', '207']):
        command = [sys.executable, '-c', code, str(raw), *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        counts.append(int(done.stdout))
    assert counts == [5, 11]
