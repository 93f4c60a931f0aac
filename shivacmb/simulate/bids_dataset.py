"""A BIDS dataset of simulated subjects with their truth, resumable and the same every time."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import TemporaryError, UsageError
from shivacmb.simulate.allocation import keep_freed_memory
from shivacmb.simulate.anatomy import random_head
from shivacmb.simulate.dataset_root import prepare_root
from shivacmb.simulate.exact import one_thread
from shivacmb.simulate.files import (
    reorient_vector,
    settle,
    staging,
    write_image,
    write_json,
    write_table,
)
from shivacmb.simulate.lesions_place import check_wishes, draw_count
from shivacmb.simulate.scanner import Scanner, Wishes, draw_scanner
from shivacmb.simulate.subject import CONTRASTS, LesionWishes, Subject, simulate_subject
from shivacmb.simulate.truth import write_truth

Array = NDArray[Any]

#: Stored value of white matter in magnitude images.
WHITE = 1000.0
#: Value of one stored unit of phase (rad) and least of susceptibility (ppm).
PHASE_STEP, CHI_STEP = np.pi / 4096, 1e-4
#: Raise it when the same seed gives other images: a dataset begun before is then not gone on.
SIMULATOR = 4
#: Threads of a subject, however many processors there are: how many take part in a Fourier
#: transform decides which lines are transformed together, and with newer releases of SciPy the
#: last bit of the result.
THREADS = 2


@dataclass(frozen=True)
class Order:
    """What is to be simulated; all of it is written into the dataset.

    Attributes
    ----------
    seed : int
        With the number of the subject it decides every byte.
    contrasts : tuple of str
        Of :data:`shivacmb.simulate.subject.CONTRASTS`.
    wishes : Wishes
        What of the protocol is fixed.
    lesions : tuple of two int, optional
        Least and most lesions; None draws as in the VALDO cohort.
    lesion_free : float
        Share of subjects without lesions when ``lesions`` is None.
    radius_mm, chi_ppm
        See :class:`shivacmb.simulate.subject.LesionWishes`.
    """

    seed: int = 0
    contrasts: tuple[str, ...] = CONTRASTS
    wishes: Wishes = field(default_factory=Wishes)
    lesions: tuple[int, int] | None = None
    lesion_free: float = 0.3
    radius_mm: tuple[float, float] | None = None
    chi_ppm: tuple[float, float] = (0.15, 2.5)

    def __post_init__(self) -> None:
        unknown = [name for name in self.contrasts if name not in CONTRASTS]
        if unknown or not self.contrasts:
            raise UsageError(
                f'contrast {", ".join(unknown) or "(none)"} is unknown; take some of '
                f'{", ".join(CONTRASTS)}'
            )
        check_wishes(self.lesions, self.lesion_free, self.radius_mm, self.chi_ppm)


@one_thread
def make_subject(order: Order, number: int, workers: int | None = None) -> tuple[Subject, Scanner]:
    """Simulate one subject in memory.

    Parameters
    ----------
    order : Order
        What is to be simulated.
    number : int
        Of the subject, from 1.
    workers : int, optional
        Threads.

    Returns
    -------
    subject : Subject
    scanner : Scanner
        Its protocol.
    """
    # streams of their own: other lesions in the same head, other protocols for the same lesions
    head = random_head(np.random.default_rng([order.seed, number, 0]))
    scanner = draw_scanner(np.random.default_rng([order.seed, number, 1]), order.wishes)
    rng = np.random.default_rng([order.seed, number, 2])
    if order.lesions is None:
        count = draw_count(rng, free=order.lesion_free)
    else:
        count = int(rng.integers(order.lesions[0], order.lesions[1] + 1))
    wishes = LesionWishes(count, order.radius_mm, order.chi_ppm)
    rng = np.random.default_rng([order.seed, number, 3])
    subject = simulate_subject(
        rng, head, scanner, wishes, contrasts=order.contrasts, workers=workers
    )
    return subject, scanner


def _stored(values: Array, step: float) -> Array:
    steps = np.rint(values / np.float32(step))
    return np.asarray(np.clip(steps, -32768, 32767), np.int16)


def _chi_step(chi: Array) -> float:
    """Value of one stored unit with which no susceptibility is cut."""
    return max(CHI_STEP, float(np.abs(chi).max(initial=0.0)) / 32767)


def _images(
    subject: Subject, scanner: Scanner, stem: str
) -> Iterator[tuple[str, Array, float, dict[str, Any]]]:
    """Name, stored values, slope and sidecar of every image."""
    acquisition = scanner.acquisition
    thick = round(acquisition.voxel_mm[acquisition.slice_axis], 4)
    common = {
        'Manufacturer': 'simulated',
        'MagneticFieldStrength': acquisition.protocol.field_t,
        'SliceThickness': thick,
        'SpacingBetweenSlices': thick,
    }
    gradient = {
        **common,
        'PulseSequenceType': 'Spoiled gradient echo',
        'ScanningSequence': 'GR',
        'RepetitionTime': round(scanner.repetition_s, 6),
        'FlipAngle': round(scanner.flip_deg, 3),
    }
    several = len(scanner.echoes_s) > 1
    for index, echo_s in enumerate(scanner.echoes_s):
        timed = {**gradient, 'EchoTime': round(echo_s, 6)}
        for contrast, part in (('T2starw', 'mag'), ('phase', 'phase')):
            if contrast not in subject.images:
                continue
            value = subject.images[contrast][index]
            # a magnitude alone needs no part, and is named as most datasets name it
            words = [stem, f'echo-{index + 1}'] if several else [stem]
            if several or part == 'phase':
                words.append(f'part-{part}')
            words.append('MEGRE' if several else 'T2starw')
            phase = part == 'phase'
            yield (
                '_'.join(words),
                _stored(value, PHASE_STEP if phase else 1 / WHITE),
                PHASE_STEP if phase else 1.0,
                {**timed, 'Units': 'rad'} if phase else timed,
            )
    main = {**gradient, 'EchoTime': round(acquisition.protocol.echo_s, 6)}
    spin = {
        **common, 'PulseSequenceType': 'Spin echo', 'ScanningSequence': 'SE', 'EchoTime': 0.09,
        'RepetitionTime': 5.0,
    }  # fmt: skip
    for contrast, sidecar in (('swi', main), ('T2w', spin)):
        if contrast in subject.images:
            value = subject.images[contrast][0]
            yield f'{stem}_{contrast}', _stored(value, 1 / WHITE), 1.0, sidecar
    if 'Chimap' in subject.images:
        value = subject.images['Chimap'][0]
        step = _chi_step(value)
        yield f'{stem}_Chimap', _stored(value, step), step, {**common, 'Units': 'ppm'}


def write_subject(out_dir: Path, label: str, subject: Subject, scanner: Scanner) -> None:
    """Write one subject and its truth; the folder ``sub-<label>`` appears last and whole.

    Parameters
    ----------
    out_dir : Path
        Root of the dataset.
    label : str
        Without ``sub-``.
    subject : Subject
    scanner : Scanner
        Its protocol.
    """
    stem = f'sub-{label}'
    acquisition = scanner.acquisition
    field, size = (
        reorient_vector(vector, subject.affine, scanner.axes)
        for vector in (acquisition.protocol.b0, acquisition.voxel_mm)
    )
    to_scanner = subject.affine @ np.diag([*(1 / np.array(acquisition.voxel_mm)), 1.0])
    with staging(out_dir, stem) as stage:
        raw, truth = stage / 'raw' / 'anat', stage / 'truth' / 'anat'
        raw.mkdir(parents=True)
        truth.mkdir(parents=True)
        writing = {}
        with ThreadPoolExecutor(THREADS) as pool:
            for name, stored, slope, sidecar in _images(subject, scanner, stem):
                writing[name] = pool.submit(
                    write_image, raw / f'{name}.nii.gz', stored, subject.affine,
                    slope=slope, axes=scanner.axes,
                )  # fmt: skip
                write_json(raw / f'{name}.json', sidecar)
        for job in writing.values():
            job.result()
        write_truth(
            truth, stem, labels=subject.labels, brain=subject.brain, affine=subject.affine,
            to_scanner=to_scanner,
            lesions=[(item.lesion, item.visible, item.peak) for item in subject.lesions],
            mimics=subject.mimics, axes=scanner.axes,
            sources=[f'bids:raw:{stem}/anat/{name}.nii.gz' for name in writing], facts={
                'FieldStrength': acquisition.protocol.field_t,
                'EchoTime': round(acquisition.protocol.echo_s, 6),
                'FieldDirection': [round(value, 6) for value in field],
                'VoxelSize': [round(abs(value), 4) for value in size],
                'SignalToNoise': round(acquisition.snr, 3),
                'Slices': ('sagittal', 'coronal', 'axial')[acquisition.slice_axis],
            },
        )  # fmt: skip
        settle(stage / 'truth', out_dir / 'derivatives' / 'truth' / stem)
        settle(stage / 'raw', out_dir / stem)


def subject_label(number: int) -> str:
    """Label of a subject by its number."""
    return f'{number:03d}'


def _finished(out_dir: Path, label: str) -> bool:
    return all(
        (root / f'sub-{label}').is_dir() for root in (out_dir, out_dir / 'derivatives/truth')
    )


def _one(out_dir: Path, order: Order, number: int, workers: int) -> int:
    subject, scanner = make_subject(order, number, workers)
    write_subject(out_dir, subject_label(number), subject, scanner)
    return number


def _start_worker() -> None:
    # Ctrl-C is for the parent, which stops its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()


def make_dataset(
    out_dir: Path,
    order: Order,
    subjects: int,
    *,
    nprocs: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the subjects that are missing in a dataset.

    Parameters
    ----------
    out_dir : Path
        New, empty, or begun by this function with the same order.
    order : Order
        What is to be simulated.
    subjects : int
        How many the dataset is to have.
    nprocs : int
        Subjects simulated at the same time; each takes 2 to 4 GB, more with voxels under
        0.25 mm3: 0.1 GB for each million.
    report : callable, optional
        Told how many subjects are finished, and of how many.

    Returns
    -------
    list of str
        Labels of the new subjects.

    Raises
    ------
    UsageError
        When the folder holds something else.
    OutputError
        When it cannot be written.
    TemporaryError
        When a process was killed.
    """
    prepare_root(
        out_dir,
        {**asdict(order), 'simulator': SIMULATOR},
        name='Simulated heads with microbleeds',
        readme=README,
        description={
            'License': 'CC0-1.0',
            'Authors': ['The shivacmb developers', 'Whoever ran the simulation'],
        },
        ignore='*_swi.*\n',
    )
    numbers = [n for n in range(1, subjects + 1) if not _finished(out_dir, subject_label(n))]
    done = subjects - len(numbers)
    tell = report or _silent
    tell(done, subjects)
    for finished in _run(out_dir, order, numbers, nprocs, THREADS):
        done += bool(finished)
        _participants(out_dir)
        tell(done, subjects)
    _participants(out_dir)
    return [subject_label(number) for number in numbers]


