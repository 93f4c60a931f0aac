"""Unpack archives from elsewhere."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from shivacmb.exceptions import ModelError
from shivacmb.models.descriptor import is_inside

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 30
MAX_MEMBERS = 20_000
# Weights hardly compress; JSON and graphs do, by less than this.
MAX_RATIO = 200
_CHUNK = 1 << 20
#: What Python's zipfile and its decompressors raise on archives that were damaged or made up.
DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file after a look at what is in it.

    Parameters
    ----------
    archive : Path
        Zip file.
    folder : Path
        Empty folder to fill.

    Raises
    ------
    ModelError
        It is no zip file, is damaged, or holds absolute paths, ``..``, links, encrypted members,
        or far more than an archive of its size should.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check(archive, members)
            for member in members:
                _extract(opened, member, folder, archive)
    except DAMAGED as error:
        msg = f'<{archive}> is not a readable zip file: {error}'
        raise ModelError(msg) from error
    except OSError as error:
        msg = f'cannot unpack <{archive}>: {error.strerror or error}'
        raise ModelError(msg) from error


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    packed = max(archive.stat().st_size, 1)
    if len(members) > MAX_MEMBERS or total > MAX_BYTES or total / packed > MAX_RATIO:
        msg = (
            f'<{archive}> would unpack to {len(members)} files of {total / 1e6:.0f} MB from '
            f'{packed / 1e6:.1f} MB: that is no model; unpack it yourself if you trust it'
        )
        raise ModelError(msg)
    seen = set()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not is_inside(member.filename) or member.filename in seen:
            problem = 'a path that points out of it, or twice the same path'
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = 'a link or a special file'
        elif member.flag_bits & 1:
            problem = 'an encrypted file'
        else:
            seen.add(member.filename)
            continue
        msg = f'<{archive}> holds {problem} ({member.filename!r}); it is not unpacked'
        raise ModelError(msg)


def _extract(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, archive: Path
) -> None:
    target = folder / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with opened.open(member) as source, target.open('xb') as sink:
        while chunk := source.read(_CHUNK):
            # the size in the directory was checked, so it has to be the truth
            left -= len(chunk)
            if left < 0:
                msg = f'<{archive}>: {member.filename!r} is larger than it says'
                raise ModelError(msg)
            sink.write(chunk)
