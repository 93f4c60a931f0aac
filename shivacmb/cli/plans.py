"""From settings and a bundle to what each scan's workflow is told."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb import __version__
from shivacmb.cli.failures import ReplacedInputError
from shivacmb.exceptions import DataError, TemporaryError, UsageError
from shivacmb.interfaces.staging import staging_folder
from shivacmb.models import choose_engine
from shivacmb.workflows.plan import Detection, ScanPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shivacmb.bids import Scan
    from shivacmb.cli.settings import Settings
    from shivacmb.models import Bundle
    from shivacmb.models.service import EnsembleRequest

PACKAGES = ('nipype', 'nibabel', 'numpy', 'scipy', 'connected-components-3d')
STAGING = Path('logs', '.staging')
# Methods that may ask the built-in network
NETWORK_MASKS = ('auto', 'builtin')
FSL_PROGRAMS = ('fslreorient2std', 'flirt', 'bet')


def choose_toolkit(wanted: str) -> str:
    """Resolve ``--toolkit``.

    Parameters
    ----------
    wanted : {'auto', 'fsl', 'native'}
        As typed.

    Returns
    -------
    {'fsl', 'native'}
        'fsl' where ``$FSLDIR`` is set and its programs are on ``PATH``.

    Raises
    ------
    UsageError
        If FSL is demanded and not usable.
    """
    if wanted == 'native':
        return 'native'
    missing = [name for name in FSL_PROGRAMS if shutil.which(name) is None]
    usable = bool(os.environ.get('FSLDIR')) and not missing
    if wanted == 'fsl' and not usable:
        what = f'not on PATH: {", ".join(missing)}' if missing else '$FSLDIR is not set'
        raise UsageError(f'--toolkit fsl: {what}; load FSL, or use --toolkit native')
    return 'fsl' if usable else 'native'


def check_mask_tool(method: str) -> None:
    """Refuse a mask method whose program is not installed.

    Raises
    ------
    UsageError
        Naming the program.
    """
    program = {'bet': 'bet', 'synthstrip': 'mri_synthstrip', 'hd-bet': 'hd-bet'}.get(method)
    if program is not None and shutil.which(program) is None:
        raise UsageError(
            f'--mask {method}: the program {program} is not on PATH; install it, or leave --mask '
            'out to use the built-in mask'
        )


def build_detection(settings: Settings, bundle: Bundle) -> Detection:
    """Join the bundle's numbers with those typed by the user.

    Parameters
    ----------
    settings : Settings
        Of the run.
    bundle : Bundle
        The model.

    Returns
    -------
    Detection
        Every number that shapes a result.

    Raises
    ------
    ModelError
        If the bundle does not find microbleeds on an isotropic grid.
    """
    bundle.check_detects()
    grid, intensity, postprocess = bundle.grid, bundle.intensity, bundle.postprocess
    min_size = settings.min_size
    threshold = postprocess.threshold if settings.threshold is None else settings.threshold
    outline = postprocess.outline_threshold
    return Detection(
        bundle=str(bundle.path),
        engine=choose_engine(settings.engine, settings.device),
        device=settings.device,
        trust_model=settings.trust_model,
        toolkit=choose_toolkit(settings.toolkit),
        mask=settings.mask,
        zones=not settings.no_zones,
        voxel_mm=grid.voxel_mm[0],
        box_shape=grid.shape,
        percentile=intensity.percentile,
        clip=intensity.clip,
        divide=intensity.divide,
        masked=intensity.masked,
        threshold=threshold,
        min_voxels=postprocess.min_voxels if min_size is None else min_size,
        connectivity=postprocess.connectivity,
        outline_threshold=outline if outline is not None and outline < threshold else None,
    )


def versions(detection: Detection) -> dict[str, str]:
    """Versions of everything that takes part in a result."""
    found = {'shivacmb': __version__}
    for package in PACKAGES:
        found[package] = _version(package)
    found[detection.engine] = _engine_version(detection.engine)
    if detection.toolkit == 'fsl':
        version_file = Path(os.environ['FSLDIR']) / 'etc' / 'fslversion'
        found['fsl'] = version_file.read_text().strip() if version_file.is_file() else 'unknown'
    return found


@functools.cache
def _version(package: str) -> str:
    """Version of an installed package; looking it up takes milliseconds, for every scan."""
    return metadata.version(package)


def _engine_version(engine: str) -> str:
    """Version of an engine, also where TensorFlow came as its CPU build."""
    for package in (engine, f'{engine}-cpu'):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return _version(package)
    return 'unknown'


def model_facts(bundle: Bundle) -> dict[str, Any]:
    """What sidecars and pages say about the model."""
    return {
        'Name': bundle.name,
        'Version': bundle.version,
        'Description': bundle.description,
        'License': bundle.license,
        'IntendedUse': bundle.intended_use,
        'Folds': [{'file': fold.file, 'sha256': fold.sha256} for fold in bundle.folds],
    }


def parenchyma_rule(settings: Settings, bundle: Bundle) -> dict[str, float]:
    """Share of brain tissue around a lesion by contrast: as asked for, or the bundle's."""
    asked = settings.min_parenchyma
    rule = {}
    for contrast in bundle.inputs[0].contrasts:
        share = bundle.postprocess.parenchyma_for(contrast) if asked is None else asked
        rule[contrast] = 0.0 if settings.no_zones else share
    return rule