def _silent(_done: int, _total: int) -> None:
    """Tell nobody."""


def _run(
    out_dir: Path, order: Order, numbers: list[int], nprocs: int, workers: int
) -> Iterator[int]:
    if nprocs == 1 or len(numbers) < 2:
        for number in numbers:
            yield _one(out_dir, order, number, workers)
        return
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(
        min(nprocs, len(numbers)), mp_context=context, initializer=_start_worker
    )
    before = set(multiprocessing.active_children())
    try:
        jobs = [pool.submit(_one, out_dir, order, number, workers) for number in numbers]
        for job in as_completed(jobs):
            yield job.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise TemporaryError(
            'a process that simulated a subject was killed, most often because memory ran out; '
            'lower --nprocs and run the same command again'
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()


README = """\
# Simulated heads with microbleeds

Made by `shivacmb-tools simulate`; `code/simulate.json` has the settings. No person was scanned:
the anatomy is drawn from the MNI152 maps that nilearn packages, the images follow from a
susceptibility map by the physics of the gradient echo. All images of a subject show the same
truth on the same grid.

| name | content |
|---|---|
| `*_T2starw` | magnitude, white matter about 1000 |
| `*_part-phase_T2starw` | phase in rad, positive where the field is raised |
| `*_swi` | susceptibility-weighted image made of the two |
| `*_Chimap` | true susceptibility in ppm relative to water, within the brain |
| `*_T2w` | spin echo |

With several echo times, magnitude and phase are `*_echo-*_part-*_MEGRE`; white matter is about
1000 at the echo nearest to 20 ms and decays over the echoes, the noise is the same in all.

`derivatives/truth` has the lesions (label map and table, scanner mm), the mimics (table) and the
brain mask. Accuracy on these images says nothing about patients.
"""

_PARTICIPANTS = {
    'lesions': ('Lesions', 'Simulated microbleeds.'),
    'visible_lesions': ('VisibleLesions', 'Microbleeds that can be seen at all.'),
    'field_strength': ('FieldStrength', 'Main field, T.'),
    'echo_time': ('EchoTime', 'Main echo time, s.'),
    'voxel_size': ('VoxelSize', 'Voxel size along the axes of the stored images, mm.'),
    'signal_to_noise': ('SignalToNoise', 'Signal of white matter over the noise.'),
    'slices': ('Slices', 'Orientation of the slices.'),
}


def _participants(out_dir: Path) -> None:
    """Rebuild participants.tsv from the truth of the subjects that are there."""
    truth = out_dir / 'derivatives' / 'truth'
    rows = []
    for folder in sorted(out_dir.glob('sub-*')):
        path = truth / folder.name / 'anat' / f'{folder.name}_desc-CMB_dseg.json'
        if not path.is_file():
            continue
        facts = json.loads(path.read_text('utf-8'))
        row: list[Any] = [folder.name]
        for key, _ in _PARTICIPANTS.values():
            value = facts[key]
            row.append(' x '.join(map(str, value)) if isinstance(value, list) else value)
        rows.append(row)
    write_table(out_dir / 'participants.tsv', ['participant_id', *_PARTICIPANTS], rows)
    write_json(
        out_dir / 'participants.json',
        {
            'participant_id': {'Description': 'Simulated head.'},
            **{name: {'Description': text} for name, (_, text) in _PARTICIPANTS.items()},
        },
    )
