"""The participant level: find, plan, process, report."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb import __version__
from shivacmb.bids.names import IMAGES, run_folder
from shivacmb.cli import plans as planning
from shivacmb.cli.failures import ReplacedInputError
from shivacmb.cli.main import check_writable, say
from shivacmb.exceptions import (
    DataError,
    NoInputError,
    OutputError,
    ShivaCMBError,
    TemporaryError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shivacmb.bids import Found, Scan
    from shivacmb.cli.engine import Plugin
    from shivacmb.cli.settings import Settings
    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection, ScanPlan

EXIT_SOME_FAILED = 1


def _needed(plan: ScanPlan) -> tuple[str, ...]:
    """What must still be there of a finished scan; figures may be rebuilt or left out."""
    images = [key for key in IMAGES if key != 'zones' or plan.facts['zones_model']]
    return (*images, *(f'{key}_json' for key in images), 'dseg_tsv')


def run_participants(settings: Settings) -> int:
    """Process the scans of the participants asked for.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Returns
    -------
    int
        0 all done, 1 some scans failed, or the failure's own code when every scan failed alike;
        with ``--dry-run`` 0 if any scan would be finished.
    """
    from shivacmb.models import find_bundle

    bundle = find_bundle(settings.model, settings.models_dir)
    detection = planning.build_detection(settings, bundle)
    planning.check_mask_tool(settings.mask)
    if settings.use_plugin is not None:
        from shivacmb.cli.engine import check_plugin, read_plugin

        check_plugin(read_plugin(settings.use_plugin), settings)
    if settings.boilerplate_only:
        from shivacmb.cli.boilerplate import methods_text

        given = settings.gives_masks
        rule = planning.parenchyma_rule(settings, bundle)
        text = methods_text(detection, bundle, given_masks=given, min_parenchyma=rule)
        sys.stdout.write(text + '\n')
        return 0
    found = search(settings)
    _tell_other_dataset(settings)
    if settings.dry_run:
        from shivacmb.cli.listing import print_listing

        failures = print_listing(found, settings, detection, bundle)
        return 0 if len(failures) < len(found.scans) else _code(settings, found, failures)
    check_writable(settings.out_dir)
    planning.verify_model(bundle, detection.engine)
    return _process(settings, found, detection, bundle)


def search(settings: Settings) -> Found:
    """Find the scans, and say what of the selection stands for nothing."""
    from shivacmb.bids import check_mask_pattern, find_scans, note_shared_mask, parse_labels

    def labels(values: tuple[str, ...], prefix: str) -> tuple[str, ...] | None:
        return parse_labels(values or None, prefix)

    found = find_scans(
        settings.bids_dir,
        participants=labels(settings.participant_label, 'sub-'),
        exclude=labels(settings.exclude_participant_label, 'sub-') or (),
        sessions=labels(settings.session_label, 'ses-'),
        filters=settings.bids_filter_file,
        modality=settings.modality,
        require_description=not settings.skip_bids_validation,
    )
    check_mask_pattern(settings.brain_mask, found.scans)
    shared = note_shared_mask(settings.brain_mask, found.scans)
    for sentence in (*found.mistyped, *([shared] if shared else [])):
        say(sentence)
    return found


def _tell_other_dataset(settings: Settings) -> None:
    """Say when OUT_DIR holds results of another folder; only the user knows if it was moved."""
    from shivacmb.bids import raw_dataset

    earlier = raw_dataset(settings.out_dir)
    if earlier in (None, settings.bids_dir.absolute().as_uri()):
        return
    say(
        f'OUT_DIR <{settings.out_dir}> holds results made from <{earlier}>, and BIDS_DIR is '
        f'<{settings.bids_dir}>: if it is the same dataset under another path, all is well; if it '
        'is another one, give it an OUT_DIR of its own, as results of the same names are replaced '
        'and the sources that all sidecars name (bids:raw:) are looked for in one dataset'
    )


def _process(settings: Settings, found: Found, detection: Detection, bundle: Bundle) -> int:
    from shivacmb.bids import (
        COUNTS_TABLE,
        read_record,
        record_path,
        remove_absence,
        write_absence,
        write_dataset_description,
        write_scans_table,
    )
    from shivacmb.cli.engine import choose_plugin
    from shivacmb.cli.pages import write_pages
    from shivacmb.cli.retire import retire
    from shivacmb.cli.runs import noted
    from shivacmb.interfaces.staging import remove_stale_staging
    from shivacmb.models import check_engine, check_gpu

    _tidy(settings.out_dir, found.scans)
    write_dataset_description(settings.out_dir, bids_dir=settings.bids_dir, version=__version__)
    unlisted = found.unlisted(settings.bids_dir)
    for participant in [name for name in found.missing if name not in unlisted]:
        if participant not in found.absent:
            write_absence(settings.out_dir, participant, found.why_missing(participant))
    # a label that is not in the dataset is a slip, no participant of the tables
    for participant in dict.fromkeys([*(scan.participant for scan in found.scans), *found.absent]):
        remove_absence(settings.out_dir, participant)
    prepared = [prepare(settings, scan, detection, bundle) for scan in found.scans]
    for _, plan in prepared:
        # as a failed scan it would lose the file with what earlier runs left of it
        if isinstance(plan, ReplacedInputError):
            raise plan
    todo, skipped, otherwise = [], 0, 0
    failures: dict[str, ShivaCMBError] = {}
    for scan, plan in prepared:
        if isinstance(plan, ShivaCMBError):
            failures[scan.stem] = plan
            continue
        try:
            if not settings.overwrite and is_done(settings, scan, plan):
                # A run killed right after it wrote the record has not written the table
                write_scans_table(settings.out_dir, scan.participant, scan.session)
                skipped += 1
                continue
            earlier = read_record(record_path(settings.out_dir, scan))
        except TemporaryError as error:
            # Of an earlier result that cannot be read nobody knows whether to replace it
            failures[scan.stem] = error
            continue
        todo.append(plan)
        hashed = plan.facts['record']['settings_hash']
        if earlier is not None and earlier.status == 'ok' and earlier.settings_hash != hashed:
            otherwise += 1
    results = _FailedScans(settings, prepared)
    results.add_if_possible(failures)
    if todo:
        plugin = choose_plugin(settings, len(todo))
        if plugin.local:
            # before anything is prepared, and before a scan is said to have failed
            check_gpu(detection.device)
            check_engine(detection.engine)
        if otherwise and not settings.quiet:
            say(
                f'{otherwise} scan(s) were finished with another model, version or settings and '
                'are processed again; their earlier results will be replaced'
            )
        participants = {plan.facts['record']['participant'] for plan in todo}
        run_dir = _make_run_dir(settings.out_dir, participants)
        with noted(run_dir, [plan.stem for plan in todo]):
            failures.update(
                run_plans(
                    settings, todo, detection, bundle, plugin, run_dir=run_dir,
                    on_failures=results.add_if_possible,
                )
            )  # fmt: skip
        remove_stale_staging(settings.out_dir / planning.STAGING)
    elif settings.write_graph and not settings.quiet:
        say('no scan is left to process, so no graph was written (--overwrite redoes them)')
    results.add(failures)
    retire(settings, found)
    write_pages(settings.out_dir, [scan for scan, _ in prepared])
    if todo and (settings.out_dir / COUNTS_TABLE).exists() and not settings.quiet:
        say(
            f'{COUNTS_TABLE}, the other tables of the group and docs/index.html are older than '
            'these results; run the level "group" again'
        )
    return _conclude(settings, found, failures, skipped)


def _tidy(out_dir: Path, scans: Sequence[Scan]) -> None:
    """Remove what a killed run left beside the outputs."""
    from shivacmb.bids import output_paths, remove_stale, remove_stale_locks
    from shivacmb.interfaces.staging import remove_stale_staging

    remove_stale_locks(out_dir)
    remove_stale_staging(out_dir / planning.STAGING)
    folders = {out_dir, out_dir / 'docs', out_dir / planning.STAGING}
    for scan in scans:
        paths = output_paths(out_dir, scan)
        folders |= {paths[key].parent for key in ('dseg', 'overview', 'record')}
        folders.add(paths['dseg'].parent.parent)
        folders |= set(paths['record'].parent.glob('run-*'))
    if len({scan.participant for scan in scans}) > 1:
        # a task of an array does not list what thousands of others left
        folders |= set((out_dir / 'logs').glob('run-*'))
    for folder in sorted(folders):
        remove_stale(folder)


def prepare(
    settings: Settings, scan: Scan, detection: Detection, bundle: Bundle
) -> tuple[Scan, ScanPlan | ShivaCMBError]:
    """Plan one scan; what is already known to be wrong with it is returned, not raised."""
    try:
        if not scan.not_here:
            scan.check()
        plan = planning.plan_scan(settings, scan, detection, bundle)
        # nothing needs the data of a finished scan, which may have been dropped
        if scan.not_here and (settings.overwrite or not is_done(settings, scan, plan)):
            scan.check()
        return scan, plan
    except ShivaCMBError as error:
        if scan.error in (None, str(error)):
            return scan, error
        # a mask may have been dropped like its scan
        return scan, DataError(f'{scan.error}; {error}' if scan.not_here else scan.error)
    except OSError as error:
        name = error.filename or scan.path
        said = f'cannot read <{name}>: {error.strerror}; check the file'
        return scan, DataError(scan.error or said)


def is_done(settings: Settings, scan: Scan, plan: ScanPlan) -> bool:
    """Tell whether a run with these settings would pass over a scan, as it is finished."""
    from shivacmb.bids import is_finished

    hashed = plan.facts['record']['settings_hash']
    return is_finished(settings.out_dir, scan, hashed, _needed(plan))


def run_plans(
    settings: Settings,
    todo: list[ScanPlan],
    detection: Detection,
    bundle: Bundle,
    plugin: Plugin,
    *,
    run_dir: Path,
    on_failures: Callable[[Mapping[str, ShivaCMBError]], None] | None = None,
) -> dict[str, ShivaCMBError]:
    """Run plans in graphs of a limited size, with one process that holds the networks.

    Parameters
    ----------
    settings : Settings
        Of the run.
    todo : list of ScanPlan
        The scans.
    detection : Detection
        How to process them.
    bundle : Bundle
        The model.
    plugin : Plugin
        Where nodes run.
    run_dir : Path
        Folder of this run alone: settings, environment, crash files, graph.
    on_failures : callable, optional
        Called after each graph with the failures so far.

    Returns
    -------
    dict
        Failure by ``ScanPlan.stem``.
    """
    from shivacmb.cli import engine
    from shivacmb.models.service import PredictionService

    work_dir = _work_dir(settings, run_dir.name)
    temporary = work_dir if settings.work_dir is None else None
    # The networks load while nipype is imported and the first scan is read
    requests = planning.networks_needed(todo, detection, bundle, settings.omp_nthreads)
    service = PredictionService(requests, temporary) if plugin.local else None
    failures: dict[str, ShivaCMBError] = {}
    try:
        from shivacmb.cli.progress import progress
        from shivacmb.cli.provenance import run_log, write_run_files
        from shivacmb.cli.retry import run_scans

        engine.configure_nipype(
            run_dir,
            verbose=settings.verbose,
            stop_on_first_crash=settings.stop_on_first_crash,
            local=plugin.local,
        )
        log_dir = run_dir if settings.analysis_level == 'scan' else settings.out_dir / 'logs'
        write_run_files(run_dir, log_dir, settings, detection, bundle)
        size = plugin.scans_per_graph
        run = engine.run_graph if settings.stop_on_first_crash else run_scans
        with progress(todo, quiet=settings.quiet) as on_scan, run_log(run_dir) as log:
            for start in range(0, len(todo), size):
                failures.update(
                    run(
                        todo[start : start + size],
                        detection,
                        plugin,
                        service=service.address if service else '',
                        omp_nthreads=settings.omp_nthreads,
                        work_dir=work_dir,
                        crash_dir=run_dir,
                        on_scan=on_scan,
                        log=log,
                        keep_work=settings.keep_work,
                        graph_dir=run_dir if settings.write_graph and start == 0 else None,
                    )
                )
                if on_failures is not None:
                    on_failures(failures)
                if failures and settings.stop_on_first_crash:
                    break
    finally:
        if service is not None:
            service.close()
        if not settings.keep_work and (not failures or settings.work_dir is None):
            shutil.rmtree(work_dir, ignore_errors=True)
    return failures


def _make_run_dir(out_dir: Path, participants: set[str]) -> Path:
    from shivacmb.cli.runs import array_task

    run_dir = run_folder(out_dir, _run_name(), participants, array_task())
    try:
        run_dir.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f'cannot make <{run_dir}> ({error.strerror}): free space, or give an output folder '
            'that you may write to'
        ) from error
    return run_dir


def _run_name() -> str:
    """Name of the run's folder: sorts by time, unique among array tasks that start together."""
    now = datetime.now(timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    return f'run-{now}-{secrets.token_hex(8)}'


def _work_dir(settings: Settings, run_name: str) -> Path:
    if settings.work_dir is None:
        return Path(tempfile.mkdtemp(prefix='shivacmb-work-'))
    work_dir = settings.work_dir / f'shivacmb-{run_name}-{os.getpid()}'
    try:
        # nipype keeps its own pickles in it: nobody else may write there
        work_dir.parent.mkdir(parents=True, exist_ok=True)
        work_dir.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(
            f'cannot make the work folder <{work_dir}>: {error.strerror}; choose another '
            '--work-dir'
        ) from error
    return work_dir


class _FailedScans:
    """Makes failures the results of their scans, each once."""

    def __init__(
        self, settings: Settings, prepared: Sequence[tuple[Scan, ScanPlan | ShivaCMBError]]
    ) -> None:
        self._settings = settings
        self._left = {scan.stem: (scan, plan) for scan, plan in prepared}

    def add(self, failures: Mapping[str, ShivaCMBError]) -> None:
        for stem in [stem for stem in self._left if stem in failures]:
            _record_failure(self._settings, *self._left[stem], failures[stem])
            del self._left[stem]

    def add_if_possible(self, failures: Mapping[str, ShivaCMBError]) -> None:
        """Add what a run that is killed would not tell; what cannot be written is for the end."""
        with contextlib.suppress(OutputError, TemporaryError):
            self.add(failures)


def _record_failure(
    settings: Settings, scan: Scan, plan: ScanPlan | ShivaCMBError, error: ShivaCMBError
) -> None:
    """Make a failure the scan's result, unless there is a better one.

    A scan that could not even be planned (a mistyped mask, say), that was not reached, or whose
    disk failed keeps what an earlier run found; so does one that another process finished in the
    meantime, and one of whose record nobody knows what it holds, as it cannot be read.
    """
    from shivacmb.bids import (
        ScanRecord,
        clear_outputs,
        retract,
        scan_lock,
        write_record,
        write_scans_table,
    )

    out_dir = settings.out_dir
    known = {} if isinstance(plan, ShivaCMBError) else plan.facts['record']
    settled = ('participant', 'session', 'stem', 'filename', 'status', 'reason', 'source')
    values = {key: value for key, value in known.items() if key not in (*settled, 'contrast')}
    record = ScanRecord.of(scan, status='failed', reason=str(error), **values)
    if _keeps_earlier(settings, scan, plan, error):
        return
    with scan_lock(out_dir, scan.stem):
        # Another process may have finished it while this one waited
        if _keeps_earlier(settings, scan, plan, error):
            return
        retract(out_dir, scan)
        clear_outputs(out_dir, scan)
        write_record(out_dir, record)
        # A record beside it that cannot be read: the scan that it is of says so, in its own run
        with contextlib.suppress(TemporaryError):
            write_scans_table(out_dir, scan.participant, scan.session)


def _keeps_earlier(
    settings: Settings, scan: Scan, plan: ScanPlan | ShivaCMBError, error: ShivaCMBError
) -> bool:
    """Whether what is known of a scan stands, though it failed now."""
    from shivacmb.bids import read_record, record_path
    from shivacmb.cli.failures import NotStartedError

    if isinstance(error, NotStartedError):
        return True
    try:
        earlier = read_record(record_path(settings.out_dir, scan))
    except TemporaryError:
        return True
    if isinstance(plan, ShivaCMBError) or isinstance(error, (TemporaryError, OutputError)):
        # A full disk or a file server that fails says nothing about the scan
        return earlier is not None and earlier.status == 'ok'
    return not settings.overwrite and is_done(settings, scan, plan)


def _conclude(
    settings: Settings, found: Found, failures: dict[str, ShivaCMBError], skipped: int
) -> int:
    """Print the summary and choose the exit code."""
    if found.scans and not settings.quiet:
        from shivacmb.cli.summary import print_summary

        print_summary(settings.out_dir, found.scans, skipped, failures)
    for stem, error in failures.items():
        say(f'{stem} failed: {error}')
    for left_out in found.left_out(settings.bids_dir).values():
        say(str(left_out))
    return _code(settings, found, list(failures.values()))


def _code(settings: Settings, found: Found, failures: Sequence[ShivaCMBError]) -> int:
    """Exit code of a run in which these scans fail and all others are finished."""
    if failures:
        return exit_code(failures, len(found.scans) + len(found.unreadable))
    if found.unreadable:
        return EXIT_SOME_FAILED if found.scans else TemporaryError.exit_code
    asked = settings.participant_label or not found.scans
    return NoInputError.exit_code if found.missing and asked else 0


def exit_code(failures: Sequence[ShivaCMBError], scans: int) -> int:
    """Exit code of a run over ``scans`` scans: 0 without failures, see ``run_participants``."""
    codes = {error.exit_code for error in failures}
    if len(failures) == scans and len(codes) == 1:
        return codes.pop()
    return EXIT_SOME_FAILED if failures else 0
