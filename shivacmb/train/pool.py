"""A pool of simulated scans on disk, filled in the background and read through memory maps."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import DataError, TemporaryError
from shivacmb.simulate.allocation import keep_freed_memory
from shivacmb.simulate.exact import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shivacmb.simulate.anatomy import Head

Array = NDArray[Any]

#: Box of every scan in the pool, voxels of 1 mm.
BOX = (160, 216, 176)
#: Scans made of one head.
SCANS_PER_HEAD = 3
#: Raise it when the simulator or the truth of a scan changes: earlier pools are then not gone on.
SCANS_LAYOUT = 3


@dataclass(frozen=True)
class Pool:
    """What a pool is to hold.

    Attributes
    ----------
    folder : Path
        Its place on disk.
    seed : int
        Of every scan.
    count : int
        Scans wanted.
    options : dict
        More of what :func:`make_scan` takes.
    """

    folder: Path
    seed: int
    count: int
    options: dict[str, Any]


@dataclass(frozen=True)
class PoolScan:
    """One scan of the pool.

    Attributes
    ----------
    image, flags : ndarray, uint8 [X, Y, Z]
        See :class:`shivacmb.simulate.dataset.Example`.
    lesions : list of dict
        As there.
    labels : ndarray, uint8 [X, Y, Z]
        Lesion numbers.
    contrast : {'T2starw', 'swi', 'any'}
        As there.
    """

    image: Array
    flags: Array
    labels: Array
    lesions: list[dict[str, Any]]
    contrast: str


def _path(folder: Path, index: int) -> Path:
    return folder / f'scan-{index:05d}.npy'


@lru_cache(maxsize=1)
def _head(seed: int, number: int) -> Head:
    from shivacmb.simulate.anatomy import random_head

    # a stream of its own: [seed, number] and [seed, number, 0] are one, and the latter is that of
    # a head of `simulate`, on which a network may be tried that has learnt from this pool
    return random_head(np.random.default_rng([seed, number, 99]))


@one_thread
def make_scan(
    folder: Path,
    seed: int,
    index: int,
    *,
    shape: tuple[int, int, int] = BOX,
    lesions: tuple[int, int] = (15, 60),
    large: float = 0.0,
    wild: int = 4,
    rule: Mapping[str, float] | None = None,
) -> None:
    """Simulate one scan of a pool, unless it is there.

    Parameters
    ----------
    folder : Path
        The pool.
    seed : int
        Of the pool: seed and index alone decide the bytes.
    index : int
        Number of the scan; groups of three share a head.
    shape : tuple of three int
        Box in voxels.
    lesions : tuple of two int
        Least and largest number of lesions.
    large : float
        Share of additional large lesions in the scans with wilder contrasts, see
        :func:`shivacmb.simulate.lesions.draw_radius`.
    wild : int
        Every ``wild``-th scan has wild contrasts instead of a susceptibility map; 0 for none.
    rule : dict of str to float, optional
        By contrast the least share of brain tissue around what may count; mimics with less are
        then unsure, see :func:`shivacmb.train.rule.leave_out`.

    Notes
    -----
    Wild contrasts teach what may differ between scanners, a susceptibility map what veins and SWI
    really look like. To judge a network, all scans should come from the latter.
    """
    from shivacmb.simulate.dataset import random_example, random_subject_example
    from shivacmb.train.rule import find_zones, leave_out

    target = _path(folder, index)
    if target.exists():
        return
    head = _head(seed, index // SCANS_PER_HEAD)
    rng = np.random.default_rng([seed, index, 1])
    if not wild or index % wild:
        example = random_subject_example(rng, head, shape=shape, lesions=lesions)
    else:
        example = random_example(rng, head, shape=shape, lesions=lesions, large=large)
    flags = example.flags
    least = (rule or {}).get(example.contrast, 0.0)
    zones = find_zones(example.image) if least else None
    if zones is not None:
        flags = leave_out(flags, zones, least)
    scratch = target.with_suffix(f'.{os.getpid()}.tmp')
    with scratch.open('wb') as stream:
        stacked = np.stack([example.image, flags, example.labels.astype(np.uint8)])
        np.save(stream, stacked)
    facts = {'contrast': example.contrast, 'lesions': example.lesions}
    target.with_suffix('.json').write_text(json.dumps(facts))
    scratch.replace(target)


def _fill(share: list[tuple[Pool, int]]) -> None:
    os.nice(5)
    keep_freed_memory()
    for pool, index in share:
        make_scan(pool.folder, pool.seed, index, **pool.options)


def missing_scans(pools: Sequence[Pool], workers: int) -> list[list[tuple[Pool, int]]]:
    """Share the scans that are still to be made out among processes.

    Parameters
    ----------
    pools : sequence of Pool
        What is wanted.
    workers : int
        Processes.

    Returns
    -------
    list of list of (Pool, int)
        For each process, pool by pool and lowest number first. The scans of one head stay
        together: it is drawn once.
    """
    heads: dict[tuple[Path, int], list[tuple[Pool, int]]] = {}
    for pool in pools:
        for index in range(pool.count):
            if not _path(pool.folder, index).exists():
                heads.setdefault((pool.folder, index // SCANS_PER_HEAD), []).append((pool, index))
    scans = list(heads.values())
    return [
        list(chain.from_iterable(scans[worker::workers]))
        for worker in range(min(workers, len(scans)))
    ]


def fill_pools(pools: Sequence[Pool], *, workers: int = 2) -> list[BaseProcess]:
    """Start processes that simulate the missing scans of pools.

    Parameters
    ----------
    pools : sequence of Pool
        In the order in which they are needed; their folders are created when missing.
    workers : int
        Processes, for all pools together.

    Returns
    -------
    list of multiprocessing.Process
        Running daemons; they end with this process.
    """
    for pool in pools:
        pool.folder.mkdir(parents=True, exist_ok=True)
    context = get_context('spawn')
    processes: list[BaseProcess] = []
    for share in missing_scans(pools, workers):
        process = context.Process(target=_fill, args=(share,), daemon=True)
        process.start()
        processes.append(process)
    return processes


def load_scan(folder: Path, index: int, *, patience_s: float = 600.0) -> PoolScan:
    """Open a scan of a pool, waiting for it when it is still being made.

    Parameters
    ----------
    folder : Path
        The pool.
    index : int
        Number of the scan.
    patience_s : float
        Longest wait in seconds.

    Returns
    -------
    PoolScan
        Arrays are read-only memory maps.

    Raises
    ------
    TemporaryError
        When it does not come.
    DataError
        When an earlier version made it.
    """
    path = _path(folder, index)
    end = time.monotonic() + patience_s
    while not path.exists():
        if time.monotonic() > end:
            raise TemporaryError(
                f'Scan {index} of the pool <{folder}> was not simulated in {patience_s:.0f} s; '
                'see whether the generator processes still run and the disk has room.'
            )
        time.sleep(0.2)
    stacked = np.load(path, mmap_mode='r')
    facts = json.loads(path.with_suffix('.json').read_text())
    if not isinstance(facts, dict):
        raise DataError(
            f'The pool <{folder}> was made by an earlier version; give another work folder.'
        )
    return PoolScan(stacked[0], stacked[1], stacked[2], facts['lesions'], facts['contrast'])
