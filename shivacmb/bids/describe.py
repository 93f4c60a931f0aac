"""Describe the output folder as a BIDS derivative dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shivacmb.bids.files import read_result, write_text
from shivacmb.exceptions import UsageError

BIDS_VERSION = '1.10.0'
#: Names that BIDS 1.11 does not know: images that keep the suffix of a ``swi`` input, and the
#: tables over all participants. Written whether needed or not, so that every process writes the
#: same file (docs/decisions/0034).
BIDSIGNORE = '*_swi.*\ngroup_*\n'

DESCRIPTIONS: dict[str, str] = {
    'preproc': 'Image reoriented to the axes of standard space and resampled to cubic voxels; '
    'with res-net cropped around the brain and scaled as the network receives it.',
    'brain': 'Mask of the brain.',
    'zones': 'Coarse zones of the brain, with a table of their names.',
    'CMB': 'Cerebral microbleeds, one label for each lesion, with a table of the lesions.',
    'ensSD': 'Standard deviation of the probability over the networks of the ensemble.',
}

README = """\
# Cerebral microbleeds found by shivacmb

**For research only: not a medical device, not for diagnosis.**

One folder for each participant. In `anat/`, named after the input image:

| file | content |
|---|---|
| `*_desc-preproc_*.nii.gz` | image on standard axes, cubic voxels |
| `*_res-net_desc-preproc_*.nii.gz` | what the network received |
| `*_desc-brain_mask.nii.gz` | brain mask, grid of the input |
| `*_desc-zones_dseg.nii.gz` | zones of the brain, named in `desc-zones_dseg.tsv` at the root |
| `*_label-CMB_probseg.nii.gz` | probability, mean of the ensemble, grid of the input |
| `*_label-CMB_desc-ensSD_probseg.nii.gz` | its standard deviation over the ensemble |
| `*_label-CMB_mask.nii.gz` | mask of all microbleeds, grid of the input |
| `*_desc-CMB_dseg.nii.gz` | one label for each microbleed, grid of the input |
| `*_desc-CMB_dseg.tsv` | table of the microbleeds; `index` is the label |
| `*_desc-CMB_dseg.json` | columns of the table, settings and sources |

`sub-*_scans.tsv` has one row for each scan: outcome, number and volume of the microbleeds, burden
class, numbers by group of zones, settings. A failed scan has a row with the reason, and its
`*_desc-CMB_dseg.json` says it too. `docs/` holds the reports, `logs/` one record for each scan,
from which the tables are made, and what tells of each run: settings, environment, log.

