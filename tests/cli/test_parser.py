"""What is typed becomes a value, or a message with exit code 64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli import types
from shivacmb.cli.parser import build_parser, parse_args
from shivacmb.cli.settings import Settings, settings_from
from shivacmb.exceptions import UsageError

POSITIONAL = ['bids', 'out', 'participant']


def typed(*arguments: str) -> dict[str, Any]:
    return vars(parse_args([*POSITIONAL, *arguments]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / 'file.json').write_text('{}')
    (tmp_path / 'masks').mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('arguments', 'name', 'value'),
    [
        (['--participant-label', '01', 'sub-02'], 'participant_label', ['01', 'sub-02']),
        (['--participant_label', '01'], 'participant_label', ['01']),
        (['--exclude-participant-label', '01'], 'exclude_participant_label', ['01']),
        (['--session-label', 'ses-1', '2'], 'session_label', ['ses-1', '2']),
        (['--modality', 't2s'], 'modality', 't2s'),
        (['--skip-bids-validation'], 'skip_bids_validation', True),
        (['--skip_bids_validation'], 'skip_bids_validation', True),
        (['--model', 'other'], 'model', 'other'),
        (['--trust-model'], 'trust_model', True),
        (['--engine', 'tensorflow'], 'engine', 'tensorflow'),
        (['--device', 'gpu'], 'device', 'gpu'),
        (['--threshold', '0.5'], 'threshold', 0.5),
        (['--threshold', '1'], 'threshold', 1.0),
        (['--min-size', '1'], 'min_size', 1),
        (['--min_size', '7'], 'min_size', 7),
        (['--toolkit', 'fsl'], 'toolkit', 'fsl'),
        (['--mask', 'hd-bet'], 'mask', 'hd-bet'),
        (['--brain-mask', '/m/{stem}.nii'], 'brain_mask', '/m/{stem}.nii'),
        (['--nprocs', '3'], 'nprocs', 3),
        (['--nthreads', '3'], 'nprocs', 3),
        (['--n-cpus', '3'], 'nprocs', 3),
        (['--n_cpus', '3'], 'nprocs', 3),
        (['--omp-nthreads', '2'], 'omp_nthreads', 2),
        (['--mem', '8G'], 'mem_mb', 8000.0),
        (['--mem', '8000'], 'mem_mb', 8000.0),
        (['--mem-mb', '500M'], 'mem_mb', 500.0),
        (['--mem_mb', '2500000k'], 'mem_mb', 2500.0),
        (['--mem', '0.5TB'], 'mem_mb', 500_000.0),
        (['--mem-gb', '1.5'], 'mem_mb', 1500.0),
        (['--keep-work'], 'keep_work', True),
        (['--dry-run'], 'dry_run', True),
        (['--dry_run'], 'dry_run', True),
        (['--overwrite'], 'overwrite', True),
        (['--stop-on-first-crash'], 'stop_on_first_crash', True),
        (['--reports-only'], 'reports_only', True),
        (['--boilerplate-only'], 'boilerplate_only', True),
        (['--write-graph'], 'write_graph', True),
        (['-v'], 'verbose', 1),
        (['-vv'], 'verbose', 2),
        (['-q'], 'quiet', True),
    ],
)
def test_value(arguments: list[str], name: str, value: Any) -> None:
    assert typed(*arguments)[name] == value


@pytest.mark.parametrize(
    ('arguments', 'name', 'parts'),
    [
        (['-w', 'work'], 'work_dir', ('work',)),
        (['--work_dir', 'work'], 'work_dir', ('work',)),
        (['--models-dir', 'm'], 'models_dir', ('m',)),
        (['--bids-filter-file', 'file.json'], 'bids_filter_file', ('file.json',)),
        (['--use-plugin', 'file.json'], 'use_plugin', ('file.json',)),
        (['--config-file', 'file.json'], 'config_file', ('file.json',)),
    ],
)
def test_paths_are_absolute(
    folder: Path, arguments: list[str], name: str, parts: tuple[str, ...]
) -> None:
    assert typed(*arguments)[name] == folder.joinpath(*parts)
    assert typed(*arguments)['bids_dir'] == folder / 'bids'


@pytest.mark.parametrize(
    ('arguments', 'derivatives'),
    [
        (['-d', 'a=masks'], {'a': 'masks'}),
        (['--derivatives', 'masks'], {'masks': 'masks'}),
        (['-d', 'a=masks', '-d', 'b=.'], {'a': 'masks', 'b': '.'}),
    ],
)
def test_derivatives(folder: Path, arguments: list[str], derivatives: dict[str, str]) -> None:
    settings = settings_from(parse_args([*POSITIONAL, *arguments]))
    assert settings.derivatives == {key: folder / path for key, path in derivatives.items()}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--threshold', '0'], "expected a number above 0 and at most 1, got '0'"),
        (['--threshold', '1.01'], "got '1.01'"),
        (['--threshold', 'nan'], "got 'nan'"),
        (['--threshold', 'half'], "got 'half'"),
        (['--min-size', '0'], "expected a whole number of at least 1, got '0'"),
        (['--min-size', '2.5'], "got '2.5'"),
        (['--nprocs', '-1'], "got '-1'"),
        (['--mem', '8 gigs'], "expected memory such as 8000, 8000M or 8G, got '8 gigs'"),
        (['--mem', '0'], "got '0'"),
        (['--mem-gb', 'x'], "expected gigabytes above 0, got 'x'"),
        (['--modality', 'T1w'], "invalid choice: 'T1w'"),
        (['--engine', 'torch'], "invalid choice: 'torch'"),
        (['--toolkit', 'spm'], "invalid choice: 'spm'"),
        (['--bids-filter-file', 'absent.json'], 'no such file: <absent.json>'),
        (['--use-plugin', 'absent.yml'], 'no such file: <absent.yml>'),
        (['--config-file', 'absent.toml'], 'no such file: <absent.toml>'),
        (['-d', 'a=absent'], 'no such folder: <absent> (expected NAME=PATH)'),
        (['--models-dir', '~nobody-here/m'], '<~nobody-here/m> begins with a home folder'),
        (['--use-plugin', '~nobody-here/p'], '<~nobody-here/p> begins with a home folder'),
        (['-d', 'a=~nobody-here'], '<~nobody-here> begins with a home folder'),
        (['--participant-label'], 'expected at least one argument'),
        (['--thresh', '0.5'], 'unrecognized arguments: --thresh 0.5'),
        (['--participant', '01'], 'unrecognized arguments: --participant'),
    ],
)
def test_refusal(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        typed(*arguments)
    assert left.value.code == 64
    said = capsys.readouterr().err
    assert message in said
    assert said.endswith('See shivacmb --help.\n')


@pytest.mark.parametrize('option', ['--model', '--brain-mask', '--participant-label'])
def test_a_home_folder_of_nobody_is_named(option: str) -> None:
    with pytest.raises(UsageError, match='<~nobody-here/x> begins with a home folder'):
        settings_from(parse_args([*POSITIONAL, option, '~nobody-here/x']))


def test_only_what_was_typed_is_there() -> None:
    """A default must not hide what --config-file says."""
    assert set(typed('--threshold', '0.5')) == {
        'bids_dir', 'out_dir', 'analysis_level', 'threshold',
    }  # fmt: skip


def test_every_option_is_a_setting_with_help() -> None:
    fields = set(Settings.__dataclass_fields__)
    seen = set()
    for action in build_parser()._actions:
        if action.dest not in ('help', 'version', 'config_file'):
            seen.add(action.dest)
            assert action.help, action.option_strings
        long = [word for word in action.option_strings if word.startswith('--')]
        if any('-' in word[2:] for word in long):
            assert any('_' in word for word in long), f'{long} lacks the underscore spelling'
    assert seen == fields


@pytest.mark.parametrize('value', ['5', '5k', '5.5G', '5GB', '5 mb', '5m'])
def test_memory_is_positive(value: str) -> None:
    assert types.megabytes(value) > 0


def test_help_has_every_exit_code_of_its_own() -> None:
    from shivacmb.cli import main

    text = build_parser().epilog or ''
    for code in (value for name, value in vars(main).items() if name.startswith('EXIT_')):
        assert f' {code} ' in text