def parameters(detection: Detection, min_parenchyma: float) -> dict[str, Any]:
    """Every parameter of a result, without what only says where it was computed."""
    values = {**asdict(detection), 'min_parenchyma': min_parenchyma}
    if detection.outline_threshold is None:
        # as results of earlier versions have it
        del values['outline_threshold']
    for name in ('bundle', 'trust_model', 'mask', 'device'):
        del values[name]
    return values


def hash_of(facts: dict[str, Any], mask: str) -> str:
    """Identity of the settings that shape a result; a rerun skips scans finished with the same.

    Parameters
    ----------
    facts : dict
        With 'parameters', 'model', 'channel_sources' and 'mask_sources'.
    mask : str
        Mask method asked for.

    Returns
    -------
    str
        First 16 hex digits of a SHA-256.
    """
    from shivacmb.bids import settings_hash

    relevant = {
        'parameters': {k: v for k, v in facts['parameters'].items() if k != 'min_parenchyma'},
        'folds': [fold['sha256'] for fold in facts['model']['Folds']],
        'model': [facts['model']['Name'], facts['model']['Version']],
        'channels': facts['channel_sources'],
        'mask': facts['mask_sources'] or [mask, *facts['mask_model']],
        'zones': [fold['sha256'] for fold in facts['zones_model'].get('Folds', [])],
        'fsl': facts['versions'].get('fsl'),
        'version': __version__,
    }
    if any(facts['parenchyma_rule'].values()):
        # the whole rule: scans of two contrasts in one run were made with the same settings
        relevant['parenchyma'] = facts['parenchyma_rule']
    return settings_hash(relevant)[:16]


def plan_scan(settings: Settings, scan: Scan, detection: Detection, bundle: Bundle) -> ScanPlan:
    """Plan one scan of a BIDS dataset.

    Parameters
    ----------
    settings : Settings
        Of the run.
    scan : Scan
        What to process.
    detection : Detection
        How.
    bundle : Bundle
        The model.

    Returns
    -------
    ScanPlan
        With the paths of all outputs and everything known beforehand.

    Raises
    ------
    ShivaCMBError
        If the model does not take this contrast, or a brain mask that was asked for is missing, is
        by its header none of this scan, or lies where a result would be written.
    """
    from shivacmb.bids import (
        ChannelFinder,
        ScanRecord,
        file_facts,
        find_brain_mask,
        leftovers,
        output_paths,
    )

    bundle.check_contrast(scan.contrast, f'<{scan.path}>')
    mask = find_brain_mask(scan, settings.derivatives, settings.brain_mask)
    finder = ChannelFinder(
        settings.bids_dir, bundle.inputs, participants=[scan.participant],
        filters=settings.bids_filter_file,
    )  # fmt: skip
    channels = finder.images(scan)
    rule = parenchyma_rule(settings, bundle)
    least = rule[scan.contrast]
    facts = scan_facts(
        detection, bundle, settings.mask, mask, channels, contrast=scan.contrast, rule=rule,
        bids_dir=settings.bids_dir,
    )  # fmt: skip
    facts.update(
        source=scan.uri,
        contrast=scan.contrast,
        reason=scan.reason,
        warnings=list(scan.warnings),
    )
    record = ScanRecord.of(
        scan,
        status='ok',
        **record_values(detection, bundle, hash_of(facts, settings.mask), least),
        # a link to data that are not here has none; it may be finished all the same
        **({} if scan.not_here else file_facts(scan.path, checksum=False)),
    )
    facts['record'] = asdict(record)
    plan = ScanPlan(
        stem=scan.stem,
        image=scan.path,
        brain_mask=mask,
        outputs={key: str(path) for key, path in output_paths(settings.out_dir, scan).items()},
        staging=str(staging_folder(settings.out_dir / STAGING, scan.stem)),
        min_parenchyma=least,
        channels=channels,
        replaces=tuple(str(path) for path in leftovers(settings.out_dir, scan)),
        overwrite=settings.overwrite,
        out_dir=str(settings.out_dir),
        facts=facts,
    )
    check_inputs_stay(plan)
    if mask is not None:
        _check_mask(mask, scan.path)
    return plan


def _check_mask(mask: Path, scan: Path) -> None:
    """Refuse a mask of another grid here: a scan that was not begun keeps its earlier result."""
    from shivacmb.imaging import check_mask_header, read_grid

    try:
        grid = read_grid(scan)
    except (DataError, TemporaryError):
        # no fault of the mask; who reads the scan says it
        return
    check_mask_header(mask, grid)


