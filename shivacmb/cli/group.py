"""The group level: tables and an index over everything that is in OUT_DIR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shivacmb.cli.main import check_writable, say
from shivacmb.exceptions import NoInputError

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings

#: Scans named in one message; group_desc-CMB_summary.json lists them all.
MOST_NAMES = 10
#: Mask methods among which ``--mask auto`` chooses for each scan: no different settings.
_AUTO_MASKS = (None, 'builtin', 'background')
#: Settings that select scans, and are left empty by default.
_SELECT = (
    'participant_label', 'exclude_participant_label', 'session_label', 'bids_filter_file',
)  # fmt: skip


def run_group(settings: Settings) -> int:
    """Gather all scans of OUT_DIR; the raw data are not touched.

    Parameters
    ----------
    settings : Settings
        Of the run; ``--reports-only`` also rebuilds the page of every session.

    Returns
    -------
    int
        0, or 66 when OUT_DIR holds no scan.
    """
    from shivacmb.bids import write_group
    from shivacmb.cli.pages import write_all_pages, write_index_page, write_missing_pages

    if not settings.out_dir.is_dir():
        raise NoInputError(
            f'no such folder: <{settings.out_dir}>; run the participant level first'
        )
    check_writable(settings.out_dir)
    if without_effect := [name for name in _SELECT if getattr(settings, name)]:
        names = ', '.join('--' + name.replace('_', '-') for name in without_effect)
        say(f'all scans of OUT_DIR are gathered, whatever {names} says: that is for participant')
    if settings.reports_only:
        write_all_pages(settings.out_dir)
    written = write_group(settings.out_dir)
    write_missing_pages(settings.out_dir, written.records)
    write_index_page(settings.out_dir, written.records, written.without)
    for scans in written.same_image:
        named = ' and '.join(scans[:MOST_NAMES])
        if len(scans) > MOST_NAMES:
            named += f' and {len(scans) - MOST_NAMES} more'
        say(
            f'{named} are the same image and count separately; if one was renamed, '
            'remove its old results from OUT_DIR and OUT_DIR/logs'
        )
    made = {
        (
            record.model, record.model_version, record.threshold, record.min_voxels,
            record.outline_threshold, record.toolkit, record.software_version,
            None if record.brain_mask in _AUTO_MASKS else record.brain_mask,
        )
        for record in written.records if record.status == 'ok'
    }  # fmt: skip
    rules: dict[str | None, set[float]] = {}
    for record in written.records:
        if record.status == 'ok':
            rules.setdefault(record.contrast, set()).add(record.min_parenchyma or 0.0)
    if len(made) > 1 or any(len(shares) > 1 for shares in rules.values()):
        say(
            'different models, versions or settings were used: the scans cannot be '
            f'compared as they stand; see the columns of <{written.counts}>'
        )
    if not settings.quiet:
        print(
            f'{written.scans} scan(s): {written.ok} ok, {written.failed} failed\n'
            f'Table: {written.counts}\n'
            f'Pages: {settings.out_dir / "docs" / "index.html"}'
        )
    return 0
