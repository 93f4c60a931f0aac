"""What a run leaves in ``logs/``: settings, environment, how to cite."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.cli.boilerplate import methods_text
from shivacmb.cli.plans import versions

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings
    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection


@contextlib.contextmanager
def run_log(run_dir: Path) -> Iterator[logging.Logger]:
    """Open ``run.log`` of a run: a line for each step with its seconds.

    Timings are here and not in the tables, so that tables stay the same from run to run.
    """
    log = logging.getLogger(f'shivacmb.{run_dir.name}')
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.FileHandler(run_dir / 'run.log', encoding='utf-8')
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    log.addHandler(handler)
    try:
        yield log
    finally:
        handler.close()


def write_run_files(
    run_dir: Path, settings: Settings, detection: Detection, bundle: Bundle
) -> None:
    """Write ``settings.toml``, ``environment.toml`` and ``CITATION.md`` of a run.

    Parameters
    ----------
    run_dir : Path
        The run's own folder, so that array tasks share no file.
    settings : Settings
        Of the run.
    detection : Detection
        How scans are processed.
    bundle : Bundle
        The model.
    """
    import tomli_w

    (run_dir / 'settings.toml').write_text(settings.to_toml(), encoding='utf-8')
    environment = {
        'python': sys.version.split()[0],
        'platform': platform.platform(),
        'command': ' '.join(sys.argv),
        'nprocs': settings.nprocs,
        'omp_nthreads': settings.omp_nthreads,
        'slurm_job_id': os.environ.get('SLURM_JOB_ID', ''),
        'slurm_array_task_id': os.environ.get('SLURM_ARRAY_TASK_ID', ''),
        'versions': versions(detection),
    }
    (run_dir / 'environment.toml').write_text(tomli_w.dumps(environment), encoding='utf-8')
    (run_dir / 'CITATION.md').write_text(methods_text(detection, bundle) + '\n', encoding='utf-8')
