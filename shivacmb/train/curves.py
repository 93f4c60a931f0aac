"""Learning curves of all folds: one table and one picture."""

from __future__ import annotations

from pathlib import Path

from shivacmb.bids import replacing
from shivacmb.exceptions import DataError

Rows = list[dict[str, float | None]]


def read_curve(path: Path) -> Rows:
    """Read the learning curve of one fold; None stands for n/a, no row for a missing file.

    Raises
    ------
    DataError
        The file is damaged.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text('utf-8').splitlines()
        titles = lines[0].split('\t')
        return [
            {
                title: None if cell == 'n/a' else float(cell)
                for title, cell in zip(titles, line.split('\t'), strict=True)
            }
            for line in lines[1:]
        ]
    except (OSError, ValueError, IndexError) as error:
        raise damaged_curve(path) from error


def damaged_curve(path: Path) -> DataError:
    """Say what to do about a learning curve that cannot be read."""
    return DataError(
        f'the learning curve <{path}> cannot be read, it was altered or not copied completely: '
        'copy it again, or remove it, its rows are then left out'
    )


def join_curves(folds: list[Rows]) -> str:
    """Return the text of one table with a column for the fold."""
    titles = ('step', 'learning_rate', 'loss', 'validation_loss')
    lines = ['\t'.join(['fold', *titles])]
    for fold, rows in enumerate(folds):
        lines += ['\t'.join([str(fold), *(_cell(t, row) for t in titles)]) for row in rows]
    return '\n'.join(lines) + '\n'


def _cell(title: str, row: dict[str, float | None]) -> str:
    value = row.get(title)
    if value is None:
        return 'n/a'
    # six digits would round the steps of a long training
    return f'{value:.0f}' if title == 'step' else f'{value:g}'


def plot_curves(folds: list[Rows], path: Path, *, title: str) -> None:
    """Draw loss and learning rate over the steps.

    Parameters
    ----------
    folds : list of rows
        Of :func:`read_curve`.
    path : Path
        PNG to write.
    title : str
        Above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    colours = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9']
    for fold, rows in enumerate(folds):
        colour = colours[fold % len(colours)]
        steps = [row['step'] for row in rows]
        loss.plot(steps, [row['loss'] for row in rows], color=colour, linewidth=1,
                  label=f'fold {fold}: training')  # fmt: skip
        seen = [row for row in rows if row.get('validation_loss') is not None]
        points = [row['step'] for row in seen], [row['validation_loss'] for row in seen]
        loss.plot(*points, '--', color=colour, marker='o', markersize=3,
                  label=f'fold {fold}: unseen scans')  # fmt: skip
        rate.plot(steps, [row['learning_rate'] for row in rows], color=colour, linewidth=0.8)
    loss.set_ylabel('loss')
    loss.set_title(title)
    loss.grid(alpha=0.3)
    loss.legend(fontsize=8, ncols=min(3, len(folds)), frameon=False)
    rate.set_ylabel('learning rate')
    rate.set_xlabel('step')
    rate.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png')
