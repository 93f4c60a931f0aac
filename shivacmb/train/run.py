"""A training from label maps to a bundle, in as many runs as it takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from shivacmb.bids import write_text
from shivacmb.exceptions import DataError, UsageError
from shivacmb.train.backend import computes_bfloat16, describe_machine, start_backend
from shivacmb.train.checkpoint import CHECKPOINT, raise_if_server, saved_weights
from shivacmb.train.dataset import JUDGED, Query
from shivacmb.train.folds import assign_folds, check_folds, read_folds, write_folds
from shivacmb.train.gather import gather_labelled
from shivacmb.train.lock import is_locked, locked
from shivacmb.train.loop import PausedError, Watch, safe_precision, train
from shivacmb.train.plan import PATCHES_PER_SCAN, Plan, check_same
from shivacmb.train.runs import damaged, note_rate, note_run, read_record
from shivacmb.train.sources import VolumeSource
from shivacmb.train.start import fold_weights, mean_of
from shivacmb.train.unseen import check_images, start_caution, tell_contrasts, unknown_to_table
from shivacmb.train.volumes import (
    LAYOUT,
    Preparation,
    names_in,
    note_pool,
    open_volume,
    prepare_all,
)

if TYPE_CHECKING:
    from shivacmb.models import Bundle

Array = NDArray[Any]

POOL, SETTINGS, FOLDS = 'pool', 'settings.json', 'folds.tsv'
# Parts of the settings that hold a value for each scan
_BY_SCAN = ('scans', 'folds of scans')
#: Most validation batches at a look.
LOOKS = 8


@dataclass(frozen=True)
class Task:
    """What to train on, where to write.

    Attributes
    ----------
    plan : Plan
        Choices of the training.
    query : Query
        What to look for in the datasets.
    sets : tuple of (Path, Path)
        Datasets and their labels.
    work : Path
        Folder of prepared scans and checkpoints; a second run continues there.
    start : Bundle or None
        Begin with its weights.
    fold_table : Path or None
        Folds of persons that are decided already.
    from_pool : bool
        Take the scans prepared in ``work``, without a look at the datasets.
    workers : int
        Processes and threads that prepare scans and draw batches.
    only_fold : int or None
        Train this fold alone; another run, on another machine perhaps, does the others.
    """

    plan: Plan
    query: Query
    sets: tuple[tuple[Path, Path], ...]
    work: Path
    start: Bundle | None = None
    fold_table: Path | None = None
    from_pool: bool = False
    workers: int = 1
    only_fold: int | None = None

    @property
    def same_names(self) -> bool:
        """Whether two datasets lie in folders of the same name."""
        folders = {bids.resolve() for bids, _ in self.sets}
        return len({path.name for path in folders}) < len(folders)


@dataclass(frozen=True)
class Trained:
    """The folds of a training.

    Attributes
    ----------
    weights : list of list of ndarray
        By fold.
    names : list of list of str
        The scans that each fold did not see.
    facts : dict of str to dict
        Of each scan.
    seconds : float
        Spent on training, all runs and folds together.
    steps : list of int
        Behind the weights.
    """

    weights: list[list[Array]]
    names: list[list[str]]
    facts: dict[str, dict[str, Any]]
    seconds: float
    steps: list[int]


Stop = Callable[[], bool]
Tell = Callable[[str], None]


def gather(task: Task, stop: Stop, tell: Tell) -> list[str]:
    """Find and prepare the scans.

    Returns
    -------
    list of str
        Their names, sorted.

    Raises
    ------
    PausedError
        ``stop`` said so before all were prepared.
    """
    pool = task.work / POOL
    how = Preparation(task.plan.grid, task.plan.intensity, task.plan.classes, task.plan.ignore)
    channels = [f'{item.name}={",".join(item.contrasts)}' for item in task.plan.inputs]
    if task.from_pool:
        names = names_in(pool, how, channels)
        _check_chosen(task, names)
        return names
    scans = gather_labelled(task.sets, task.query, tell)
    people = len({scan.person for scan in scans})
    tell(f'{len(scans)} labelled scans of {people} people')
    # before hours of preparation
    check_folds(people, task.plan.folds)
    if _begun(task.work):
        # before anything is prepared anew: a fold may be learning from the pool as it is
        _check_continued(_settings(task, {scan.name: how.key(scan) for scan in scans}), task.work)
    note_pool(pool, [scan.name for scan in scans], how, channels)
    if not prepare_all(pool, scans, how, workers=task.workers, stop=stop, tell=tell):
        raise PausedError(
            f'stopped while preparing scans in <{pool}>; run the same command again to go on'
        )
    return sorted(scan.name for scan in scans)


def _check_chosen(task: Task, names: list[str]) -> None:
    """Refuse a choice of participants that the prepared scans do not follow."""
    wanted, left_out = task.query.participants, task.query.exclude
    for name in names:
        label = open_volume(task.work / POOL, name).facts['person'].rpartition('/sub-')[2]
        if label in left_out or (wanted is not None and label not in wanted):
            raise UsageError(
                f'<{task.work / POOL}> was prepared with sub-{label}, whom the options leave out; '
                'run without --from-pool in another work folder, or leave these options out'
            )


def _fixed_folds(task: Task, people: set[str], tell: Tell) -> dict[str, int] | None:
    """Read the table of folds; refuse one that is about other people."""
    if task.fold_table is None:
        return None
    fixed = read_folds(task.fold_table, task.plan.folds)
    known = len(people & fixed.keys())
    if not known:
        raise UsageError(
            f'--fold-table <{task.fold_table}> names none of the {len(people)} people of the '
            f'scans, such as {min(people)}; the name of a dataset is that of its folder: give it '
            'the name that it has in the table, or leave --fold-table out'
        )
    tell(f'{known} of {len(people)} people keep their folds from <{task.fold_table}>')
    if unknown := unknown_to_table(people, task.fold_table, task.plan.folds):
        tell(f'warning: <{task.fold_table}>: {unknown}')
    return fixed


def deal(task: Task, names: list[str], tell: Tell) -> tuple[list[int], dict[str, dict[str, Any]]]:
    """Put scans into folds, and write the table; or refuse a training that began with others.

    Returns
    -------
    folds : list of int
        Of each scan.
    facts : dict
        Of each scan.

    Raises
    ------
    DataError
        No scan has a lesion of a class in its box.
    UsageError
        The scans or the settings differ from those that the training began with.
    """
    plan, work = task.plan, task.work
    facts = {name: open_volume(work / POOL, name).facts for name in names}
    counts = [facts[name]['lesions'][JUDGED] for name in names]
    for item in plan.classes:
        if not any(facts[name]['lesions'][item.name] for name in names):
            outside = sum(facts[name]['outside'][item.name] for name in names)
            raise DataError(
                f'the box leaves all {outside} lesions of {item.name} out; see --shape, and the '
                'brain masks, which place it'
                if outside
                else f'none of the {len(names)} label maps holds {item.name}; check the label '
                'maps, and --class'
            )
    fixed = _fixed_folds(task, {facts[name]['person'] for name in names}, tell)
    folds = assign_folds(
        [facts[name]['person'] for name in names], [facts[name]['dataset'] for name in names],
        counts, folds=plan.folds, seed=plan.seed, fixed=fixed,
    )  # fmt: skip
    for fold, item in product(range(plan.folds), plan.classes):
        seen = [name for name, own in zip(names, folds, strict=True) if own != fold]
        if not any(facts[name]['lesions'][item.name] for name in seen):
            tell(
                f'warning: fold {fold} learns from no {item.name} at all, because it leaves out '
                'everybody who has some; label more people, or lower --folds'
            )
    content = _settings(task, {name: facts[name]['key'] for name in names})
    content['folds of scans'] = dict(zip(names, folds, strict=True))
    check_images(facts, content['folds of scans'])
    if _begun(work):
        _check_continued(content, work)
    write_text(work / SETTINGS, json.dumps(content, indent=1) + '\n')
    rows: list[tuple[str, str, int | str, int]] = [
        (facts[name]['person'], name, count, fold)
        for name, count, fold in zip(names, counts, folds, strict=True)
    ]
    people = {row[0] for row in rows}
    # somebody who is left out of one round comes back to the fold that has not seen them
    rows += [(person, 'n/a', 'n/a', fold) for person, fold in (fixed or {}).items()
             if person not in people]  # fmt: skip
    write_text(work / FOLDS, write_folds(rows))
    return folds, facts


def _begun(work: Path) -> bool:
    """Tell whether a fold learns or has learnt: until then every setting may still change."""
    return (work / SETTINGS).exists() and any(
        (folder / CHECKPOINT).exists() or is_locked(folder) for folder in work.glob('fold-*')
    )


def _settings(task: Task, keys: dict[str, str]) -> dict[str, Any]:
    """What must stay while a training is under way; the folds are dealt later."""
    start = task.start
    return {
        **task.plan.to_json(),
        'layout': LAYOUT,
        'start': f'{start.name} {start.version}' if start else None,
        # a model that was trained anew keeps its name
        **({'start folds': [fold.sha256[:16] for fold in start.folds]} if start else {}),
        'scans': {name: key[:16] for name, key in keys.items()},
    }


def _check_continued(content: dict[str, Any], work: Path) -> None:
    path = work / SETTINGS
    before = read_record(path)
    if not isinstance(before, dict) or not isinstance(before.get('scans'), dict):
        raise damaged(path)
    if not isinstance(before.get('folds of scans'), dict) or before.get('layout') != LAYOUT:
        raise UsageError(
            f'the training in <{work}> was begun by another version; give another folder with '
            '--work'
        )
    settings = {name: value for name, value in content.items() if name not in _BY_SCAN}
    check_same(settings, before, str(work))
    pairs = [(content[name], before[name]) for name in _BY_SCAN if name in content]
    differing = sorted({
        scan for ours, theirs in pairs for scan in {*ours, *theirs}
        if ours.get(scan) != theirs.get(scan)
    })  # fmt: skip
    if differing:
        raise UsageError(
            f'the scans, their labels or their folds differ from those the training in '
            f'<{work}> was begun with ({len(differing)} of them, such as {differing[0]}); '
            'give another folder with --work, and --init-from to begin with an earlier bundle'
        )


def train_folds(task: Task, *, stop: Stop, tell: Tell) -> Trained | None:
    """Prepare scans and train folds, or continue.

    Parameters
    ----------
    task : Task
        What to do.
    stop : callable
        Asked often: True ends the work at a checkpoint.
    tell : callable
        Receives lines about the progress.

    Returns
    -------
    Trained or None
        None when another run has to train the other folds.

    Raises
    ------
    PausedError
        ``stop`` said so.
    DataError, DatasetError, UsageError, OutputError, TemporaryError
        See the parts.
    """
    plan = task.plan
    plan.check()
    told: list[str] = []

    def wait() -> bool:
        # tasks of an array start together: one prepares, the others find it done
        if not told:
            told.append('another run prepares the scans; waiting for it')
            tell(told[0])
        return not stop()

    wanted = range(plan.folds) if task.only_fold is None else [task.only_fold]
    with contextlib.ExitStack() as held:
        with locked(task.work / POOL, wait=wait):
            names = gather(task, stop, tell)
            folds, facts = deal(task, names, tell)
            # a command that waits for the pool must find that this one has begun
            for fold in wanted:
                held.enter_context(locked(task.work / f'fold-{fold}'))
        _train_wanted(task, wanted, names, folds, facts, stop, tell)
    return collect(task, names, folds, facts)


def _train_wanted(
    task: Task, wanted: Sequence[int], names: list[str], folds: list[int],
    facts: dict[str, dict[str, Any]], stop: Stop, tell: Tell,
) -> None:  # fmt: skip
    plan = task.plan
    caution = start_caution(task, {own['person'] for own in facts.values()})
    if caution:
        tell(f'warning: {caution}; --fold-table keeps people in the folds of an earlier training')
    tell_contrasts(plan.inputs[0], facts, tell)
    for name in names:
        for warning in facts[name]['warnings']:
            tell(f'warning: {name}: {warning}')
    start_backend(deterministic=plan.deterministic)
    machine = describe_machine()
    if plan.precision == 'mixed_float16' and machine['device'] == 'cpu':
        raise UsageError(
            f'--precision mixed_float16 needs a GPU, and {machine["backend"]} sees none; use '
            'mixed_bfloat16 or float32'
        )
    used = used_precision(plan, bfloat16=computes_bfloat16())
    if used != plan.precision:
        tell(f'{_why_not(plan)}: {used} is used')
    first = _first_weights(task)
    for fold in wanted:
        seen = [name for name, own in zip(names, folds, strict=True) if own != fold]
        unseen = [name for name, own in zip(names, folds, strict=True) if own == fold]
        if _steps_done(task.work / f'fold-{fold}') < plan.total(len(seen)):
            note_run(task.work, machine, used)
            _train_fold(task, fold, seen, unseen, first[fold], stop, tell)


def _train_fold(
    task: Task, fold: int, seen: list[str], unseen: list[str], first: list[Array] | None,
    stop: Stop, tell: Tell,
) -> None:  # fmt: skip
    import keras

    plan, folder = task.plan, task.work / f'fold-{fold}'
    recipe = plan.recipe(len(seen), fold)
    common: dict[str, Any] = {
        'folder': task.work / POOL, 'classes': len(plan.classes), 'batch': plan.batch,
        'patch': plan.patch, 'top': plan.top,
    }  # fmt: skip
    source = VolumeSource(
        names=seen, seed=recipe.seed, augmentation=plan.augmentation, **common
    )  # fmt: skip
    validation = VolumeSource(names=unseen, seed=recipe.seed, augmentation=None, **common)
    patches = len(unseen) * (1 if plan.patch is None else PATCHES_PER_SCAN)
    watch = Watch(
        stop=stop, validation=validation, batches=min(LOOKS, -(-patches // plan.batch)),
        every=recipe.log_every * 10, save_seconds=300.0, workers=max(1, task.workers),
        tell=lambda row: tell(f'fold {fold}, step ' + _readable(row, recipe.steps)),
    )  # fmt: skip
    tell(f'fold {fold}: {recipe.steps} steps on {len(seen)} scans, {len(unseen)} left out')
    steps = _steps_done(folder)
    if steps or not (folder / CHECKPOINT).exists():
        # of a damaged checkpoint, which may be copied again, nobody knows the steps
        note_rate(folder, plan.described_rate(len(seen)), steps)
    try:
        train(source, recipe, folder, initial=first, watch=watch,
              network=plan.network(len(seen), fold))  # fmt: skip
    finally:
        keras.utils.clear_session()


def _readable(row: str, steps: int) -> str:
    cells = row.split('\t')
    text = f'{cells[0]} of {steps}: loss {cells[2]}'
    if len(cells) > 3 and cells[3] != 'n/a':
        text += f', on unseen scans {cells[3]}'
    return text


def _steps_done(folder: Path) -> int:
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        return saved_weights(folder)[1]
    except Exception as error:  # noqa: BLE001  the loop says what is wrong with it
        raise_if_server(path, error)
        return 0


def _first_weights(task: Task) -> list[list[Array] | None]:
    """Weights that each fold begins with."""
    if task.start is None:
        return [None] * task.plan.folds
    weights = fold_weights(task.start, dict(task.plan.architecture))
    wanted = [tuple(weight.shape) for weight in task.plan.build().get_weights()]
    if any([tuple(weight.shape) for weight in own] != wanted for own in weights):
        raise UsageError(
            f'the networks of {task.start.name} have other layers than its model.json says, or '
            'another output (softmax); give a model that this command made'
        )
    if len(weights) == task.plan.folds:
        return list(weights)
    return [mean_of(weights)] * task.plan.folds


def collect(
    task: Task, names: list[str], folds: list[int], facts: dict[str, dict[str, Any]]
) -> Trained | None:
    """Read the weights of all folds; None when some are not trained yet."""
    weights, left_out, seconds, steps = [], [], 0.0, []
    for fold in range(task.plan.folds):
        folder = task.work / f'fold-{fold}'
        seen = sum(own != fold for own in folds)
        if _steps_done(folder) < task.plan.total(seen):
            return None
        found, step, took = saved_weights(folder)
        weights.append(found)
        steps.append(step)
        seconds += took
        left_out.append([name for name, own in zip(names, folds, strict=True) if own == fold])
    return Trained(weights, left_out, facts, seconds, steps)


def used_precision(plan: Plan, *, bfloat16: bool) -> str:
    """Return the arithmetic that the loop takes, see :func:`safe_precision`."""
    recipe = plan.recipe(1, 0)
    return safe_precision(recipe.precision, recipe.size, bfloat16=bfloat16)


def _why_not(plan: Plan) -> str:
    if used_precision(plan, bfloat16=True) != plan.precision:
        return f'patches of {plan.patch} voxels are too small for {plan.precision}'
    return f'this processor is not known to be fast with {plan.precision}'
