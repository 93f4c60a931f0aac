"""Ask pybids about a few participants of a large dataset without letting it walk the dataset.

pybids indexes everything below its root and stats every entry on the way. So it is given a root
of its own: a temporary folder with empty files of the same names, for the wanted participants
only. It parses and queries those; the dataset itself is touched by one listing per folder
(docs/decisions/0030).
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: What pybids is told of the shadow; the real description is checked by the caller.
_DESCRIPTION = {'Name': 'shadow', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}


def query_entities(relative_paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return pybids' reading of NIfTI names, keyed by path.

    Parameters
    ----------
    relative_paths
        POSIX paths from the root of the dataset (``sub-01/anat/sub-01_T2starw.nii.gz``).

    Returns
    -------
    dict
        Entities under pybids' long names, with ``suffix``, ``extension`` and, for folders that
        BIDS knows, ``datatype``. Paths that pybids does not index are absent.
    """
    paths = list(relative_paths)
    if not paths:
        return {}
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    with tempfile.TemporaryDirectory(prefix='shivacmb-names-') as folder:
        # resolved, because pybids resolves its root and the paths must be comparable
        root = Path(folder).resolve()
        (root / 'dataset_description.json').write_text(json.dumps(_DESCRIPTION))
        parents: set[Path] = set()
        for relative in paths:
            target = root / relative
            if target.parent not in parents:
                target.parent.mkdir(parents=True, exist_ok=True)
                parents.add(target.parent)
            target.touch()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            layout = BIDSLayout(
                root,
                validate=False,
                indexer=BIDSLayoutIndexer(validate=False, index_metadata=False),
            )
        found = layout.get(extension=['.nii', '.nii.gz'])
        result = {
            Path(item.path).relative_to(root).as_posix(): dict(item.get_entities())
            for item in found
        }
        layout.connection_manager.session.close()
    return result
