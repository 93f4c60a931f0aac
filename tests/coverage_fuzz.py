"""Fuzz what reads images and sidecars, guided by the lines it reaches (needs ``atheris``).

Not a test: it runs for as long as it is told, and keeps what reaches a new line in a folder::

    python tests/coverage_fuzz.py images -max_total_time=120 FOLDER
    python tests/coverage_fuzz.py sidecars -max_total_time=120 FOLDER
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

# atheris ships no types and is no dependency
import atheris
import nibabel as nib
import numpy as np

with atheris.instrument_imports(include=['shivacmb.imaging', 'shivacmb.bids']):
    from shivacmb import imaging
    from shivacmb.bids import rules
    from shivacmb.bids.sidecars import SidecarReader

from shivacmb.exceptions import DataError


def images(folder: Path) -> Callable[[bytes], None]:
    """Read the bytes as an image: a sentence that names the file, or an image."""
    path = folder / 'scan.nii'

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            imaging.reorient_to_std(imaging.load_scan(path).image)
        except DataError as error:
            said = str(error)
            if f'<{path}>' not in said or '\n' in said:
                raise AssertionError(said) from error

    return one


def sidecars(folder: Path) -> Callable[[bytes], None]:
    """Read the bytes as a sidecar: a sentence that names the file, or metadata."""
    name = 'sub-01_T2starw.json'

    def one(data: bytes) -> None:
        (folder / name).write_bytes(data)
        try:
            found = SidecarReader().merged([(folder, [name])], {'sub': '01'}, 'T2starw')
        except DataError as error:
            said = str(error)
            if f'<{folder / name}>' not in said or '\n' in said:
                raise AssertionError(said) from error
        else:
            rules.refusal_by_metadata(found)
            rules.refusal_by_series('T2starw', {'sub': '01'}, found)
            rules.contrast_of('T2starw', {'sub': '01'}, found)

    return one


def seeds(kind: str, folder: Path) -> None:
    """Write what fuzzing starts from."""
    if kind == 'sidecars':
        (folder / 'seed').write_bytes(b'{"EchoTime": 0.02, "ImageType": ["ORIGINAL", "M"]}')
        return
    values = np.random.default_rng(1).integers(0, 900, (24, 24, 24)).astype(np.int16)
    for made in (nib.Nifti1Image, nib.Nifti2Image):
        image = made(values, np.diag([4.0, 4.0, 4.0, 1.0]))
        image.set_sform(image.affine, 1)
        (folder / f'seed-{made.__name__}').write_bytes(image.to_bytes())


def main() -> None:
    """Run until libFuzzer's own options say that it is enough."""
    kind, *words = sys.argv[1:]
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        start = Path(name) / 'seeds'
        start.mkdir()
        seeds(kind, start)
        work = Path(name) / 'work'
        work.mkdir()
        one = {'images': images, 'sidecars': sidecars}[kind](work)
        atheris.Setup([sys.argv[0], '-max_len=60000', *words, str(start)], one)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
