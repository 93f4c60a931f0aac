"""Prepared scans on disk: what the app would show a network, and the classes of its voxels."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import remove_stale, replacing, write_text
from shivacmb.exceptions import DataError, OutputError, TemporaryError, UsageError
from shivacmb.imaging import crop, voxels_outside
from shivacmb.models import Grid, Intensity, find_bundle
from shivacmb.models.brain_mask import BUILTIN
from shivacmb.models.checksums import sha256_of
from shivacmb.preparation import prepare
from shivacmb.train.dataset import LabelClass, LabelledScan
from shivacmb.train.labels import IGNORED, class_map, components, lost, read_labels, to_grid

Array = NDArray[Any]

# Raise it when what is stored changes, so that old files are made anew
LAYOUT = 2
#: What a pool is to hold; not the name of a scan, which has a dataset and two underscores.
POOL_FILE = 'pool.json'
BRAIN, CLASSES = 0, 1
_MOST_NAMED = 10


@dataclass(frozen=True)
class Volume:
    """One prepared scan.

    Attributes
    ----------
    image : ndarray, float32 [X, Y, Z, C]
        The network's input, to the last bit that of the app.
    classes : ndarray, uint8 [X, Y, Z]
        0 background, 1 the first class, ..., 255 ignored.
    brain : ndarray, uint8 [X, Y, Z]
        1 in the brain.
    facts : dict
        Person, dataset, name, contrast, lesions by class (``outside``: those that the box leaves
        out), checksums of the sources, warnings.
    """

    image: Array
    classes: Array
    brain: Array
    facts: dict[str, Any]

    @property
    def points(self) -> Array:
        """Centre voxels of the lesions of all classes, int [N, 3]."""
        return np.array(self.facts['points'], int).reshape(-1, 3)

    def outside(self, number: int) -> int:
        """Lesions of the class of this number that the box leaves out."""
        counts = list(self.facts.get('outside', {}).values())
        return int(counts[number - 1]) if counts else 0


@dataclass(frozen=True)
class Preparation:
    """How scans are prepared."""

    grid: Grid
    intensity: Intensity
    classes: tuple[LabelClass, ...]
    ignore: tuple[int, ...] = ()

    @property
    def checksum(self) -> str:
        """Checksum of these settings."""
        content = json.dumps([LAYOUT, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def key(self, scan: LabelledScan) -> str:
        """Checksum of these settings and of the scan's files."""
        files = [*scan.images, *scan.labels, *([scan.mask] if scan.mask else [])]
        checksums = [sha256_of(path) for path in files]
        mask = True if scan.mask else _builtin_mask()
        content = [LAYOUT, asdict(self), checksums, mask]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _builtin_mask() -> str:
    """Checksums of what masks scans that come without a mask."""
    bundle = find_bundle(BUILTIN)
    atlas = [bundle.atlas[1]] if bundle.atlas else []
    return ' '.join([*(fold.sha256 for fold in bundle.folds), *atlas])


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Image, label map and record of a prepared scan."""
    stem = name.replace('/', '__')
    return folder / f'{stem}.image.npy', folder / f'{stem}.labels.npy', folder / f'{stem}.json'


def _facts(folder: Path, name: str) -> dict[str, Any]:
    return _read(_files(folder, name)[2])


def _mapped(path: Path) -> Array:
    # unlike np.load it takes nothing for a zip file or a pickle, and an empty file is no EOFError
    try:
        array: Array = np.lib.format.open_memmap(path, mode='r')
    except TokenError as error:
        raise ValueError(f'its header is damaged: {error}') from error
    return array


def _whole(folder: Path, name: str, grid: Grid, channels: int) -> bool:
    """Whether both arrays are there, not cut off, and of the size of the grid."""
    image_file, labels_file, _ = _files(folder, name)
    try:
        image, labels = _mapped(image_file), _mapped(labels_file)
    except (OSError, ValueError):
        return False
    return (
        (image.shape, image.dtype) == ((*grid.shape, channels), np.dtype(np.float32))
        and (labels.shape, labels.dtype) == ((2, *grid.shape), np.dtype(np.uint8))
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text('utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def prepare_scan(folder: Path, scan: LabelledScan, how: Preparation) -> None:
    """Prepare one scan, unless the same files were prepared in the same way before.

    Arrays that are missing or cut off are made again.

    Parameters
    ----------
    folder : Path
        Receives ``<name>.image.npy``, ``<name>.labels.npy`` and ``<name>.json``, the last one at
        the end.
    scan : LabelledScan
        Images and label maps.
    how : Preparation
        Grid, intensity, classes.

    Raises
    ------
    DataError
        An image, the mask or a label map cannot be used.
    OutputError
        The folder cannot be written, for example because the disk is full.
    """
    key = how.key(scan)
    earlier = _facts(folder, scan.name)
    same = (earlier.get('key'), earlier.get('how')) == (key, how.checksum)
    if same and _whole(folder, scan.name, how.grid, len(scan.images)):
        return
    made = prepare(scan.images, scan.mask, grid=how.grid, intensity=how.intensity, threads=1)
    maps = [read_labels(path, made.scan) for path in scan.labels]
    native = class_map(maps, how.classes, how.ignore, scan.labels)
    box = made.chain.placed_box
    whole = to_grid(native, made.scan, made.chain)
    classes = crop(whole, box)
    lesions, outside, points = {}, {}, []
    for number, item in enumerate(how.classes, start=1):
        parts, count = components(classes == number)
        lesions[item.name] = count
        outside[item.name] = lost(whole, box, number)
        points += [
            np.rint(np.argwhere(parts == part).mean(axis=0)).astype(int).tolist()
            for part in range(1, count + 1)
        ]
    before = sum(components(native == number)[1] for number in range(1, len(how.classes) + 1))
    warnings = []
    if voxels_outside(made.brain, box):
        warnings.append(f'the box leaves out {voxels_outside(made.brain, box)} voxels of brain')
    cut = sum(outside.values())
    if cut:
        warnings.append(f'the box leaves out {cut} lesions, which count as not found')
    if len(points) + cut != before:
        warnings.append(f'{before} lesions in the label map, {len(points) + cut} on the grid')
    facts = {
        'key': key, 'how': how.checksum,
        'name': scan.name, 'person': scan.person, 'dataset': scan.dataset,
        'contrast': scan.contrast, 'image_sha256': sha256_of(scan.images[0]),
        'lesions': lesions, 'outside': outside, 'points': points, 'warnings': warnings,
        'given_mask': scan.mask is not None,
        'ignored_voxels': int(np.count_nonzero(classes == IGNORED)),
        'images': [path.name for path in scan.images],
    }  # fmt: skip
    image, labels, record = _files(folder, scan.name)
    # a kill between the arrays must not leave new ones under an old key
    _forget(record)
    _save(image, made.network)
    stored = np.stack([crop(made.brain, box).astype(np.uint8), classes])
    _save(labels, stored)
    write_text(record, json.dumps(facts) + '\n')


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f'cannot remove <{path}>: {error.strerror}') from error


def _save(path: Path, array: Array) -> None:
    with replacing(path) as temporary, temporary.open('wb') as stream:
        np.save(stream, array)
        stream.flush()
        os.fsync(stream.fileno())


def open_volume(folder: Path, name: str) -> Volume:
    """Open a prepared scan through memory maps.

    Parameters
    ----------
    folder : Path
        Of the prepared scans.
    name : str
        As :attr:`LabelledScan.name`.

    Raises
    ------
    DataError
        It is not there or not whole.
    """
    image_file, labels_file, record = _files(folder, name)
    try:
        image, stored = _mapped(image_file), _mapped(labels_file)
    except (OSError, ValueError) as error:
        raise DataError(
            f'the prepared scan {name} cannot be read ({error}); remove <{image_file}>, '
            f'<{labels_file}> and <{record}>, and run the same command again without '
            '--from-pool, or copy them again'
        ) from error
    return Volume(image, stored[CLASSES], stored[BRAIN], _facts(folder, name))


def _described(how: Preparation, channels: Sequence[str]) -> dict[str, Any]:
    content = {
        'layout': LAYOUT, 'channel list': list(channels), 'grid': asdict(how.grid),
        'intensity': asdict(how.intensity), 'list of ignored values': list(how.ignore),
        'class list': [asdict(item) for item in how.classes],
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def note_pool(
    folder: Path, names: Sequence[str], how: Preparation, channels: Sequence[str]
) -> None:
    """Write down which scans a pool is to hold, and how they are prepared.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    content = {'how': _described(how, channels), 'scans': sorted(names)}
    write_text(folder / POOL_FILE, json.dumps(content, indent=1) + '\n')


