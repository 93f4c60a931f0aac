"""Settle results whose image is no scan of the dataset any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.bids import find_departed, remove_outputs
from shivacmb.cli.main import say
from shivacmb.cli.pages import write_page

if TYPE_CHECKING:
    from shivacmb.bids import Found
    from shivacmb.cli.settings import Settings


def retire(settings: Settings, found: Found) -> None:
    """Remove results of images that another result stands for by now, and name those gone.

    Parameters
    ----------
    settings : Settings
        Of the run.
    found : Found
        What it looked at; results of other participants are left alone.
    """
    participants = dict.fromkeys([*(scan.participant for scan in found.scans), *found.missing])
    departed = find_departed(settings.out_dir, settings.bids_dir, participants, found.scans)
    for item in departed:
        record = item.record
        if not item.settled:
            path = Path('logs', f'sub-{record.participant}', f'{record.stem}.json')
            say(
                f'{record.stem} still counts, though its image ({record.source}) is not in the '
                f'dataset any more; to leave it out, remove <{settings.out_dir / path}>'
            )
            continue
        remove_outputs(settings.out_dir, record)
        write_page(settings.out_dir, record.participant, record.session)
        if item.successor is None or settings.quiet:
            continue
        if item.renamed:
            say(f'{record.stem} is {item.successor.stem} now; its earlier results were removed')
        else:
            say(
                f'{item.successor.stem} is read of its acquisition now, no longer {record.stem}, '
                'whose earlier results were removed (--dry-run says why); an OUT_DIR of its own '
                'keeps results of another choice'
            )
