"""Write a scan's outputs whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import secrets
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import OutputError
from shivacmb.processes import ended_or_abandoned, owner

if TYPE_CHECKING:
    from types import TracebackType

    import nibabel as nib

# Level 1 halves the time of level 6 and costs a tenth more space
GZIP_LEVEL = 1
MKDIR_TRIES = 20


def staging_folder(parent: Path, stem: str) -> Path:
    """Name the scratch folder of a scan so that its owner can be told from it."""
    return parent / f'{stem}.{secrets.token_hex(4)}@{owner()}'


def remove_stale_staging(parent: Path) -> None:
    """Remove scratch folders of killed runs; those of other machines once they are a day old."""
    owned = []
    for folder in sorted(parent.glob('*@*')):
        where, _, pid = folder.name.rpartition('@')[2].rpartition('-')
        if pid.isdigit():
            owned.append((folder, where, int(pid)))
    for folder in ended_or_abandoned(parent, owned):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        parent.rmdir()


@dataclass
class Staging:
    """A folder on the same file system as the outputs, from which each file moves by rename.

    Attributes
    ----------
    folder : Path
        Private to one scan and process; removed at the end. A run that was killed leaves at most
        this folder behind, never part of an output.
    """

    folder: Path
    _moves: dict[Path, Path] = field(default_factory=dict)

    def __enter__(self) -> Staging:
        """Make the folder; another process may just have removed the empty parent."""
        for _ in range(MKDIR_TRIES):
            with contextlib.suppress(FileNotFoundError):
                self.folder.mkdir(parents=True)
                return self
        self.folder.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder, and its parent where this was the last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def place(self, target: Path) -> Path:
        """Return where to write what will become ``target``."""
        staged = self.folder / f'{len(self._moves):03d}_{target.name}'
        self._moves[staged] = target
        return staged

    def text(self, target: Path, content: str) -> None:
        """Stage a text file."""
        self.place(target).write_text(content, encoding='utf-8')

    def json(self, target: Path, content: dict[str, Any]) -> None:
        """Stage a JSON file with sorted keys."""
        self.text(target, json.dumps(content, indent=2, sort_keys=True) + '\n')

    def images(self, images: dict[Path, nib.Nifti1Image], threads: int) -> None:
        """Stage compressed images; zlib works outside Python's lock, so threads help."""
        staged = [(self.place(target), image) for target, image in images.items()]
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(lambda item: _write_image(*item), staged))

    def sync(self) -> None:
        """Have every file on the disk and every folder made: a full disk shows here at the latest.

        A power cut must not leave an empty file under a final name.
        """
        for staged, target in self._moves.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _to_disk(staged)

    def commit(self) -> None:
        """Move every staged file to its place, in the order they were staged."""
        for staged, target in self._moves.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
        self._moves.clear()


class _RunLengthGzip(gzip.GzipFile):
    """Gzip that looks for runs of equal bytes only, not for earlier text.

    Measured values are noise in their lower bytes: there is nothing to find in them. Looking costs
    two thirds of the time and gains at most 4 %; runs of zero compress better this way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compress = zlib.compressobj(
            GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE
        )


def _write_image(path: Path, image: nib.Nifti1Image) -> None:
    """Write ``.nii.gz`` without name or time in the gzip header: same input, same bytes."""
    kind = _RunLengthGzip if image.get_data_dtype().kind == 'f' else gzip.GzipFile
    with path.open('wb') as raw, kind('', 'wb', GZIP_LEVEL, fileobj=raw, mtime=0) as stream:
        # Slice by slice: a whole image as bytes would double its memory
        image.to_stream(stream)


def _to_disk(path: Path) -> None:
    """Have the data on the disk before its name is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OutputError(f'cannot write <{path}>: {error.strerror}; check the disk') from error
    finally:
        os.close(descriptor)
