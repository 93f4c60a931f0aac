"""Ask pybids about a few participants of a large dataset without letting it walk the dataset.

pybids indexes everything below its root and stats every entry several times on the way. So it is
given a root of its own: a temporary folder with empty files of the same names, for the wanted
participants only. It parses and queries those; the dataset itself is touched by one listing per
folder (docs/decisions/0030).
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shivacmb.exceptions import OutputError, UsageError

#: What pybids is told of the shadow; the real description is checked by the caller.
_DESCRIPTION = {'Name': 'shadow', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}


def query_entities(files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return pybids' reading of NIfTI names.

    Parameters
    ----------
    files
        Pairs of datatype folder (``anat``, ``swi``) and file name. The folders of participant and
        session are left out: pybids reads both from the name, and making and removing a folder
        for each of ten thousand participants would cost more than all the rest.

    Returns
    -------
    dict
        For each pair the entities under pybids' long names, with ``suffix``, ``extension`` and,
        for folders that BIDS knows, ``datatype``. Names that pybids does not index are absent.

    Raises
    ------
    OutputError
        When there is no room for a temporary folder.
    """
    wanted = sorted(set(files))
    if not wanted:
        return {}
    try:
        with tempfile.TemporaryDirectory(prefix='shivacmb-names-') as folder:
            # resolved, because pybids resolves its root and the paths must be comparable
            return _query(Path(folder).resolve(), wanted)
    except OSError as error:
        raise OutputError(
            f'cannot make a temporary folder of empty files ({error}): let TMPDIR name a folder '
            'that you may write to'
        ) from error


def _pybids() -> tuple[Any, Any]:
    """Import pybids as it comes: settings of its own in the user's home must not change names."""
    try:
        from bids import config
        from bids.layout import BIDSLayout, BIDSLayoutIndexer
    except (ValueError, OSError) as error:
        raise UsageError(
            f'pybids cannot read its settings ({error}): mend or remove pybids_config.json in '
            'your home and in the present folder'
        ) from error
    config.reset_options()
    return BIDSLayout, BIDSLayoutIndexer


def _query(root: Path, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    BIDSLayout, BIDSLayoutIndexer = _pybids()  # noqa: N806  classes

    (root / 'dataset_description.json').write_text(json.dumps(_DESCRIPTION))
    for datatype, name in wanted:
        (root / datatype).mkdir(exist_ok=True)
        (root / datatype / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
        layout = BIDSLayout(root, validate=False, indexer=indexer)
    found = layout.get(extension=['.nii', '.nii.gz'])
    result = {
        (Path(item.path).parent.name, item.filename): dict(item.get_entities()) for item in found
    }
    layout.connection_manager.session.close()
    return result
