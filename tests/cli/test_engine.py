"""Which plugin runs, and what is said of a scan that did not finish."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shivacmb.cli.engine import (
    Plugin,
    _cancel_jobs,
    _settled_heap,
    check_plugin,
    choose_plugin,
    configure_nipype,
    plugin_class,
    read_plugin,
)
from shivacmb.cli.failures import last_line, read_failure
from shivacmb.cli.settings import Settings
from shivacmb.exceptions import (
    DataError,
    ModelError,
    OutputError,
    ShivaCMBError,
    TemporaryError,
    UsageError,
)


def settings(**values: Any) -> Settings:
    return Settings(Path('/bids'), Path('/out'), 'participant', **values)


@pytest.mark.parametrize(
    ('values', 'scans', 'name'),
    [
        ({'nprocs': 1}, 5, 'Linear'),
        ({'nprocs': 4}, 1, 'Linear'),
        ({'nprocs': 4}, 2, 'ScanByScan'),
    ],
)
def test_plugin_by_processors_and_scans(values: Any, scans: int, name: str) -> None:
    plugin = choose_plugin(settings(**values), scans)
    assert plugin.name == name
    assert plugin.local


def test_memory_reaches_the_plugin() -> None:
    plugin = choose_plugin(settings(nprocs=4, mem_mb=8000.0), 2)
    assert plugin.args['memory_gb'] == 8.0
    # one more than the processors: a worker that waits for the prediction process uses none
    assert plugin.args['n_procs'] == 5
    # a scan that needs more than there is runs alone instead of not at all
    assert plugin.args['raise_insufficient'] is False


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('p.json', '{"plugin": "SLURM", "plugin_args": {"sbatch_args": "-t 10"}}'),
        ('p.yml', 'plugin: SLURM\nplugin_args:\n  sbatch_args: -t 10\n'),
        ('p.toml', 'plugin = "SLURM"\n[plugin_args]\nsbatch_args = "-t 10"\n'),
    ],
)
def test_plugin_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    plugin = choose_plugin(settings(use_plugin=path, nprocs=1), 1)
    assert (plugin.name, plugin.args) == ('SLURM', {'sbatch_args': '-t 10'})
    assert not plugin.local


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('p.json', '[]', r"must have 'plugin'"),
        ('p.yml', 'plugin: 3', r"must have 'plugin'"),
        ('p.yml', 'plugin: [', r'cannot be read'),
        ('p.toml', 'plugin =', r'cannot be read'),
        ('p.json', '{"plugin": "Linear", "plugin_args": 3}', r"'plugin_args' must be a table"),
        ('p.json', '{"plugin": "Nonesuch"}', r"nipype has no plugin 'Nonesuch', only "),
    ],
)
def test_plugin_file_that_is_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_plugin(path)


NODE = 'shivacmb_wf.{scan}.preproc_wf.resample'


def test_failure_of_our_own_node_keeps_its_class(tmp_path: Path) -> None:
    node = tmp_path / 'scan_a' / 'preproc_wf' / 'check_image'
    node.mkdir(parents=True)
    content = {'kind': 'ModelError', 'message': 'no fold', 'code': 65}
    (node / 'failure.json').write_text(json.dumps(content))
    error = read_failure(tmp_path / 'scan_a', tmp_path, NODE.format(scan='scan_a'))
    assert isinstance(error, ModelError)
    assert str(error) == 'no fold'


def test_failure_file_that_could_not_be_filled(tmp_path: Path) -> None:
    (tmp_path / 'failure.json').touch()
    error = read_failure(tmp_path, tmp_path, 'any')
    assert isinstance(error, OutputError)
    assert '--work-dir' in str(error)


CRASH = """Node: shivacmb_wf.{scan}.preproc_wf.resample
Working directory: /tmp/x

Traceback (most recent call last):
nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node resample.

