"""What a run leaves in ``logs/``: settings, environment, how to cite."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.cli.boilerplate import methods_text
from shivacmb.cli.plans import parenchyma_rule, versions

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings
    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection


class _Handler(logging.FileHandler):
    """Does without a line where the disk is full: timings are not worth a run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: the scans of the run tell of the disk."""


@contextlib.contextmanager
def run_log(run_dir: Path) -> Iterator[logging.Logger]:
    """Open ``run.log`` of a run: a line for each step with its seconds.

    Timings are here and not in the tables, so that tables stay the same from run to run.
    """
    log = logging.getLogger(f'shivacmb.{run_dir.name}')
    log.setLevel(logging.INFO)
    log.propagate = False
    # Opened with the first line: a full disk then is the same to it as later
    handler = _Handler(run_dir / 'run.log', encoding='utf-8', delay=True)
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    log.addHandler(handler)
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            handler.close()


def write_run_files(
    run_dir: Path, log_dir: Path, settings: Settings, detection: Detection, bundle: Bundle
) -> None:
    """Write ``settings.toml``, with a table of the environment, and the methods text of a run.

    Parameters
    ----------
    run_dir : Path
        The run's own folder, so that array tasks share no file.
    log_dir : Path
        Where the methods text goes, under a name made from its content.
    settings : Settings
        Of the run.
    detection : Detection
        How scans are processed.
    bundle : Bundle
        The model.
    """
    import tomli_w

    from shivacmb.bids import write_text

    rule = parenchyma_rule(settings, bundle)
    given = settings.gives_masks
    methods = methods_text(detection, bundle, given_masks=given, min_parenchyma=rule) + '\n'
    # one file for all runs with these settings: ten thousand tasks need not write it each
    name = f'CITATION-{hashlib.sha256(methods.encode()).hexdigest()[:8]}.md'
    environment = {
        'python': sys.version.split()[0],
        'platform': platform.platform(),
        'command': ' '.join(sys.argv),
        'nprocs': settings.nprocs,
        'omp_nthreads': settings.omp_nthreads,
        'slurm_job_id': os.environ.get('SLURM_JOB_ID', ''),
        'slurm_array_task_id': os.environ.get('SLURM_ARRAY_TASK_ID', ''),
        'citation': name,
        'versions': versions(detection),
    }
    text = settings.to_toml() + '\n' + tomli_w.dumps({'environment': environment})
    write_text(run_dir / 'settings.toml', text)
    write_text(log_dir / name, methods)
