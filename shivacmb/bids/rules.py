"""Which names and sidecars denote a scan, and which one of several is taken.

Sources: BIDS 1.11 (suffixes and entities of anatomical images), BIDS extension proposal 004 and
the open proposals for a ``swi`` suffix, DICOM PS3.3 C.7.6.1.1.2 (Image Type), and the names that
converters of UK Biobank, OASIS-3, ADNI and of scanner exports give to these images.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

#: Lower-case suffix -> family; the order is the order of preference between spellings.
SUFFIX_FAMILY: dict[str, str] = {
    'swi': 'swi',
    'swan': 'swi',
    'veno': 'swi',
    't2starw': 't2s',
    't2star': 't2s',
    't2sw': 't2s',
    't2s': 't2s',
    'gre': 't2s',
    'flash': 't2s',
    'megre': 'megre',
}
SPELLINGS: tuple[str, ...] = ('swi', 'T2starw', 'MEGRE', 'SWI')

_PROJECTION = 'a projection over several slices: one lesion is drawn on many of them'
_MAP = 'a quantitative map, not a magnitude image'
_PHASE = 'a phase image; microbleeds are read on magnitude or SWI'
REFUSED_SUFFIXES: dict[str, str] = {
    **dict.fromkeys(('minip', 'mip', 'mnip', 'swimip', 'swiminip'), _PROJECTION),
    **dict.fromkeys(('chimap', 'qsm', 't2starmap', 'r2starmap', 's0map', 'r2map'), _MAP),
    **dict.fromkeys(('phase', 'pha', 'swip', 'unwrapped'), _PHASE),
}

#: Entities that only derived images carry.
DERIVED_ENTITIES = frozenset(
    {'desc', 'space', 'res', 'label', 'seg', 'atlas', 'scale', 'den', 'from', 'to', 'mode'}
)

_PHASE_TYPES = frozenset({'P', 'PHASE', 'PHASE MAP', 'PHASE_MAP', 'PHASEMAP'})
_COMPLEX_TYPES = frozenset({'R', 'REAL', 'I', 'IMAGINARY', 'REAL_MAP', 'IMAG_MAP'})
_MAGNITUDE_TYPES = frozenset({'M', 'MAGNITUDE', 'M_FFE'})
_PROJECTION_TYPES = frozenset(
    {'MIP', 'MINIP', 'MNIP', 'MIN IP', 'MIN_IP', 'MAXIP', 'PROJECTION IMAGE'}
)


#: Words in which "phase" is no phase image: fat and water in or out of phase. A lone "e" is what
#: is left of "GREin" when words are told apart.
_NO_PHASE = re.compile(
    r'\b(?:(?:gre|e|t2s?|t2star|star|dix|dixon|flash|swi|swan|)in|out(?: ?of)?'
    r'|opp?(?:osed|osite)?) ?pha(?:se)?\b'
)
#: How a series of phase images is called; elsewhere "phase" is mostly the direction of encoding.
_PHASE_SERIES = re.compile(
    r'^filt\w* ?pha(?:se)?\b|\b(?:swi|swan|filt)?pha(?:se)?s?(?: (?:image|img|map|mask)s?)?$'
)
#: What goes before "phase" where it says how the image was taken.
_HOW_TAKEN = re.compile(
    r'\b(?:no|swap|swapped|pe|partial|multi|single|dual|delayed|early|late|venous|arterial|rest)'
    r' pha(?:se)?s?\b'
)


def _tokens(value: str) -> list[str]:
    """Words of a camel-case label, lower case: ``SWIfiltPhase`` -> swi, filt, phase."""
    split = re.sub(r'([a-z])([A-Z])', r'\1 \2', value)
    split = re.sub(r'([A-Z]+)([A-Z][a-z])', r'\1 \2', split)
    split = re.sub(r'[^A-Za-z]+', ' ', split)
    return split.lower().split()


def _label_refusal(value: str) -> str | None:
    """Reason why a label of ``acq`` or ``rec`` denies a magnitude image, or None."""
    words = _NO_PHASE.sub(' ', ' '.join(_tokens(value)))
    tokens = words.split()
    low = value.lower()
    if 'minip' in low or 'mnip' in low or low.endswith('mip') or 'mip' in tokens:
        return _PROJECTION
    # "ph" elsewhere than at the end is Philips
    if re.search(r'phase\b|(?<!al)pha\b|\bph$', words):
        return _PHASE
    if any(token.startswith('filt') for token in tokens):
        return 'a filtered image, as scanners make of the phase'
    return None


def refusal_by_series(pairs: Mapping[str, str], metadata: Mapping[str, Any]) -> str | None:
    """Reason why a sidecar's SeriesDescription denies a scan, or None.

    Siemens, GE and Philips name a series after what it shows: ``Pha_Images``, ``mIP_Images(SW)``,
    ``FILT_PHA: Ax SWAN``, ``Min IP``. ProtocolName and SequenceName are those of the acquisition,
    which magnitude, phase and projections share. What is written for machines (``part``,
    ImageType) goes before these words, which technicians type (docs/decisions/0136).
    """
    value = metadata.get('SeriesDescription')
    if not isinstance(value, str) or 'part' in pairs or _image_types(metadata) & _MAGNITUDE_TYPES:
        return None
    # "SWI + phase", "mag and pha", "50 phase" (time points) name more than this image
    alone = re.sub(
        r'(?:[+&/,]|\b\d+\s?%?|\b(?:and|with|plus|w)\b)\s*(?:pha(?:se)?s?|m(?:in|n)?\s?ip)\b', ' ',
        re.sub(r'[\s_-]+', ' ', value), flags=re.IGNORECASE,
    )  # fmt: skip
    words = _HOW_TAKEN.sub(' ', _NO_PHASE.sub(' ', ' '.join(_tokens(alone)))).strip()
    if re.search(r'\b(?:swi|swan)?m(?:in|n)? ?ips?\b|\bpjn\b|intensity projection', words):
        reason = _PROJECTION
    elif _PHASE_SERIES.search(words) and not re.search(r'\bmag(?:nitude)?\b', words):
        reason = _PHASE
    else:
        return None
    return (
        f'SeriesDescription "{" ".join(value.split())}" of its sidecar: {reason}; if it is no '
        'such image, add "M" (magnitude) to ImageType in its sidecar'
    )


def refusal_by_name(pairs: Mapping[str, str], named: Collection[str] = ()) -> str | None:
    """Reason why a name cannot be a scan, or None.

    Parameters
    ----------
    pairs
        Short entity keys and their values.
    named
        Short keys whose value a filter of the user names: for ``acq`` and ``rec`` that choice
        overrules the reading of the label.
    """
    part = pairs.get('part')
    if part is not None and part.lower() not in {'mag', 'magnitude'}:
        if part.lower() in {'phase', 'pha', 'ph'}:
            return f'part-{part}: {_PHASE}'
        known = 'real or imaginary part' if part.lower() in {'real', 'imag'} else 'unknown part'
        return f'part-{part}: {known}, not a magnitude image'
    derived = sorted(DERIVED_ENTITIES & set(pairs))
    if derived:
        return f'{derived[0]}-{pairs[derived[0]]} marks a derived image, not an original one'
    for key in ('acq', 'rec'):
        if key in pairs and key not in named:
            reason = _label_refusal(pairs[key])
            if reason is not None:
                return (
                    f'{key}-{pairs[key]}: {reason}; if it is the magnitude, name this {key} '
                    'in --bids-filter-file'
                )
    return None


def _image_types(metadata: Mapping[str, Any]) -> set[str]:
    value = metadata.get('ImageType', ())
    items: Iterable[Any] = value if isinstance(value, list) else str(value).split('\\')
    return {str(item).strip().upper() for item in items}


def refusal_by_metadata(metadata: Mapping[str, Any]) -> str | None:
    """Reason why a sidecar's ImageType denies a magnitude image, or None."""
    types = _image_types(metadata)
    for wanted, reason in (
        (_PROJECTION_TYPES, _PROJECTION),
        (_PHASE_TYPES, _PHASE),
        (_COMPLEX_TYPES, 'the real or imaginary part, not a magnitude image'),
    ):
        hit = sorted(types & wanted)
        if hit and not (wanted is not _PROJECTION_TYPES and types & _MAGNITUDE_TYPES):
            return f'ImageType of its sidecar has {hit[0]}: {reason}'
    return None