Cmdline:
\tflirt -in a.nii -ref a.nii
Stdout:
\tstarting
Stderr:
\tfirst line
\t{words}
Traceback:
\tFileNotFoundError: No such file
"""


def test_failure_of_a_program_is_told_by_the_crash_file_of_its_scan(tmp_path: Path) -> None:
    for scan, words in (('scan_a', 'out of memory'), ('scan_ab', 'bad header')):
        (tmp_path / f'crash-{scan}.txt').write_text(CRASH.format(scan=scan, words=words))
    for scan, words in (('scan_a', 'out of memory'), ('scan_ab', 'bad header')):
        error = read_failure(tmp_path / 'work' / scan, tmp_path, NODE.format(scan=scan))
        assert isinstance(error, DataError)
        assert str(error).startswith(f'flirt failed: {words}; check its installation')


def test_failure_of_a_node_of_nipype(tmp_path: Path) -> None:
    node = NODE.format(scan='scan_a')
    (tmp_path / 'crash-1.txt').write_text(f'Node: {node}\n\nKeyError: "x"\n')
    error = read_failure(tmp_path / 'absent', tmp_path, node)
    assert type(error) is ShivaCMBError
    assert str(error) == f'resample failed: KeyError: "x"; see <{tmp_path / "crash-1.txt"}>'


def test_worker_that_left_no_word(tmp_path: Path) -> None:
    error = read_failure(tmp_path / 'absent', tmp_path, NODE.format(scan='scan_a'))
    assert isinstance(error, TemporaryError)
    assert str(error).startswith('resample ended without a word, most often because memory')


@pytest.mark.parametrize(
    ('text', 'line'),
    [('long\n  the reason  \n', 'the reason'), ('', 'the run stopped before it')],
)
def test_last_line(text: str, line: str) -> None:
    assert last_line(text) == line


@pytest.mark.parametrize(
    'name', ['MultiProc', 'ScanByScan', 'Linear', 'SLURM', 'SGE', 'SLURMGraph']
)
def test_plugins_of_nipype_are_found(name: str) -> None:
    assert plugin_class(name).__name__ in (f'{name}Plugin', 'ScanByScanPlugin')


@pytest.mark.parametrize(
    ('name', 'out', 'work', 'words'),
    [
        (
            'SLURMGraph',
            '/out',
            '/work',
            'submits jobs and does not wait for their results; use SLURM',
        ),
        ('CondorDAGMan', '/out', '/work', 'does not wait for their results; use Condor'),
        ('SLURM', '/out', None, 'needs --work-dir: a folder that every node can reach'),
        ('SLURM', '/out', '/my work', '</my work> must have no space and no %'),
        ('SLURM', '/out 5%', '/work', 'OUT_DIR </out 5%> must have no %'),
    ],
)
def test_what_a_cluster_plugin_cannot_do(
    name: str, out: str, work: str | None, words: str
) -> None:
    made = Settings(Path('/bids'), Path(out), 'participant', work_dir=Path(work) if work else None)
    with pytest.raises(UsageError, match=words):
        check_plugin(Plugin(name, {}), made)


def test_plugins_that_are_fine() -> None:
    check_plugin(Plugin('SLURM', {}), settings(work_dir=Path('/work')))
    check_plugin(Plugin('MultiProc', {}), settings())


def test_plugin_knows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('LOGNAME', raising=False)
    Plugin('Linear', {}).start(lambda node, state: None)
    assert os.environ['LOGNAME']


def test_percent_in_a_path_is_no_reference(tmp_path: Path) -> None:
    from nipype import config

    folder = tmp_path / '5%(x)s'
    configure_nipype(folder, verbose=0, stop_on_first_crash=False, local=False)
    assert config.get('execution', 'crashdump_dir') == str(folder)
    # a scheduler is not asked fifty times a second
    assert float(config.get('execution', 'poll_sleep_duration')) >= 1
    configure_nipype(tmp_path, verbose=0, stop_on_first_crash=False)
    assert float(config.get('execution', 'poll_sleep_duration')) < 0.1


def test_jobs_of_an_interrupted_run_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scancel = tmp_path / 'scancel'
    scancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    scancel.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    runner = SimpleNamespace(_pending={12: '/a', 13: '/b'})
    _cancel_jobs(Plugin('SLURM', {}), runner)
    assert (tmp_path / 'said').read_text() == '12 13\n'


def test_what_is_loaded_is_no_business_of_the_collector_during_a_run() -> None:
    with _settled_heap():
        assert gc.get_freeze_count() > 1000
    with pytest.raises(KeyError), _settled_heap():
        raise KeyError
    assert gc.get_freeze_count() == 0