def check_inputs_stay(plan: ScanPlan) -> None:
    """Refuse a scan whose results would take the place of its mask or of another image of it.

    Raises
    ------
    ReplacedInputError
        Naming the file.
    """
    given = [path for path in (plan.brain_mask, *plan.channels) if path is not None]
    if not given:
        return
    targets = [Path(path) for path in (*plan.outputs.values(), *plan.replaces)]
    for path in given:
        # a link counts as itself and as what it stands for
        for spelled in (path, path.resolve()):
            same = [target for target in targets if target.name == spelled.name]
            if any(target.parent.resolve() == spelled.parent.resolve() for target in same):
                raise ReplacedInputError(
                    f'<{path}> is read by this run and would be replaced by its results: choose '
                    'another output folder, or move the file out of this one'
                )


def verify_model(bundle: Bundle, engine: str) -> None:
    """Check the files of a bundle that the engine will read.

    Raises
    ------
    ModelError
        If one is missing or altered.
    """
    for fold in bundle.folds:
        if engine == 'openvino' and fold.openvino is not None:
            bundle.verify_openvino(fold)
        else:
            bundle.verify_fold(fold)


def scan_facts(
    detection: Detection,
    bundle: Bundle,
    mask_method: str,
    mask: Path | None,
    channels: Sequence[Path] = (),
    *,
    contrast: str,
    rule: dict[str, float],
    bids_dir: Path | None = None,
) -> dict[str, Any]:
    """Facts that depend on the contrast of a scan at most, and checksums of mask and channels."""
    further = [*channels, *([] if mask is None else [mask])]
    network = mask is None and mask_method in NETWORK_MASKS
    builtin = _builtin_model() if network or detection.zones else {}
    return {
        'channel_sources': [_with_checksum(path) for path in channels],
        'mask_sources': [] if mask is None else [_with_checksum(mask)],
        'further_sources': [source_uri(path, bids_dir) for path in further],
        'mask_model': [fold['sha256'] for fold in builtin['Folds']] if network else [],
        'zones_model': builtin if detection.zones else {},
        'brain_model': builtin,
        'model': model_facts(bundle),
        'parameters': parameters(detection, rule[contrast]),
        'parenchyma_rule': rule,
        'versions': versions(detection),
    }


def _with_checksum(path: Path) -> str:
    from shivacmb.imaging import read_source

    return f'{path.name} sha256:{read_source(path)[1].sha256}'


def source_uri(path: Path, bids_dir: Path | None) -> str:
    """BIDS URI of a file of the dataset, file URI of another one."""
    if bids_dir is not None and bids_dir in path.parents:
        return f'bids:raw:{path.relative_to(bids_dir).as_posix()}'
    return path.absolute().as_uri()


def _builtin_model() -> dict[str, Any]:
    """Facts of the built-in network for mask and zones."""
    from shivacmb.models import find_bundle
    from shivacmb.models.brain_mask import BUILTIN

    return model_facts(find_bundle(BUILTIN))


def networks_needed(
    plans: Sequence[ScanPlan], detection: Detection, bundle: Bundle, threads: int
) -> dict[str, EnsembleRequest]:
    """List what the prediction process has to load.

    Parameters
    ----------
    plans : sequence of ScanPlan
        The scans.
    detection : Detection
        Mask method, engine, device.
    bundle : Bundle
        The model.
    threads : int
        Processor threads of one prediction.

    Returns
    -------
    dict
        For ``PredictionService``; without the brain's network where no scan can ask for it, be
        it for the mask or for the zones.
    """
    from shivacmb.models import find_bundle
    from shivacmb.models.brain_mask import BUILTIN
    from shivacmb.models.service import BRAIN, LESIONS, EnsembleRequest

    needed = {}
    masks = detection.mask in NETWORK_MASKS and any(plan.brain_mask is None for plan in plans)
    if masks or detection.zones:
        needed[BRAIN] = EnsembleRequest(str(find_bundle(BUILTIN).path), 'openvino', 'cpu', threads)
    needed[LESIONS] = EnsembleRequest(
        str(bundle.path), detection.engine, detection.device, threads, detection.trust_model
    )
    return needed


def record_values(
    detection: Detection, bundle: Bundle, hashed: str, min_parenchyma: float
) -> dict[str, Any]:
    """Fields of a scan's record that are known before it is processed."""
    return {
        'threshold': detection.threshold,
        'min_voxels': detection.min_voxels,
        'min_parenchyma': min_parenchyma,
        'outline_threshold': detection.outline_threshold,
        'model': bundle.name,
        'model_version': bundle.version,
        'engine': detection.engine,
        'toolkit': detection.toolkit,
        'software_version': __version__,
        'settings_hash': hashed,
    }
