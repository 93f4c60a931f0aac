"""A small BIDS dataset of simulated scans: ``python -m shivacmb.simulate.demo -o DIR``.

Three people: a T2*-weighted scan with lesions, an SWI with lesions in a session of its own, and a
T2*-weighted scan without any. The same version of the libraries gives the same bytes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import write_text
from shivacmb.simulate.anatomy import random_head
from shivacmb.simulate.dataset_scan import Acquisition, Scan
from shivacmb.simulate.exact import one_thread
from shivacmb.simulate.files import write_image, write_json
from shivacmb.simulate.lesions import Protocol, visible_label
from shivacmb.simulate.scanner import Scanner
from shivacmb.simulate.subject import LesionWishes, simulate_subject

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]

#: Stored value of the 99th percentile of the brain; small numbers keep the files small.
TOP = 60.0


@dataclass(frozen=True)
class DemoScan:
    """One scan of the demo: where it goes, how it is made."""

    participant: str
    session: str | None
    entities: str
    suffix: str
    orientation: str
    seed: int
    acquisition: Acquisition
    lesions: int
    age: int
    sex: str

    @property
    def folder(self) -> str:
        """Folder of the scan in the dataset."""
        return (
            f'sub-{self.participant}' + (f'/ses-{self.session}' if self.session else '') + '/anat'
        )

    @property
    def stem(self) -> str:
        """File name up to the suffix."""
        session = f'_ses-{self.session}' if self.session else ''
        return f'sub-{self.participant}{session}{self.entities}'


def _acquisition(voxel: tuple[float, float, float], tesla: float, echo: float) -> Acquisition:
    return Acquisition(
        voxel_mm=voxel, tilt=(0.1, 0.03, -0.05), protocol=Protocol(tesla, echo), snr=40.0,
        lesions=0, mimics=0.6,
    )  # fmt: skip


SCANS = (
    DemoScan(
        '01', None, '', 'T2starw', 'LAS', 101,
        _acquisition((1.2, 1.2, 2.2), 3.0, 0.020), 6, 74, 'F',
    ),
    DemoScan(
        '02', '1', '_acq-highres', 'swi', 'LPS', 102,
        _acquisition((1.1, 1.1, 2.4), 3.0, 0.025), 3, 68, 'M',
    ),
    DemoScan(
        '03', None, '', 'T2starw', 'RAS', 103,
        _acquisition((1.2, 1.2, 2.5), 1.5, 0.025), 0, 71, 'F',
    ),
)  # fmt: skip


def _write_image(path: Path, array: Array, scan: Scan, orientation: str) -> None:
    """Write an image that lies in the repository, so as small as it gets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, array, scan.affine, axes=orientation, level=9)


@one_thread
def make_scan(demo: DemoScan) -> Scan:
    """Simulate one scan of the demo.

    Parameters
    ----------
    demo : DemoScan
        Which.

    Returns
    -------
    Scan
        By way of a susceptibility map; all lesions large and strong enough to be seen.
    """
    rng = np.random.default_rng(demo.seed)
    head = random_head(rng)
    protocol = demo.acquisition.protocol
    scanner = Scanner(demo.acquisition, (protocol.echo_s,), 0.04, 15.0, demo.orientation)
    wishes = LesionWishes(demo.lesions, radius_mm=(1.5, 2.6), chi_ppm=(0.8, 2.5))
    subject = simulate_subject(rng, head, scanner, wishes, contrasts=(demo.suffix,), workers=1)
    image = subject.images[demo.suffix][0]
    return Scan(
        image, subject.brain, demo.acquisition.voxel_mm, subject.affine,
        [(seen.box, seen.drop) for seen in subject.lesions],
        [seen.lesion for seen in subject.lesions], subject.mimic_loss,
        [(kind, point) for kind, point, _ in subject.mimics], np.ones_like(image),
    )  # fmt: skip