def contrast_of(
    suffix: str, pairs: Mapping[str, str], metadata: Mapping[str, Any]
) -> tuple[str, str]:
    """Contrast of an image and how it was told.

    In order: the suffix; ``acq`` or ``rec``; the sidecar's ImageType, SeriesDescription,
    ProtocolName and SequenceName; else T2*. The magnitude of an SWI sequence (``part-mag``) is
    T2*-weighted: only its product with the phase mask is SWI (Haacke 2004,
    doi:10.1002/mrm.20198).

    Returns
    -------
    contrast
        ``'swi'`` or ``'T2starw'``.
    source
        The words ``suffix swi``, ``acq-swi``, ...
    """
    if SUFFIX_FAMILY.get(suffix.lower()) == 'swi':
        return 'swi', f'suffix {suffix}'
    if 'part' in pairs:
        return 'T2starw', f'magnitude ({suffix})'
    for key in ('acq', 'rec'):
        if re.search(r'swi|swan|venobold', pairs.get(key, ''), re.IGNORECASE):
            return 'swi', f'{key}-{pairs[key]}'
    if 'SWI' in _image_types(metadata):
        return 'swi', 'ImageType of its sidecar'
    for field in ('SeriesDescription', 'ProtocolName', 'SequenceName'):
        text = str(metadata.get(field, ''))
        if re.search(r'(?<![a-z])(swi|swan|venobold)(?![a-z])', text, re.IGNORECASE):
            return 'swi', f'{field} of its sidecar'
    return 'T2starw', f'suffix {suffix}'


def hints_at_scan(words: Iterable[str], pairs: Mapping[str, str], datatype: str) -> bool:
    """Tell whether a file with a suffix of no use here deserves a line to the user.

    Parameters
    ----------
    words
        Its suffix and the words of its name that are no entity.
    """
    marked = any(
        re.search(r'swi|swan|venobold|t2star', pairs.get(key, ''), re.IGNORECASE)
        for key in ('acq', 'rec')
    )
    looks = any(re.search(r'swi|swan|t2s|gre', word, re.IGNORECASE) for word in words)
    return datatype == 'swi' or marked or looks
