"""The methods text of a run, from the settings that were used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shivacmb import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection

_MASKS = {
    'auto': 'the background of skull-stripped scans, and the built-in network for the others',
    'builtin': 'the built-in network',
    'background': 'the background of the skull-stripped scans',
    'bet': 'BET (Smith 2002)',
    'synthstrip': 'SynthStrip (Hoopes et al. 2022)',
    'hd-bet': 'HD-BET (Isensee et al. 2019)',
}
_MASK_REFERENCES = {
    'bet': 'Smith SM. Fast robust automated brain extraction. Hum Brain Mapp 2002;17:143-155.',
    'synthstrip': 'Hoopes A, et al. SynthStrip: skull-stripping for any brain image. NeuroImage '
    '2022;260:119474.',
    'hd-bet': 'Isensee F, et al. Automated brain extraction of multisequence MRI using artificial '
    'neural networks. Hum Brain Mapp 2019;40:4952-4964.',
}
_ZONES = (
    'Each lesion was assigned to a zone of the brain (cerebral cortex or white matter, basal '
    'ganglia with the capsules, thalamus, brainstem, cerebellum) with the built-in network and an '
    'atlas that is laid on what it sees, both made from simulated heads. '
)
_CONTRASTS = {'T2starw': 'T2*-GRE', 'swi': 'SWI'}


def methods_text(
    detection: Detection,
    bundle: Bundle,
    *,
    given_masks: bool = False,
    min_parenchyma: Mapping[str, float] | None = None,
) -> str:
    """Write the paragraph that a paper may use, and what to cite.

    Parameters
    ----------
    detection : Detection
        How scans were processed.
    bundle : Bundle
        The model.
    given_masks : bool
        Whether masks were named with ``--brain-mask`` or ``--derivatives``; a scan without one
        fails, so that no other method has a part in it.
    min_parenchyma : mapping, optional
        Share of brain tissue that must surround a lesion, by contrast.

    Returns
    -------
    str
        Markdown, free to copy (CC0).
    """
    toolkit = (
        'with fslreorient2std and FLIRT of FSL (Jenkinson et al. 2012)'
        if detection.toolkit == 'fsl'
        else 'with the built-in equivalents of fslreorient2std and FLIRT, which give the same '
        'voxels as FSL 6.0.0 (Jenkinson et al. 2012)'
    )
    box = ' x '.join(str(size) for size in detection.box_shape)
    scale = f'the {detection.percentile:g}th percentile inside the mask was set to 1'
    if detection.divide != 1:
        scale += f', values were cut at {detection.clip:g} and divided by {detection.divide:g}'
    else:
        scale += f' and values were cut at {detection.clip:g}'
    if detection.masked:
        scale += ', and what lies outside the mask was set to 0'
    mask = (
        'precomputed masks; scans without one were left out'
        if given_masks
        else _MASKS[detection.mask]
    )
    folds = len(bundle.folds)
    rule = {name: share for name, share in (min_parenchyma or {}).items() if share}
    tissue = ''
    if detection.zones and rule:
        shares = ', '.join(
            f'{100 * share:g} % in {_CONTRASTS.get(name, name)}' for name, share in rule.items()
        )
        tissue = (
            ' where enough of what lies within 2 mm of them was brain tissue (at least '
            f'{shares}; after Greenberg et al. 2009), and half as much of themselves. What lies '
            'within 8 mm of the pineal gland was not taken for brain tissue'
        )
    outlines = ''
    if detection.outline_threshold is not None:
        outlines = (
            'What was counted was outlined down to a probability of '
            f'{detection.outline_threshold:g}. '
        )
    references = [
        'Tsuchida A, et al. SHIVA-CMB: a deep-learning-based robust cerebral microbleed '
        'segmentation tool trained on multi-source T2*GRE- and susceptibility-weighted MRI. Sci '
        'Rep 2024;14:30901.',
        'Gorgolewski KJ, et al. Nipype: a flexible, lightweight and extensible neuroimaging data '
        'processing framework in Python. Front Neuroinform 2011;5:13.',
        'Jenkinson M, et al. FSL. NeuroImage 2012;62:782-790.',
    ]
    if not given_masks and detection.mask in _MASK_REFERENCES:
        references.append(_MASK_REFERENCES[detection.mask])
    if tissue:
        references.append(
            'Greenberg SM, et al. Cerebral microbleeds: a guide to detection and interpretation. '
            'Lancet Neurol 2009;8:165-174.'
        )
    if bundle.citation:
        references.append(f'Model: {bundle.citation}')
    return '\n'.join(
        [
            '# Methods',
            '',
            f'Cerebral microbleeds were segmented with shivacmb {__version__}, which follows '
            'SHIVA-CMB (Tsuchida et al. 2024) as Nipype workflows (Gorgolewski et al. 2011). '
            f'Scans were reoriented and resampled to {detection.voxel_mm:g} mm isotropic voxels '
            f'{toolkit}. The brain was masked by {mask}. Images were cropped '
            f'to {box} voxels around the centre of mass of the brain; {scale}. '
            f'Probabilities were predicted with the model {bundle.name} {bundle.version} '
            f'({folds} network{"s" if folds > 1 else ""}, averaged), binarised at '
            f'{detection.threshold:g}; {detection.connectivity}-connected clusters of at least '
            f'{detection.min_voxels} voxels were counted{tissue}. {outlines}'
            f'{_ZONES if detection.zones else ""}'
            'Results were returned to the grid of each scan.',
            '',
            f'About the model: {bundle.description}',
            '',
            '# References',
            '',
            *[f'- {reference}' for reference in references],
            '',
            'This text is released under CC0: copy it as it is. The software is for research use '
            'only.',
        ]
    )
