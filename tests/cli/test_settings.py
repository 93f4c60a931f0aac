"""Settings are saved as TOML and accepted back."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli import settings as module
from shivacmb.cli.parser import parse_args
from shivacmb.cli.settings import Settings, read_config, settings_from
from shivacmb.exceptions import UsageError

#: A value other than the default for every field that is taken back from a file.
VALUES: dict[str, Any] = {
    'participant_label': ('01', '02'),
    'exclude_participant_label': ('03',),
    'session_label': ('1',),
    'bids_filter_file': Path('/filters/swi "α".json'),
    'modality': 'swi',
    'skip_bids_validation': True,
    'model': '/models/mine',
    'models_dir': Path('/models'),
    'trust_model': True,
    'engine': 'tensorflow',
    'device': 'gpu',
    'threshold': 0.55,
    'min_size': 5,
    'min_parenchyma': 0.4,
    'toolkit': 'native',
    'mask': 'bet',
    'no_zones': True,
    'brain_mask': '/masks/{stem}.nii.gz',
    'derivatives': {'a': Path('/a'), 'b c': Path('/b')},
    'mem_mb': 8000.0,
    'use_plugin': Path('/plugin.yml'),
    'work_dir': Path('/scratch'),
    'keep_work': True,
    'stop_on_first_crash': True,
}


@pytest.fixture(autouse=True)
def existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files and folders of VALUES, and look for them in the test's own folder."""
    for name in ('bids_filter_file', 'use_plugin'):
        path = tmp_path / VALUES[name].name
        path.write_text('{}')
        monkeypatch.setitem(VALUES, name, path)
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    monkeypatch.setitem(VALUES, 'derivatives', {'a': tmp_path / 'a', 'b c': tmp_path / 'b'})


def saved(tmp_path: Path, settings: Settings) -> Path:
    path = tmp_path / 'settings.toml'
    path.write_text(settings.to_toml(), encoding='utf-8')
    return path


def again(path: Path, *arguments: str) -> Settings:
    return settings_from(
        parse_args(['/bids', '/out', 'participant', '--config-file', str(path), *arguments])
    )


def test_every_field_is_tested() -> None:
    assert set(VALUES) | module._OF_THIS_RUN == set(Settings.__dataclass_fields__)


def test_round_trip_of_everything(tmp_path: Path) -> None:
    settings = Settings(Path('/bids'), Path('/out'), 'participant', **VALUES)
    assert again(saved(tmp_path, settings)) == settings


@pytest.mark.parametrize('name', sorted(VALUES))
def test_round_trip_of_one(tmp_path: Path, name: str) -> None:
    settings = Settings(Path('/bids'), Path('/out'), 'participant', **{name: VALUES[name]})
    assert read_config(saved(tmp_path, settings))[name] == VALUES[name]
    assert again(saved(tmp_path, settings)) == settings


def test_what_belongs_to_one_run_is_not_taken_back(tmp_path: Path) -> None:
    of_run = {
        'dry_run': True, 'overwrite': True, 'reports_only': True, 'boilerplate_only': True,
        'write_graph': True, 'verbose': 2, 'quiet': True, 'nprocs': 63, 'omp_nthreads': 7,
    }  # fmt: skip
    settings = Settings(Path('/elsewhere'), Path('/else'), 'group', **of_run)
    assert again(saved(tmp_path, settings)) == Settings(Path('/bids'), Path('/out'), 'participant')


def test_what_is_typed_comes_first(tmp_path: Path) -> None:
    settings = Settings(Path('/bids'), Path('/out'), 'participant', threshold=0.7, min_size=9)
    both = again(saved(tmp_path, settings), '--threshold', '0.3')
    assert (both.threshold, both.min_size) == (0.3, 9)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('threshold = 0.5\n', r'has no \[settings\] table'),
        ('[settings]\nthreshold = \n', r'is not valid TOML'),
        ('\x00\xff', r'is not valid TOML'),
        (
            '[settings]\ntreshold = 0.5\nother = 1\n',
            r'has settings that do not exist: other, treshold',
        ),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / 'settings.toml'
    path.write_text(content, encoding='latin-1')
    with pytest.raises(UsageError, match=rf'--config-file <{re.escape(str(path))}> {message}'):
        read_config(path)


