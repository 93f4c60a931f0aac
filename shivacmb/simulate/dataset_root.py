"""What a simulated dataset needs as a whole, and whether a folder may hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shivacmb import __version__
from shivacmb.bids import write_text
from shivacmb.exceptions import OutputError, UsageError
from shivacmb.simulate.files import remove_stale_stages, write_json

#: Settings of the simulation; a folder that holds it was begun by us.
RECORD = Path('code') / 'simulate.json'


def prepare_root(
    out_dir: Path,
    settings: Mapping[str, Any],
    *,
    name: str,
    readme: str,
    description: Mapping[str, Any],
    ignore: str,
) -> None:
    """Describe the dataset and its truth, or see that this was done with the same settings.

    Parameters
    ----------
    out_dir : Path
        New, empty, or begun before.
    settings : mapping
        Everything that decides the content; kept in :data:`RECORD`.
    name, readme : str
        Of the dataset; both serve the truth too.
    description : mapping
        More for ``dataset_description.json`` of the images.
    ignore : str
        Content of ``.bidsignore``.

    Raises
    ------
    UsageError
        When the folder holds something else.
    OutputError
        When it cannot be written.
    """
    record = out_dir / RECORD
    asked = json.loads(json.dumps(settings))
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        remove_stale_stages(out_dir)
        others = [path for path in out_dir.iterdir() if not path.name.startswith('.tmp-')]
        have = json.loads(record.read_text('utf-8')) if record.is_file() else None
    except OSError as error:
        raise OutputError(
            f'cannot use <{out_dir}> ({error.strerror or error}): give a folder that you may '
            'write to'
        ) from error
    except ValueError as error:
        raise _damaged(record) from error
    if have is not None:
        before = have.get('settings', {}) if isinstance(have, dict) else None
        if not isinstance(before, dict):
            raise _damaged(record)
        changed = [key for key in asked if before.get(key) != asked[key]]
        if changed:
            raise UsageError(
                f'<{out_dir}> holds a simulation with other settings ({", ".join(changed)}: see '
                f'<{record}>); repeat them, or give another folder'
            )
    elif others:
        raise UsageError(f'<{out_dir}> is not empty; give a new folder')
    common = {
        'BIDSVersion': '1.10.0',
        'GeneratedBy': [
            {'Name': 'shivacmb', 'Version': __version__, 'Description': 'shivacmb-tools simulate'}
        ],
    }
    truth = out_dir / 'derivatives' / 'truth'
    # first: with it the folder counts as ours, whatever ends this run
    write_json(record, {'software_version': __version__, 'settings': asked})
    write_json(
        out_dir / 'dataset_description.json',
        {'Name': name, 'DatasetType': 'raw', **common, **description},
    )
    write_json(
        truth / 'dataset_description.json',
        {
            'Name': f'Truth of: {name}',
            'DatasetType': 'derivative',
            'DatasetLinks': {'raw': '../..'},
            **common,
            **{key: description[key] for key in ('Authors', 'License') if key in description},
        },
    )
    write_text(out_dir / '.bidsignore', ignore)
    write_text(out_dir / 'README.md', readme)
    write_text(truth / 'README.md', readme)


def _damaged(record: Path) -> UsageError:
    return UsageError(f'<{record}> is damaged; give a new folder')
