"""The JSON beside each output: where it comes from, what it is, how it was made."""

from __future__ import annotations

from typing import Any

#: Mask method of a scan whose mask came from the built-in network.
BUILTIN_MASK = 'builtin'
IMAGE_DESCRIPTIONS = {
    'preproc': 'Scan in the MNI axis order, resampled to isotropic voxels.',
    'net': "The network's own input: cropped to a box around the brain and scaled.",
    'brain_mask': 'Brain mask on the grid of the scan.',
    'probseg': 'Probability of a microbleed: mean over the folds of the ensemble.',
    'probseg_sd': 'Standard deviation over the folds of the ensemble.',
    'lesion_mask': 'Voxels of all microbleeds.',
    'zones': 'Zones of the brain; the table beside it names the values.',
    'dseg': 'Microbleeds, one value each; the table beside it has the same index.',
}


def image_sidecar(
    key: str, facts: dict[str, Any], found: dict[str, Any], columns: dict[str, Any]
) -> dict[str, Any]:
    """Build the sidecar of one output image.

    Parameters
    ----------
    key : str
        Key of ``IMAGE_DESCRIPTIONS``.
    facts : dict
        ``ScanPlan.facts``.
    found : dict
        What the run found: see ``shivacmb.interfaces.derivatives``.
    columns : dict
        Descriptions of the lesion table's columns; used with 'dseg'.

    Returns
    -------
    dict
        BIDS derivatives metadata (BIDS 1.10, "Common data types"), and the parameters under
        ``Parameters``.
    """
    checksums = [*facts.get('channel_sources', []), *facts.get('mask_sources', [])]
    further = {
        uri: item.rpartition('sha256:')[2]
        for uri, item in zip(facts.get('further_sources', []), checksums, strict=True)
    }
    sidecar: dict[str, Any] = {
        'Description': IMAGE_DESCRIPTIONS[key],
        'Sources': [facts['source'], *further],
        'InputSHA256': found['input_sha256'],
        **({'FurtherSourcesSHA256': further} if further else {}),
        'Parameters': {**facts['parameters'], 'mask_method': found['mask_method']},
        'Model': facts['model'],
        **_brain_model(facts, found),
        'Software': facts['versions'],
    }
    if key in ('preproc', 'net'):
        sidecar['SkullStripped'] = found['mask_method'] == 'background'
    if key == 'preproc':
        sidecar['Contrast'] = facts['contrast']
        sidecar['SelectedBecause'] = facts['reason']
        sidecar['Warnings'] = found['warnings']
    if key == 'net':
        if facts.get('channel_sources'):
            sidecar['Description'] = sidecar['Description'].replace(
                "The network's own input", "First channel of the network's own input"
            )
        sidecar['SkullStripped'] |= bool(facts['parameters']['masked'])
        sidecar['Resolution'] = (
            f'{facts["parameters"]["voxel_mm"]:g} mm isotropic, cropped to '
            f'{"x".join(str(size) for size in facts["parameters"]["box_shape"])} voxels'
        )
        sidecar['Grids'] = found['chain']
        sidecar['BrainVoxelsOutsideBox'] = found['voxels_outside']
    if key == 'brain_mask':
        sidecar.update(Type='Brain', SpatialReference='orig')
    if key == 'zones':
        sidecar['Model'] = facts['zones_model']
        sidecar.pop('BrainModel', None)
        sidecar['Parameters'] = {'mask_method': found['mask_method']}
    if key in ('probseg', 'probseg_sd', 'lesion_mask', 'zones', 'dseg'):
        sidecar['SpatialReference'] = 'orig'
    if key in ('probseg', 'probseg_sd', 'lesion_mask', 'dseg'):
        sidecar['Prediction'] = {
            name.title().replace('_', ''): value
            for name, value in found['prediction'].items()
            if value != ''
        }
    if key == 'lesion_mask':
        sidecar.update(Type='Lesion', Manual=False)
    if key == 'dseg':
        sidecar.update(columns)
    return sidecar


def _brain_model(facts: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of the built-in network where mask or zones are its work."""
    tasks = ['brain mask'] if found['mask_method'] == BUILTIN_MASK else []
    if facts['zones_model']:
        tasks.append('zones')
    return {'BrainModel': {**facts['brain_model'], 'UsedFor': tasks}} if tasks else {}