@pytest.mark.parametrize(
    'line',
    [
        'threshold = 1.5', 'threshold = "high"', 'min_size = 0', 'min_size = 2.5',
        'engine = "torch"', 'mask = "guess"', 'participant_label = "01"', 'work_dir = 3',
        'derivatives = "x"', 'keep_work = "yes"', 'model = 3', 'modality = "T1w"', 'mem_mb = -1',
        'threshold = true', 'session_label = [1]', 'bids_filter_file = "absent.json"',
        'derivatives = {a = "absent"}',
    ],
)  # fmt: skip
def test_value_that_the_command_line_would_refuse(tmp_path: Path, line: str) -> None:
    """A saved file is no way around the checks of the options."""
    path = tmp_path / 'settings.toml'
    path.write_text(f'[settings]\n{line}\n')
    name = line.split(' ')[0]
    with pytest.raises(UsageError, match=rf'--config-file <.*> {name}: '):
        read_config(path)


def test_settings_are_frozen() -> None:
    settings = Settings(Path('/bids'), Path('/out'), 'participant')
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.threshold = 0.1  # type: ignore[misc]


def test_processors_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'usable_cpus', lambda: 20)
    settings = Settings(Path('/bids'), Path('/out'), 'participant')
    assert (settings.nprocs, settings.omp_nthreads) == (20, 8)
    fewer = Settings(Path('/bids'), Path('/out'), 'participant', nprocs=2)
    assert (fewer.nprocs, fewer.omp_nthreads) == (2, 2)


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    """``-d site1/fmriprep -d site2/fmriprep``: one of them would be dropped."""
    one, two = (tmp_path / site / 'fmriprep' for site in ('site1', 'site2'))
    for folder in (one, two):
        folder.mkdir(parents=True)
    begin = [str(tmp_path), str(tmp_path / 'out'), 'participant']
    with pytest.raises(UsageError, match=r'-d fmriprep: <.*> and <.*> have one name; give each'):
        settings_from(parse_args([*begin, '-d', str(one), '-d', str(two)]))
    named = settings_from(parse_args([*begin, '-d', f'a={one}', '-d', f'b={two}']))
    assert named.derivatives == {'a': one, 'b': two}
    twice = settings_from(parse_args([*begin, '-d', str(one), '-d', str(one)]))
    assert twice.derivatives == {'fmriprep': one}


def test_files_are_saved_for_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / 'here', tmp_path / 'there'
    for folder in (here / 'bundle', here / 'synth-cmb', here / 'mine', there, tmp_path / 'm/mine'):
        folder.mkdir(parents=True)
    (tmp_path / 'm/mine/model.json').touch()
    words = ['--models-dir', str(tmp_path / 'm')]
    words += ['--brain-mask', 'masks/{stem}.nii', '--participant-label', '01', 'list.txt']
    for model, kept in (
        ('bundle', str(here / 'bundle')), ('./bundle', str(here / 'bundle')),
        ('synth-cmb', 'synth-cmb'), ('mine', 'mine'), ('default', 'default'), ('absent', 'absent'),
    ):  # fmt: skip
        monkeypatch.chdir(here)
        typed = parse_args(['/bids', '/out', 'participant', '--model', model, *words])
        path = saved(tmp_path, settings_from(typed))
        monkeypatch.chdir(there)
        taken = again(path)
        assert taken.model == kept
        assert taken.brain_mask == str(here / 'masks/{stem}.nii')
        assert taken.participant_label == ('01', str(here / 'list.txt'))
