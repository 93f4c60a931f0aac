"""The two pictures of a scan's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shivacmb.reports.closeups import draw_closeups
from shivacmb.reports.overview import draw_overview
from shivacmb.reports.views import BoxLike, LesionLike, turn_to_ras


def write_figures(
    image: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    mask: npt.NDArray[np.generic],
    box: BoxLike | None,
    lesions: Sequence[LesionLike],
    affine: npt.NDArray[np.floating],
    overview_path: str | Path,
    lesions_path: str | Path,
    *,
    title: str = '',
) -> tuple[Path, ...]:
    """Draw a scan's overview and its lesions.

    Parameters
    ----------
    image : (X, Y, Z) array of float
        The reoriented 1 mm image (not the network's box), finite.
    labels : (X, Y, Z) array of int
        Lesions on the same grid.
    mask : (X, Y, Z) array
        Non-zero inside the brain.
    box : object with ``start`` and ``shape``, or None
        What the network saw, in voxels of this grid.
    lesions : sequence of lesions
        Rows of the per-lesion table.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm; any orientation.
    overview_path, lesions_path : path
        PNG files to write; folders are made. A scan without lesions gets no second picture, and
        one left there by an earlier run is removed.
    title : str
        Heading, such as the scan's name.

    Returns
    -------
    tuple of Path
        What was written.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    volumes = turn_to_ras(image, labels, mask, affine, box)
    overview_path, lesions_path = Path(overview_path), Path(lesions_path)
    lead = f'{title}   ' if title else ''
    count = f'{len(lesions)} microbleed{"" if len(lesions) == 1 else "s"} found'
    written = [draw_overview(volumes, lesions, lead + count).save(overview_path)]
    if lesions:
        written.append(draw_closeups(volumes, lesions, lead + 'lesions').save(lesions_path))
    else:
        lesions_path.unlink(missing_ok=True)
    return tuple(written)
