"""What ``--dry-run`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shivacmb.bids import Found, Scan
    from shivacmb.cli.settings import Settings
    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection, ScanPlan


def print_listing(
    found: Found, settings: Settings, detection: Detection, bundle: Bundle
) -> list[ShivaCMBError]:
    """Print the scans, why each was chosen, and what was passed over and why.

    Of the images that would be processed the headers are read, not the voxels: a run may still
    refuse one whose values are all the same, say.

    Parameters
    ----------
    found : Found
        Result of the search.
    settings : Settings
        Of the run.
    detection : Detection
        How the scans would be processed.
    bundle : Bundle
        The model.

    Returns
    -------
    list of ShivaCMBError
        Why scans would fail.
    """
    from shivacmb.cli.plans import parenchyma_rule
    from shivacmb.cli.run import prepare
    from shivacmb.exceptions import ShivaCMBError

    failures: list[ShivaCMBError] = []
    to_process = 0
    lines = [f'{len(found.scans)} scan(s) in <{settings.bids_dir}>']
    for scan in found.scans:
        lines.append(f'  {scan.relative_path}')
        lines.append(f'    {scan.contrast}: {scan.reason}')
        _, plan = prepare(settings, scan, detection, bundle)
        try:
            if isinstance(plan, ShivaCMBError):
                raise plan
            done, said = _expected(settings, scan, plan)
        except ShivaCMBError as error:
            failures.append(error)
            lines.append(f'    would fail: {error}')
        else:
            to_process += not done
            lines += said
    if found.passed_over:
        lines.append(f'{len(found.passed_over)} file(s) passed over')
        for item in found.passed_over:
            lines.append(f'  {_relative(item.path, settings)}')
            lines.append(f'    {item.reason}')
    without = [label for label in found.missing if label not in found.absent]
    if without:
        lines.append(f'{len(without)} participant(s) without a usable scan')
        lines += [f'  sub-{participant}' for participant in without]
    lines += [f'no sub-{participant} in <{settings.bids_dir}>' for participant in found.absent]
    rule = {name: share for name, share in parenchyma_rule(settings, bundle).items() if share}
    tissue = ''.join(f', {100 * x:g} % brain tissue around in {c}' for c, x in rule.items())
    lines.append(
        f'model {bundle.name} {bundle.version}, toolkit {detection.toolkit}, engine '
        f'{detection.engine}, threshold {detection.threshold:g}, at least '
        f'{detection.min_voxels} voxels{tissue}'
    )
    if to_process:
        lines += _missing_here(settings, detection, to_process)
    if failures:
        lines.append(f'{len(failures)} of {len(found.scans)} would fail')
    print('\n'.join(lines))
    return failures


def _missing_here(settings: Settings, detection: Detection, scans: int) -> list[str]:
    """Say that a run would stop for want of GPU or engine; no failure, it may run elsewhere."""
    from shivacmb.cli.engine import choose_plugin
    from shivacmb.exceptions import ModelError, TemporaryError
    from shivacmb.models import check_engine, check_gpu

    if choose_plugin(settings, scans).local:
        try:
            check_gpu(detection.device)
            check_engine(detection.engine)
        except (TemporaryError, ModelError) as error:
            return [
                f'on this machine, unless it is meant for another, the run would stop: {error}'
            ]
    return []


def _expected(settings: Settings, scan: Scan, plan: ScanPlan) -> tuple[bool, list[str]]:
    """Say whether a scan is finished, and what a run would do; a bad header is raised."""
    from shivacmb.cli.run import is_done
    from shivacmb.imaging import check_header

    done = not settings.overwrite and is_done(settings, scan, plan)
    if done:
        lines, notes = ['finished with the same settings: would be skipped'], scan.warnings
    else:
        notes = (*scan.warnings, *check_header(scan.path))
        mask = f' with the mask <{plan.brain_mask}>' if plan.brain_mask else ''
        lines = [f'would be processed{mask}']
    return done, [f'    {line}' for line in (*lines, *(f'note: {note}' for note in notes))]


def _relative(path: Path, settings: Settings) -> str:
    return str(path.relative_to(settings.bids_dir) if settings.bids_dir in path.parents else path)