def _truth(folder: Path, demo: DemoScan, scan: Scan) -> None:
    labels = np.zeros(scan.image.shape, np.uint8)
    # the axes of the scan lie askew to the scanner's
    turn = scan.affine[:3, :3] / np.asarray(scan.voxel_mm)
    rows = ['index\tx\ty\tz\tzone\tapparent_radius_mm\tchi_ppm\tvolume_mm3\tpeak_drop']
    for number, (lesion, (box, drop)) in enumerate(
        zip(scan.lesions, scan.drops, strict=True), start=1
    ):
        mark = visible_label(drop)
        view = labels[box]
        view[mark & (view == 0)] = number
        x, y, z = turn @ np.asarray(lesion.centre) + scan.affine[:3, 3]
        volume = float(mark.sum() * np.prod(scan.voxel_mm))
        rows.append(
            f'{number}\t{x:.2f}\t{y:.2f}\t{z:.2f}\t{lesion.zone}\t{lesion.apparent_radius:.2f}\t'
            f'{lesion.chi:.2f}\t{volume:.1f}\t{float(drop.max()):.2f}'
        )
    mimics = ['kind\tx\ty\tz']
    for kind, point in scan.mimics:
        x, y, z = turn @ point + scan.affine[:3, 3]
        mimics.append(f'{kind}\t{x:.2f}\t{y:.2f}\t{z:.2f}')
    base = folder / demo.folder
    _write_image(base / f'{demo.stem}_desc-CMB_dseg.nii.gz', labels, scan, demo.orientation)
    mask = scan.brain.astype(np.uint8)
    _write_image(base / f'{demo.stem}_desc-brain_mask.nii.gz', mask, scan, demo.orientation)
    write_text(base / f'{demo.stem}_desc-CMB_dseg.tsv', '\n'.join(rows) + '\n')
    write_text(base / f'{demo.stem}_desc-mimics_dseg.tsv', '\n'.join(mimics) + '\n')


_README = """# Simulated microbleeds

Three simulated heads made by `python -m shivacmb.simulate.demo`: no person was scanned.
The anatomy is drawn from the MNI152 maps that nilearn packages, the lesions follow the field of
small magnetised spheres, and vessels, iron and calcium imitate them. `derivatives/truth` has the
lesions: a label map, a table in scanner mm and the brain mask of each scan.

sub-01 and sub-02 have lesions, sub-03 has none. Licence: CC0-1.0.
"""


def make_demo(folder: Path) -> None:
    """Write the dataset.

    Parameters
    ----------
    folder : Path
        Created when missing; files of the same names are replaced.
    """
    common = {'BIDSVersion': '1.10.0', 'License': 'CC0-1.0',
              'Authors': ['The shivacmb developers']}  # fmt: skip
    made = [{'Name': 'shivacmb', 'Description': 'python -m shivacmb.simulate.demo'}]
    write_json(folder / 'dataset_description.json',
               {'Name': 'Simulated microbleeds', 'DatasetType': 'raw',
                **common, 'GeneratedBy': made})  # fmt: skip
    truth = folder / 'derivatives' / 'truth'
    write_json(truth / 'dataset_description.json',
               {'Name': 'Truth of the simulated microbleeds', 'DatasetType': 'derivative',
                **common, 'GeneratedBy': made})  # fmt: skip
    write_text(folder / 'README.md', _README)
    write_text(folder / '.bidsignore', '*_swi.nii.gz\n*_swi.json\n')
    people = [f'sub-{s.participant}\t{s.age}\t{s.sex}\t{s.lesions}' for s in SCANS]
    write_text(
        folder / 'participants.tsv',
        'participant_id\tage\tsex\tlesions\n' + '\n'.join(people) + '\n',
    )
    write_json(folder / 'participants.json', {
        'age': {'Description': 'Invented age', 'Units': 'year'},
        'sex': {'Description': 'Invented sex', 'Levels': {'F': 'female', 'M': 'male'}},
        'lesions': {'Description': 'Simulated microbleeds'},
    })  # fmt: skip
    for demo in SCANS:
        write_scan(folder, demo)


def write_scan(folder: Path, demo: DemoScan) -> None:
    """Simulate one scan and write it with its truth.

    Parameters
    ----------
    folder : Path
        Of the dataset.
    demo : DemoScan
        Which.
    """
    scan = make_scan(demo)
    stored = np.rint(np.clip(np.where(scan.image < 0.06, 0.0, scan.image), 0, 4) * TOP).astype(
        np.int16
    )
    name = f'{demo.stem}_{demo.suffix}'
    _write_image(folder / demo.folder / f'{name}.nii.gz', stored, scan, demo.orientation)
    protocol = demo.acquisition.protocol
    write_json(folder / demo.folder / f'{name}.json', {
        'Manufacturer': 'simulated', 'MagneticFieldStrength': protocol.field_t,
        'EchoTime': protocol.echo_s, 'MRAcquisitionType': '3D',
        'SliceThickness': demo.acquisition.voxel_mm[2],
    })  # fmt: skip
    _truth(folder / 'derivatives' / 'truth', demo, scan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of ``sys.argv``.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(prog='python -m shivacmb.simulate.demo', description=__doc__)
    parser.add_argument('-o', '--output', type=Path, required=True, help='folder of the dataset')
    make_demo(parser.parse_args(arguments).output)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
