"""Plots of detectability: one picture per protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shivacmb.bids import replacing

#: Names of plots, by :func:`shivacmb.simulate.detectability.protocol_name`.
_NAME = re.compile(r'detectability_(T2starw|swi)-[0-9.]+-T-TE-[0-9]+-ms-[0-9.ex-]+-mm\.png')


def write_plots(folder: Path, rows: Sequence[dict[str, Any]], title: str) -> list[Path]:
    """Draw sensitivity over radius and susceptibility.

    Parameters
    ----------
    folder : Path
        Exists; plots of an earlier run whose protocols have no row are removed.
    rows : sequence of dict
        From :func:`shivacmb.simulate.detectability.summarise`.
    title : str
        What found the lesions.

    Returns
    -------
    list of Path
        ``detectability_<protocol>.png``, one per protocol.
    """
    paths = []
    for protocol in sorted({row['protocol'] for row in rows}):
        word = re.sub(r'[^A-Za-z0-9.]+', '-', protocol).strip('-')
        path = folder / f'detectability_{word}.png'
        figure = _figure([row for row in rows if row['protocol'] == protocol], protocol, title)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format='png', metadata={'Software': None})
        paths.append(path)
    for old in folder.glob('detectability_*.png'):
        # of a protocol that the table beside it no longer has
        if old not in paths and _NAME.fullmatch(old.name):
            old.unlink(missing_ok=True)
    return paths


def _figure(rows: list[dict[str, Any]], protocol: str, title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    radii = sorted({row['radius_mm'] for row in rows})
    chis = sorted({row['chi_ppm'] for row in rows})
    cells = {(row['radius_mm'], row['chi_ppm']): row for row in rows}
    figure = Figure(figsize=(11.5, 4.8), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    scans = rows[0]['scans']
    figure.suptitle(
        f'{protocol}: {scans} scan{"s" if scans > 1 else ""}, '
        f'{sum(row["implanted"] for row in rows)} simulated lesions, {title}'
    )
    share = np.array(
        [[np.nan if cells[r, c]['sensitivity'] is None else cells[r, c]['sensitivity']
          for r in radii] for c in chis]
    )  # fmt: skip
    picture = left.imshow(share, origin='lower', cmap='viridis', vmin=0, vmax=1, aspect='auto')
    for i, chi in enumerate(chis):
        for j, radius in enumerate(radii):
            cell = cells[radius, chi]
            dark = cell['sensitivity'] is not None and cell['sensitivity'] < 0.6
            left.text(
                j, i, f'{cell["found"]}/{cell["implanted"]}\n({cell["visible"]})', ha='center',
                va='center', fontsize=8, color='white' if dark else 'black',
            )  # fmt: skip
    left.set_xticks(range(len(radii)), [f'{radius:g}' for radius in radii])
    left.set_yticks(range(len(chis)), [f'{chi:g}' for chi in chis])
    left.set_xlabel('radius of the sphere (mm)')
    left.set_ylabel('susceptibility (ppm)')
    left.set_title('found / implanted (visible at all)', fontsize=10)
    figure.colorbar(picture, ax=left, label='sensitivity')
    colours = _colours(len(chis))
    for i, chi in enumerate(chis):
        points = [cells[radius, chi] for radius in radii if cells[radius, chi]['implanted']]
        x = np.array([point['apparent_radius_mm'] for point in points])
        y = np.array([point['sensitivity'] for point in points])
        spread = [[max(0.0, p['sensitivity'] - p['ci_low']) for p in points],
                  [max(0.0, p['ci_high'] - p['sensitivity']) for p in points]]  # fmt: skip
        right.errorbar(
            x, y, yerr=spread, fmt='o-', color=colours[i], capsize=2, ms=4, lw=1.2, alpha=0.9,
            label=f'{chi:g} ppm',
        )  # fmt: skip
    right.set_ylim(-0.03, 1.03)
    right.set_xlabel('radius of what is seen (mm)')
    right.set_ylabel('sensitivity, 95 % interval (Wilson)')
    right.grid(alpha=0.3)
    right.legend(title='susceptibility', fontsize=8)
    return figure


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps['plasma'](0.85 * i / max(1, count - 1)) for i in range(count)]