After the group level: `participants.tsv` (totals of each participant),
`group_desc-CMB_counts.tsv` (all scans in one table) and `group_desc-CMB_summary.json`. They show
the participants that were there at that moment; run the group level again after adding some.
"""


def _container() -> dict[str, str] | None:
    """Return what the environment tells of the container that this runs in, or None."""
    env = os.environ
    image = env.get('APPTAINER_CONTAINER') or env.get('SINGULARITY_CONTAINER')
    tag = env.get('SHIVACMB_CONTAINER_TAG')
    if not image and not tag:
        return None
    facts = {'Type': 'apptainer' if image else 'docker'}
    facts['Tag'] = tag or Path(image or '').name
    if env.get('SHIVACMB_CONTAINER_URI'):
        facts['URI'] = env['SHIVACMB_CONTAINER_URI']
    return facts


def dataset_description(
    *,
    bids_dir: str | Path,
    version: str,
    license_name: str | None = None,
    code_url: str | None = None,
) -> dict[str, Any]:
    """Return the content of dataset_description.json.

    Parameters
    ----------
    bids_dir
        The raw dataset, which ``bids:raw:`` in the sidecars stands for.
    version
        Version of shivacmb.
    license_name
        Licence of the outputs; it is the user's to decide, so it is left out by default.
    code_url
        Where the code can be had.
    """
    generated: dict[str, Any] = {'Name': 'shivacmb', 'Version': version}
    if code_url:
        generated['CodeURL'] = code_url
    container = _container()
    if container is not None:
        generated['Container'] = container
    raw = Path(bids_dir).absolute()
    source: dict[str, str] = {'URL': raw.as_uri()}
    doi = _raw_description(raw).get('DatasetDOI')
    if isinstance(doi, str) and doi:
        source['DOI'] = doi
    content: dict[str, Any] = {
        'Name': 'shivacmb: cerebral microbleeds',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [generated],
        'SourceDatasets': [source],
        'DatasetLinks': {'raw': raw.as_uri()},
        'HowToAcknowledge': 'Please name shivacmb with its version, and cite the publication of '
        'the model that the sidecars name.',
    }
    if license_name:
        content['License'] = license_name
    return content


def _raw_description(bids_dir: Path) -> Mapping[str, Any]:
    try:
        return _parsed((bids_dir / 'dataset_description.json').read_bytes())
    except OSError:
        return {}


def _parsed(raw: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(raw.decode('utf-8-sig'))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_output_folder(out_dir: Path) -> None:
    """Refuse to write into the dataset of another program.

    Its description would be lost, and so would files that happen to have the same name: fMRIPrep's
    brain masks do.

    Raises
    ------
    UsageError
        ``out_dir`` has a dataset_description.json that does not name shivacmb.
    TemporaryError
        It cannot be read.
    """
    raw = read_result(Path(out_dir) / 'dataset_description.json', Path.read_bytes)
    if raw is None:
        return
    content = _parsed(raw)
    made = content.get('GeneratedBy')
    makers = made if isinstance(made, list) else [made]
    if any(isinstance(maker, Mapping) and maker.get('Name') == 'shivacmb' for maker in makers):
        return
    name = content.get('Name')
    called = f' ({name})' if isinstance(name, str) and name else ''
    raise UsageError(
        f'OUT_DIR <{out_dir}> holds a dataset{called} that shivacmb did not make, and nothing was '
        'changed there; give a folder of its own, and see whether BIDS_DIR and OUT_DIR are swapped'
    )


def raw_dataset(out_dir: str | Path) -> str | None:
    """URI of the dataset that the results of a folder were made from, or None.

    Raises
    ------
    TemporaryError
        When the description is there and cannot be read.
    """
    raw = read_result(Path(out_dir) / 'dataset_description.json', Path.read_bytes)
    links = _parsed(raw or b'').get('DatasetLinks')
    found = links.get('raw') if isinstance(links, Mapping) else None
    return found if isinstance(found, str) else None


def write_dataset_description(
    out_dir: str | Path,
    *,
    bids_dir: str | Path,
    version: str,
    license_name: str | None = None,
    code_url: str | None = None,
) -> list[Path]:
    """Write dataset_description.json, README.md, .bidsignore and descriptions.tsv/.json.

    Each file is written under a temporary name and renamed, and left alone when it already has
    the content: any number of processes may call this at once.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    OutputError
        When the folder cannot be written.
    """
    root = Path(out_dir)
    description = dataset_description(
        bids_dir=bids_dir, version=version, license_name=license_name, code_url=code_url
    )
    table = 'desc_id\tdescription\n' + ''.join(
        f'desc-{key}\t{text}\n' for key, text in DESCRIPTIONS.items()
    )
    columns = {
        'desc_id': {'Description': 'Value of the entity desc in file names.'},
        'description': {'Description': 'What files with it contain.'},
    }
    files = {
        'dataset_description.json': json.dumps(description, indent=2, ensure_ascii=False) + '\n',
        'README.md': README,
        '.bidsignore': BIDSIGNORE,
        'descriptions.tsv': table,
        'descriptions.json': json.dumps(columns, indent=2) + '\n',
    }
    return [root / name for name, text in files.items() if write_text(root / name, text)]
