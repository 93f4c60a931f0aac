"""What a fold may have learnt although it is said to be unseen, and what none has seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from shivacmb.bids import SCAN_CONTRASTS
from shivacmb.exceptions import UsageError
from shivacmb.train.folds import absent_in, folds_sha256, read_folds

if TYPE_CHECKING:
    from pathlib import Path

    from shivacmb.models import Input
    from shivacmb.train.run import Task


#: Entry of a card's training: checksum of its table of folds.
FOLDS_SUM = 'folds_sha256'


def unknown_to_table(
    people: Collection[str], table: Path, folds: int, *, named: bool = True
) -> str:
    """Say that people lost their fold, perhaps because the folder of a dataset was renamed.

    Parameters
    ----------
    people : collection of str
        Of the scans, as in the table.
    table : Path
        Folds of an earlier training.
    folds : int
        Their number.
    named : bool
        Name somebody; a model card must not.

    Returns
    -------
    str
        Empty where everybody is in the table, or everybody in the table has scans. Who had none
        in that training either has not lost a fold now.
    """
    known = set(read_folds(table, folds))
    lost, new = known - absent_in(table) - set(people), set(people) - known
    if not lost or not new:
        return ''
    one, other = (f', such as {min(those)},' if named else '' for those in (lost, new))
    return (
        f'{len(lost)} people of the table{one} are not among these scans, and {len(new)} of '
        f'these{other} are not in the table; the name of a dataset is that of its folder'
    )


def start_caution(task: Task, people: Collection[str]) -> str:
    """Say whether a network may have begun with weights that learnt from its unseen scans.

    Parameters
    ----------
    task : Task
        The training.
    people : collection of str
        Of its scans, as in the table of folds.

    Returns
    -------
    str
        Empty where each fold begins with the fold that left the same people out.
    """
    start = task.start
    if start is None:
        return ''
    inherited = start.training.get('caution', '')
    if len(start.folds) != task.plan.folds:
        reason = f'each fold with the mean of its {len(start.folds)}'
    elif task.fold_table is None:
        reason = 'without a table of folds'
    elif task.same_names:
        reason = 'with a table of folds that cannot tell datasets in folders of one name apart'
    elif unknown := unknown_to_table(people, task.fold_table, task.plan.folds, named=False):
        reason = f'with a table of folds that does not fit ({unknown})'
    elif start.training.get(FOLDS_SUM, '') not in (
        '', folds_sha256(read_folds(task.fold_table, task.plan.folds))
    ):  # fmt: skip
        reason = 'with another table of folds than that of its own training, or one with more rows'
    elif inherited:
        return f'of {start.name} {start.version}, with which the training began: {inherited}'
    else:
        return ''
    return (
        f'the training began with {start.name} {start.version}, {reason}: if people of these '
        'scans were among those it learnt from, no scan is unseen and these numbers are too good'
    )


def check_images(facts: Mapping[str, Mapping[str, Any]], folds: Mapping[str, int]) -> None:
    """Refuse one image under the names of two people: a fold would be tested on what it learnt.

    Parameters
    ----------
    facts : mapping
        Of each scan.
    folds : mapping of str to int
        Of each scan.

    Raises
    ------
    UsageError
        Naming two scans.
    """
    owners: dict[str, str] = {}
    for name, own in facts.items():
        other = owners.setdefault(own['image_sha256'], name)
        if folds[other] != folds[name]:
            raise UsageError(
                f'{other} and {name} are the same image, and would be learnt from in one fold and '
                'count as unseen in another; take the label map of one away, or leave its dataset '
                'out. If the two are one person, put both into one fold with --fold-table'
            )


def tell_contrasts(
    first: Input, facts: Mapping[str, Mapping[str, Any]], tell: Callable[[str], None]
) -> None:
    """Say which scans a model would accept and has never seen.

    Parameters
    ----------
    first : Input
        Channel of the scans.
    facts : mapping
        Of each scan.
    tell : callable
        Receives the line.
    """
    known = {item for item in first.contrasts if item in SCAN_CONTRASTS}
    if unseen := sorted(known - {own['contrast'] for own in facts.values()}):
        tell(
            f'warning: no scan is {" or ".join(unseen)}, and the model will accept such scans; '
            f'to have it refuse them, give --input {first.name}='
            + ','.join(item for item in first.contrasts if item not in unseen)
        )
