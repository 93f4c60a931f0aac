"""Names of everything that is written for a scan.

Entities follow the order of the BIDS schema (1.11); every name passes bids-validator 3, those
with the suffix ``swi`` by a line of .bidsignore.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from shivacmb.exceptions import OutputError

#: Images of a scan: key -> (res, label, desc, suffix); suffix None stands for the scan's own.
IMAGES: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    'preproc': (None, None, 'preproc', None),
    'net': ('net', None, 'preproc', None),
    'brain_mask': (None, None, 'brain', 'mask'),
    'probseg': (None, 'CMB', None, 'probseg'),
    'probseg_sd': (None, 'CMB', 'ensSD', 'probseg'),
    'lesion_mask': (None, 'CMB', None, 'mask'),
    'zones': (None, None, 'zones', 'dseg'),
    'dseg': (None, None, 'CMB', 'dseg'),
}


class HasOutputs(Protocol):
    """A scan or its record: what the names of outputs are made from."""

    @property
    def participant(self) -> str:
        """Label without prefix."""

    @property
    def session(self) -> str | None:
        """Label without prefix, or None."""

    @property
    def stem(self) -> str:
        """Prefix of every output."""

    @property
    def out_suffix(self) -> str:
        """Suffix of images derived from the scan."""


def session_prefix(participant: str, session: str | None) -> str:
    """Return ``sub-X`` or ``sub-X_ses-Y``."""
    return f'sub-{participant}' if session is None else f'sub-{participant}_ses-{session}'


def session_dir(out_dir: str | Path, participant: str, session: str | None) -> Path:
    """Return the folder ``OUT/sub-X[/ses-Y]``."""
    folder = Path(out_dir) / f'sub-{participant}'
    return folder if session is None else folder / f'ses-{session}'


def output_path(
    out_dir: str | Path,
    scan: HasOutputs,
    *,
    suffix: str | None = None,
    extension: str = '.nii.gz',
    res: str | None = None,
    label: str | None = None,
    desc: str | None = None,
) -> Path:
    """Path of one derivative of a scan.

    Parameters
    ----------
    suffix
        None takes the scan's own (``T2starw`` or ``swi``).
    res, label, desc
        Values of these entities, left out when None.
    """
    words = [scan.stem]
    words += [
        f'{key}-{value}'
        for key, value in (('res', res), ('label', label), ('desc', desc))
        if value is not None
    ]
    words.append(suffix or scan.out_suffix)
    folder = session_dir(out_dir, scan.participant, scan.session) / 'anat'
    return folder / ('_'.join(words) + extension)


def output_paths(out_dir: str | Path, scan: HasOutputs) -> dict[str, Path]:
    """Every file that belongs to a scan.

    Returns
    -------
    dict
        ``preproc``, ``net``, ``brain_mask``, ``probseg``, ``probseg_sd``, ``lesion_mask``,
        ``zones``, ``dseg`` (images) and each with ``_json`` (sidecar); ``dseg_tsv`` (lesion
        table); ``zones_tsv`` (names of the zones, one file for all scans); ``record``;
        ``overview``, ``lesions`` (figures). The scan table and the report page belong to the
        session: ``scans_table_paths``, ``report_path``.
    """
    paths: dict[str, Path] = {}
    for key, (res, label, desc, suffix) in IMAGES.items():
        for tail, extension in (('', '.nii.gz'), ('_json', '.json')):
            paths[key + tail] = output_path(
                out_dir,
                scan,
                res=res,
                label=label,
                desc=desc,
                suffix=suffix,
                extension=extension,
            )
    paths['dseg_tsv'] = output_path(out_dir, scan, desc='CMB', suffix='dseg', extension='.tsv')
    # the same for every scan: by the inheritance principle one table at the root names them all
    paths['zones_tsv'] = Path(out_dir) / 'desc-zones_dseg.tsv'
    paths['record'] = record_path(out_dir, scan)
    figures = Path(out_dir) / 'docs' / 'figures' / f'sub-{scan.participant}'
    for figure in ('overview', 'lesions'):
        paths[figure] = figures / f'{scan.stem}_{figure}.png'
    return paths


def scans_filename(scan: HasOutputs, *, ok: bool) -> str:
    """Value of ``filename`` in the scan table, relative to the session's folder.

    BIDS demands that the file exists. A finished scan is named by its label map; a failed one
    has no image and is named by the sidecar that says why (docs/decisions/0033).
    """
    extension = '.nii.gz' if ok else '.json'
    return f'anat/{scan.stem}_desc-CMB_dseg{extension}'


def record_path(out_dir: str | Path, scan: HasOutputs) -> Path:
    """Path of the record from which the tables are made."""
    return Path(out_dir) / 'logs' / f'sub-{scan.participant}' / f'{scan.stem}.json'


def run_folder(
    out_dir: str | Path,
    name: str,
    participants: Collection[str],
    task: tuple[str, int] | None = None,
) -> Path:
    """Folder of one run's settings, log and crash files.

    That of a run over one participant, of which a job array makes thousands, lies with the
    participant's records; that of another array task in a folder of its array and thousand;
    others lie in ``logs/`` itself (docs/decisions/0104, 0112).

    Parameters
    ----------
    out_dir
        Root of the derivatives.
    name
        Of the run, ``run-...``.
    participants
        Labels without prefix.
    task
        SLURM's number of the array and of the task in it.
    """
    logs = Path(out_dir) / 'logs'
    if len(participants) == 1:
        (label,) = participants
        return logs / f'sub-{label}' / name
    if task is not None:
        array, thousand = task[0], task[1] // 1000
        return logs / (f'array-{array}-{thousand}' if thousand else f'array-{array}') / name
    return logs / name


def run_folders(out_dir: str | Path) -> list[Path]:
    """Folders of all runs, by the time they started."""
    logs = Path(out_dir) / 'logs'
    found = [*logs.glob('run-*'), *logs.glob('array-*/run-*'), *logs.glob('sub-*/run-*')]
    return sorted(found, key=lambda path: path.name)


def scans_table_paths(
    out_dir: str | Path, participant: str, session: str | None
) -> tuple[Path, Path]:
    """Paths of the scan table of a session and of its data dictionary."""
    folder = session_dir(out_dir, participant, session)
    stem = session_prefix(participant, session)
    return folder / f'{stem}_scans.tsv', folder / f'{stem}_scans.json'


def report_path(out_dir: str | Path, participant: str, session: str | None) -> Path:
    """Path of the report page of a session."""
    return Path(out_dir) / 'docs' / f'{session_prefix(participant, session)}.html'


def leftovers(out_dir: str | Path, scan: HasOutputs) -> list[Path]:
    """Everything that any run may have written for a scan, whichever suffix it had.

    The record comes first: once it is gone the scan counts as unfinished.
    """
    paths = output_paths(out_dir, scan)
    record = paths.pop('record')
    # belongs to all scans
    del paths['zones_tsv']
    others = list(paths.values())
    others.append(output_path(out_dir, scan, desc='zones', suffix='dseg', extension='.tsv'))
    others += [
        output_path(out_dir, scan, suffix=suffix, res=res, desc='preproc', extension=extension)
        for suffix in ('T2starw', 'swi')
        for res in (None, 'net')
        for extension in ('.nii.gz', '.json')
    ]
    return list(dict.fromkeys([record, *others]))


def clear_outputs(out_dir: str | Path, scan: HasOutputs) -> list[Path]:
    """Remove what an earlier run left of a scan; see :func:`leftovers`.

    To be called when a scan has failed, so that images of other settings do not lie beside its
    message.
    """
    return [path for path in leftovers(out_dir, scan) if _unlink(path)]


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(
            f'cannot remove <{path}> of an earlier run ({error.strerror}): give an output folder '
            'that you may write to'
        ) from error
    return True