def names_in(folder: Path, how: Preparation, channels: Sequence[str]) -> list[str]:
    """Names of all scans of a pool, sorted.

    Parameters
    ----------
    folder : Path
        Of the prepared scans.
    how : Preparation
        As they must have been prepared.
    channels : sequence of str
        What fills them.

    Raises
    ------
    DataError
        There is no pool, or some of its scans are not prepared yet or damaged.
    UsageError
        They were prepared in another way.
    """
    content = _read(folder / POOL_FILE)
    names, before, now = content.get('scans'), content.get('how'), _described(how, channels)
    if not names or not isinstance(names, list) or not isinstance(before, dict):
        raise DataError(
            f'<{folder}> holds no prepared scans (its {POOL_FILE} is missing or damaged); leave '
            '--from-pool out, so that they are made'
        )
    if before.get('layout') != LAYOUT:
        raise UsageError(
            f'the scans in <{folder}> were prepared by another version; leave --from-pool out, so '
            'that they are made anew, or train with that version'
        )
    if changed := [name for name in now if now[name] != before.get(name)]:
        raise UsageError(
            f'the scans in <{folder}> were prepared with another {", ".join(changed)}; give the '
            'options that they were prepared with, or leave --from-pool out'
        )
    # a run that was killed may have left scans of earlier settings, a copy parts of arrays
    lacking = [
        name for name in names
        if _facts(folder, name).get('how') != how.checksum
        or not _whole(folder, name, how.grid, len(channels))
    ]  # fmt: skip
    if lacking:
        raise DataError(
            f'{len(lacking)} of {len(names)} scans are not prepared so, or not whole, in '
            f'<{folder}>, such as {lacking[0]}; run the same command without --from-pool, or copy '
            'them all'
        )
    return sorted(names)


