"""How far each scan is: done, running, failed, stopped or not started."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.bids import ScanRecord, output_paths, read_records
from shivacmb.cli import slurm_queue
from shivacmb.cli.runs import FINISHED, RunNote, read_runs
from shivacmb.cli.slurm_logs import TaskEnd, task_ends
from shivacmb.exceptions import TemporaryError

if TYPE_CHECKING:
    from shivacmb.bids import Found

DONE, RUNNING, FAILED = 'done', 'running', 'failed'
STOPPED, NOT_STARTED = 'stopped', 'not-started'
STATES = (DONE, RUNNING, FAILED, STOPPED, NOT_STARTED)
#: A run of which no more is known counts as under way for so long after its last sign of life:
#: its longest step, a prediction on a busy processor, is well within.
SILENCE_S = 1800.0
_TERMINATED = 'Terminated'
_STEM = re.compile(r'sub-(?P<participant>[A-Za-z0-9+]+)(_ses-(?P<session>[A-Za-z0-9+]+))?(_|$)')


@dataclass(frozen=True)
class ScanState:
    """How far one scan is.

    Attributes
    ----------
    participant, session, scan
        Whose scan it is, and the prefix of its outputs.
    state, reason
        One of ``STATES``, and a sentence for all but ``done``.
    microbleeds
        Their number in a scan that is done.
    job, run, log
        SLURM's number of the last run that took the scan on, the run's folder in ``OUT/logs``,
        and the file with the output of its SLURM task.
    """

    participant: str
    session: str | None
    scan: str
    state: str
    reason: str = ''
    microbleeds: int | None = None
    job: str | None = None
    run: str | None = None
    log: str | None = None


def scan_states(
    out_dir: Path,
    found: Found | None = None,
    unread: list[str] | None = None,
    log_dir: Path | None = None,
) -> list[ScanState]:
    """Find out how far each scan is.

    Parameters
    ----------
    out_dir : Path
        Root of the derivatives.
    found : Found, optional
        The scans to tell of; by default those that OUT knows, which leaves out what no run has
        taken on.
    unread : list of str, optional
        Gets a sentence for each participant whose records cannot be read.
    log_dir : Path, optional
        Of the SLURM tasks' output; by default ``OUT/logs/slurm``.

    Returns
    -------
    list of ScanState
        Sorted by participant, session and scan; without the scans of these participants.
    """
    logs = out_dir / 'logs'
    if found is None:
        participants = [path.name[4:] for path in sorted(logs.glob('sub-*'))]
    else:
        participants = sorted({scan.participant for scan in found.scans})
    records: dict[str, ScanRecord] = {}
    hidden = set()
    for label in participants:
        known = _records(out_dir, label, unread)
        hidden |= {label} if known is None else set()
        records |= {record.stem: record for record in known or ()}
    last: dict[str, RunNote] = {}
    for run in read_runs(out_dir):
        last.update(dict.fromkeys(run.scans, run))
    if found is None:
        stems: Iterable[str] = {*records, *(stem for stem in last if _STEM.match(stem))}
    else:
        stems = {scan.stem for scan in found.scans}
    stems = {stem for stem in stems if _whose(stem, records.get(stem))[0] not in hidden}
    watch = _Watch(last[stem] for stem in stems if stem in last and not _ok(records.get(stem)))
    states = [_state(out_dir, stem, records.get(stem), last.get(stem), watch) for stem in stems]
    if any(item.state == NOT_STARTED and not item.run for item in states):
        ends = task_ends(log_dir or logs / 'slurm')
        states = [_with_task(item, ends.get(item.participant)) for item in states]
    return sorted(states, key=lambda item: (item.participant, item.session or '', item.scan))


def _records(out_dir: Path, label: str, unread: list[str] | None) -> list[ScanRecord] | None:
    """Records of a participant; None when they cannot be read, which is noted."""
    try:
        return read_records(out_dir, label)
    except TemporaryError as error:
        if unread is not None:
            unread.append(f'nothing is told of sub-{label}: {error}')
        return None


def _with_task(state: ScanState, end: TaskEnd | None) -> ScanState:
    """Say of a scan that no run has taken on what became of its task."""
    if state.state != NOT_STARTED or state.run or end is None or not end.code:
        return state
    told = f'SLURM task {end.job} ended with exit code {end.code} before it took the scan on'
    if end.again:
        told += ', and was to be queued again'
    return replace(
        state,
        state=NOT_STARTED if end.again else STOPPED,
        reason=f'{told}; see <{end.log}>',
        job=end.job,
        log=str(end.log),
    )


def queued_tasks(states: Iterable[ScanState]) -> dict[str, int]:
    """Count the tasks that still wait, by the array jobs that scans were last seen in."""
    arrays = {item.job.partition('_')[0] for item in states if item.job and '_' in item.job}
    return slurm_queue.count_tasks(sorted(arrays)) if arrays else {}


def _ok(record: ScanRecord | None) -> bool:
    return record is not None and record.status == 'ok'


class _Watch:
    """Tells which runs are under way, and why others are not; SLURM is asked once for all."""

    def __init__(self, runs: Iterable[RunNote]) -> None:
        jobs = sorted({run.job for run in runs if run.job})
        self.queue: Mapping[str, str] | None = slurm_queue.jobs_in_queue(jobs) if jobs else {}
        gone = [job for job in jobs if self.queue is not None and job not in self.queue]
        self.endings = slurm_queue.endings(gone) if gone else {}

    def under_way(self, run: RunNote) -> str | None:
        """Return what a run is doing, or None when it does nothing any more."""
        state = self.queue.get(run.job) if self.queue and run.job else None
        if state == 'PENDING':
            return f'waits in the queue again (SLURM job {_job(run)})'
        if run.ended is not None:
            # Queued again, a task is completing, held or starting before the app says a word
            told = state is not None and run.ended.startswith(_TERMINATED)
            return (
                f'was told to end, and its job is {state} (SLURM job {_job(run)})'
                if told
                else None
            )
        alive = run.alive_here
        if alive is None and run.job and self.queue is not None:
            alive = state is not None
        if alive is None:
            alive = time.time() - run.last_sign < SILENCE_S
        return f'in {_where(run)}' if alive else None

    def why_stopped(self, run: RunNote) -> str:
        """Return why a run ended before it had a result for a scan."""
        said = self.endings.get(run.job or '')
        slurm = f'; SLURM says {said}' if said else ''
        slurm += f'; see <{run.log}>' if run.log else ''
        if run.ended is None:
            return (
                f'{_where(run)} ended without a word: killed, out of memory or time, or its node '
                f'failed{slurm}'
            )
        if run.ended.startswith(_TERMINATED):
            return f'{_where(run)} was told to end: time limit or scancel{slurm}'
        if run.ended.startswith('KeyboardInterrupt'):
            return f'{_where(run)} was interrupted'
        if run.ended == FINISHED:
            return f'{_where(run)} ended before it was reached{slurm}'
        return f'{_where(run)} ended: {run.ended}{slurm}'


def _job(run: RunNote) -> str:
    return run.task or run.job or ''


def _where(run: RunNote) -> str:
    return f'SLURM job {_job(run)}' if run.job else f'{run.name} on {run.host}'


def _whose(stem: str, record: ScanRecord | None) -> tuple[str, str | None]:
    """Labels of participant and session; what no record tells is in the names of outputs."""
    if record is not None:
        return record.participant, record.session
    match = _STEM.match(stem)
    return (match['participant'], match['session']) if match else ('', None)


def _state(
    out_dir: Path, stem: str, record: ScanRecord | None, run: RunNote | None, watch: _Watch
) -> ScanState:
    participant, session = _whose(stem, record)

    def state(name: str, reason: str = '', microbleeds: int | None = None) -> ScanState:
        made = ScanState(participant, session, stem, name, reason, microbleeds)
        if run is None:
            return made
        return replace(made, job=_job(run) or None, run=run.name, log=run.log)

    if record is not None and record.status == 'ok':
        if not output_paths(out_dir, record)['dseg'].exists():
            return state(NOT_STARTED, 'its results were removed')
        return state(DONE, microbleeds=record.cmb_count)
    doing = watch.under_way(run) if run is not None and stem not in run.written else None
    if run is not None and doing is not None:
        step = run.steps.get(stem)
        return state(RUNNING, doing + (f', last step done: {step}' if step else ''))
    if record is not None:
        return state(FAILED, record.reason or 'unknown reason')
    if run is not None:
        return state(STOPPED, watch.why_stopped(run))
    return state(NOT_STARTED, 'no run has taken it on')
