"""How a head is scanned when all contrasts are made: protocols of microbleed studies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import UsageError
from shivacmb.simulate.dataset_scan import Acquisition, draw_acquisition, rotation

Array = NDArray[Any]

#: Slice axis by the name of the orientation.
ORIENTATIONS = {'sagittal': 0, 'coronal': 1, 'axial': 2}
# Axes in which scanners store slices: in plane first, slices last.
_STORED = {0: ('PSR', 'ASR', 'PIL'), 1: ('LSP', 'RSA', 'LIP'), 2: ('LAS', 'RAS', 'LPS')}
#: Limits of what may be asked for: (least, most).
LIMITS = {
    'voxel size (mm)': (0.3, 6.0),
    'field (T)': (0.5, 11.7),
    'echo time (ms)': (1.0, 80.0),
    'signal to noise': (2.0, 1000.0),
    # beyond, slices are nearer to another orientation, and would be stored as its own are
    'obliqueness (degrees)': (0.0, 45.0),
}


@dataclass(frozen=True)
class Wishes:
    """What of a protocol is fixed; None is drawn.

    Attributes
    ----------
    voxel_mm : tuple of three float, optional
        In plane, in plane, across slices.
    field_t : float, optional
        Main field in tesla.
    echoes_s : tuple of float, optional
        Echo times in seconds.
    snr : float, optional
        Signal of white matter over the noise.
    orientation : str, optional
        A key of :data:`ORIENTATIONS`.
    oblique_deg : float, optional
        Angle between slices and scanner.
    mimics : float, optional
        Amount of vessels and perivascular spaces, 0 to 3, 1 is usual; above 0 there are
        calcifications, too.
    whole_head : bool
        Scan everything there is instead of the brain with what lies beside it.
    artefacts : bool
        Draw ghosts, partial Fourier and missing slices.
    """

    voxel_mm: tuple[float, float, float] | None = None
    field_t: float | None = None
    echoes_s: tuple[float, ...] | None = None
    snr: float | None = None
    orientation: str | None = None
    oblique_deg: float | None = None
    mimics: float | None = None
    whole_head: bool = False
    artefacts: bool = True

    def __post_init__(self) -> None:
        voxel = self.voxel_mm or ()
        echoes = [1000 * echo for echo in self.echoes_s or ()]
        asked = {
            'voxel size (mm)': voxel,
            'field (T)': [self.field_t],
            'echo time (ms)': echoes,
            'signal to noise': [self.snr],
            'obliqueness (degrees)': [self.oblique_deg],
        }
        for name, values in asked.items():
            low, high = LIMITS[name]
            for value in values:
                if value is not None and not low <= value <= high:
                    raise UsageError(f'{name} {value:g} is not between {low:g} and {high:g}')
        if sorted(set(echoes)) != echoes:
            raise UsageError('echo times must rise; give each once, shortest first')
        if self.orientation is not None and self.orientation not in ORIENTATIONS:
            raise UsageError(
                f'orientation {self.orientation!r} is unknown; take {", ".join(ORIENTATIONS)}'
            )


@dataclass(frozen=True)
class Scanner:
    """One protocol.

    Attributes
    ----------
    acquisition : Acquisition
        Voxels, field, main echo time, field direction, noise, artefacts, mimics, slice axis;
        ``tilt`` is the rotation of the scan's axes against the scanner's.
    echoes_s : tuple of float
        All echo times; the main one is the nearest to 20 ms.
    repetition_s, flip_deg : float
        Of the gradient echo.
    axes : str
        Axes of the stored image, such as ``'LAS'``.
    cut_mm : tuple of two float
        Brain left out at both ends of the slices.
    whole_head : bool
        Whether everything there is gets scanned.
    """

    acquisition: Acquisition
    echoes_s: tuple[float, ...]
    repetition_s: float
    flip_deg: float
    axes: str
    cut_mm: tuple[float, float] = (0.0, 0.0)
    whole_head: bool = False

    @property
    def turn(self) -> Array:
        """Rotation [3, 3] from the scan's axes to the scanner's."""
        return rotation(self.acquisition.tilt)


def draw_scanner(rng: np.random.Generator, wishes: Wishes | None = None) -> Scanner:
    """Draw a protocol.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw. What is fixed changes nothing else that is drawn.
    wishes : Wishes, optional
        What is fixed.

    Returns
    -------
    Scanner
    """
    wishes = wishes or Wishes()
    drawn = draw_acquisition(rng)
    axis = drawn.slice_axis
    if wishes.orientation is not None:
        axis = ORIENTATIONS[wishes.orientation]
    plane, through = min(drawn.voxel_mm), max(drawn.voxel_mm)
    if wishes.voxel_mm is not None:
        sizes = list(wishes.voxel_mm[:2])
        sizes.insert(axis, wishes.voxel_mm[2])
    else:
        sizes = [plane] * 3
        sizes[axis] = through
    angles = np.array(drawn.tilt) * [1.0, 0.5, 0.5]
    if wishes.oblique_deg is not None:
        # tilted about the left-right axis, as slices along the line between the commissures are;
        # that axis lies across sagittal slices, which would turn in their own plane
        angles = np.zeros(3)
        angles[1 if axis == 0 else 0] = np.deg2rad(wishes.oblique_deg)
    echoes = wishes.echoes_s or (drawn.protocol.echo_s,)
    main = min(echoes, key=lambda echo: abs(echo - 0.020))
    tilt = (float(angles[0]), float(angles[1]), float(angles[2]))
    along = rotation(tilt).T @ [0.0, 0.0, 1.0]
    protocol = replace(
        drawn.protocol,
        field_t=wishes.field_t or drawn.protocol.field_t,
        echo_s=main,
        b0=(float(along[0]), float(along[1]), float(along[2])),
    )
    spoiled, long = rng.random() < 0.6, float(rng.uniform(0.5, 0.9))
    short, wide, narrow = (float(rng.uniform(*ends)) for ends in ((4, 15), (15, 30), (10, 22)))
    cut = rng.uniform(0.0, 20.0, 2) * (rng.random(2) < 0.15)
    stored = _STORED[axis][int(rng.integers(3))]
    keep = wishes.artefacts
    acquisition = replace(
        drawn,
        voxel_mm=(sizes[0], sizes[1], sizes[2]),
        tilt=tilt,
        protocol=protocol,
        snr=wishes.snr or drawn.snr,
        kspace=drawn.kspace if keep else 1.0,
        ghost=drawn.ghost if keep else 0.0,
        strip=False,
        mimics=drawn.mimics if wishes.mimics is None else wishes.mimics,
        slice_axis=axis,
    )
    return Scanner(
        acquisition,
        tuple(echoes),
        max(echoes) + 1e-3 * short if spoiled else long,
        narrow if spoiled else wide,
        stored,
        (float(cut[0]), float(cut[1])) if keep else (0.0, 0.0),
        wishes.whole_head,
    )