def _quietly() -> None:
    """Leave Ctrl-C to the parent, and the processors to whoever is in a hurry."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(5)


def prepare_all(
    folder: Path,
    scans: Sequence[LabelledScan],
    how: Preparation,
    *,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
) -> bool:
    """Prepare scans, several at a time; a killed run goes on where it stopped.

    Parameters
    ----------
    folder : Path
        Created when missing.
    scans : sequence of LabelledScan
        All of them.
    how : Preparation
        Grid, intensity, classes.
    workers : int
        Processes.
    stop : callable
        Asked between scans: True ends the work early.
    tell : callable
        Receives a line about each scan.

    Returns
    -------
    bool
        Whether all are prepared.

    Raises
    ------
    DataError
        Some scans cannot be used; up to ten are named, each with its reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # a scan has tens of megabytes, and a kill leaves a part of one under another name each time
    remove_stale(folder)
    problems: list[str] = []
    if workers == 1:
        for scan in scans:
            if stop():
                return False
            try:
                prepare_scan(folder, scan, how)
                tell(f'prepared {scan.name}')
            except DataError as error:
                problems.append(f'{scan.name}: {error}')
    elif not _prepare_beside(folder, scans, how, workers, stop, tell, problems):
        return False
    if problems:
        shown = '; '.join(problems[:_MOST_NAMED])
        raise DataError(
            f'{len(problems)} of {len(scans)} scans cannot be used: {shown}'
            if len(scans) > 1 else shown
        )  # fmt: skip
    return True


def _prepare_beside(
    folder: Path, scans: Sequence[LabelledScan], how: Preparation, workers: int,
    stop: Callable[[], bool], tell: Callable[[str], None], problems: list[str],
) -> bool:  # fmt: skip
    executor = ProcessPoolExecutor(workers, get_context('spawn'), _quietly)
    try:
        left = list(reversed(scans))
        running: dict[Future[None], LabelledScan] = {}
        while left or running:
            while left and len(running) < workers and not stop():
                scan = left.pop()
                running[executor.submit(prepare_scan, folder, scan, how)] = scan
            if not running:
                return False
            for future in wait(running, timeout=5, return_when=FIRST_COMPLETED).done:
                scan = running.pop(future)
                try:
                    future.result()
                    tell(f'prepared {scan.name}')
                except DataError as error:
                    problems.append(f'{scan.name}: {error}')
    except BrokenExecutor as error:
        # of a scan under way, or when the next one is handed over
        raise TemporaryError(
            'a process that prepares scans ended without a word, most often because '
            'memory ran out; lower --nprocs and run the same command again'
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return True
