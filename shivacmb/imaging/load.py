"""Read one scan and say in one sentence what is wrong with it (step 2).

The file is read here from its bytes rather than by a general reader, because a reader that
mends headers (voxel size 0 becomes 1) would hide what the user has to know, and because a
broken file must end in a sentence, never in a traceback of gzip or zlib.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError, ShivaCMBError
from shivacmb.imaging.checks import check_geometry, check_values
from shivacmb.imaging.grid import Shape3
from shivacmb.imaging.source import Source, SourceFacts, server_problem
from shivacmb.placeholders import placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIM_MAX = 7
_HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {348: b'n+1', 540: b'n+2'}
_REAL_TYPES = {
    2: 'u1', 4: 'i2', 8: 'i4', 16: 'f4', 64: 'f8', 256: 'i1', 512: 'u2', 768: 'u4',
    1024: 'i8', 1280: 'u8',
}  # fmt: skip
_OTHER_TYPES = {
    1: 'binary', 32: 'complex', 128: 'RGB', 1536: 'float128', 1792: 'complex', 2048: 'complex',
    2304: 'RGBA',
}  # fmt: skip
_FORM_FIELDS = {
    'sform': ('srow_x', 'srow_y', 'srow_z'),
    'qform': ('quatern_b', 'quatern_c', 'quatern_d', 'qoffset_x', 'qoffset_y', 'qoffset_z'),
}
_LAST_CODE, _ALIGNED = 4, 2
_GZIP_MAX_RATIO = 1100  # deflate cannot compress further (1032 to 1)
_READ_ERRORS = (OSError, EOFError, zlib.error, MemoryError)
_AGAIN = 'copy or convert the file again'
_HEADER_BLOCK = 1 << 16


@dataclass(frozen=True)
class LoadedScan:
    """A scan that passed the checks.

    Attributes
    ----------
    image : Nifti1Image
        3-D, float32, finite; forms and codes as in the file, scaling applied.
    warnings : tuple of str
        What a user should know though the scan can be processed.
    source : SourceFacts
        Checksum, size and times of the file that was read.
    """

    image: Any
    warnings: tuple[str, ...]
    source: SourceFacts


@dataclass(frozen=True)
class StoredVoxels:
    """The bytes of an image, and how its voxels stand in them.

    Attributes
    ----------
    content : bytes
        The whole file, unpacked.
    shape : tuple of three int
    dtype : dtype
        With its byte order.
    start : int
        Where the voxels begin, in Fortran order.
    slope, inter : float
        A stored number times the first plus the second is the value.
    """

    content: bytes
    shape: Shape3
    dtype: np.dtype[Any]
    start: int
    slope: float
    inter: float

    def numbers(self) -> npt.NDArray[Any]:
        """Stored numbers, [X, Y, Z]; a copy that may be written to."""
        raw = np.frombuffer(self.content, self.dtype, int(np.prod(self.shape)), self.start)
        return np.array(raw.reshape(self.shape, order='F'), order='F')


def read_stored(path: str | Path) -> StoredVoxels:
    """Read an image as it is stored, with the header understood as :func:`load_scan` does.

    Parameters
    ----------
    path : path-like
        NIfTI of one volume of real numbers.

    Returns
    -------
    StoredVoxels

    Raises
    ------
    DataError
        If the file is missing, damaged, truncated, or not one volume of real numbers.
    TemporaryError
        If it is changed meanwhile, or its file server fails or does not answer.
    """
    path = Path(path)
    with _problems_of(path):
        with Source(path) as source:
            with _unpacked(source, path, 1 << 20) as (stream, _):
                content = stream.read()
            source.facts()
        header, shape = _read_header(io.BytesIO(content), path)
    dtype, gap, _ = _layout(path, header, shape, len(content), zipped=False)
    start = int(header['sizeof_hdr']) + gap
    return StoredVoxels(content, shape, dtype, start, *_scaling(header))


def load_scan(path: str | Path) -> LoadedScan:
    """Read and check one magnitude scan.

    Parameters
    ----------
    path : path-like
        NIfTI-1 or NIfTI-2 single file, ``.nii`` or ``.nii.gz``. Trailing dimensions of size 1
        are dropped.

    Returns
    -------
    LoadedScan

    Raises
    ------
    DataError
        If the file is missing, empty, truncated or no NIfTI; is not one 3-D volume of real
        numbers; has no orientation, a singular or contradictory one, implausible voxel sizes or
        a field of view under 40 mm; is constant, all NaN, or looks like a phase image.
    TemporaryError
        If it is changed meanwhile, or its file server fails or does not answer.
    """
    path = Path(path)
    with _problems_of(path), Source(path) as source:
        try:
            header, values = _read(source, path)
        except (DataError, *_READ_ERRORS):
            source.facts()  # a file that was changed meanwhile looks damaged, too
            raise
        facts = source.facts()
    geometry = check_geometry(path, header, values.shape)
    values, notes = check_values(path, values)
    return LoadedScan(_image(values, header), (*geometry, *notes), facts)


def check_header(path: str | Path) -> tuple[str, ...]:
    """Check what can be told of a scan without its voxels.

    Parameters
    ----------
    path : path-like
        As for :func:`load_scan`.

    Returns
    -------
    tuple of str
        Warnings.

    Raises
    ------
    DataError, TemporaryError
        Those of :func:`load_scan` that its first bytes tell.
    """
    path = Path(path)
    header, shape = _header_alone(path)
    return check_geometry(path, header, shape)


def read_grid(path: str | Path) -> Any:
    """Read where the voxels of a scan lie, without their values.

    Parameters
    ----------
    path : path-like
        As for :func:`load_scan`.

    Returns
    -------
    Nifti1Image
        Shape and affine as :func:`load_scan` gives them; all voxels are 0 and take no memory.

    Raises
    ------
    DataError, TemporaryError
        Those of :func:`check_header`.
    """
    path = Path(path)
    header, shape = _header_alone(path)
    check_geometry(path, header, shape)
    return _image(np.broadcast_to(np.float32(0), shape), header)


def _header_alone(path: Path) -> tuple[Any, Shape3]:
    """Read the first bytes of a file and check what they tell."""
    with (
        _problems_of(path),
        Source(path, _HEADER_BLOCK) as source,
        _unpacked(source, path, _HEADER_BLOCK) as (stream, zipped),
    ):
        header, shape = _read_header(stream, path)
        _layout(path, header, shape, source.size, zipped=zipped)
    return header, shape


def _read(source: Source, path: Path) -> tuple[Any, npt.NDArray[np.float32]]:
    """Return header and scaled voxels."""
    with _unpacked(source, path, 1 << 20) as (stream, zipped):
        header, shape = _read_header(stream, path)
        values = _read_values(stream, path, header, shape, source.size, zipped=zipped)
    return header, values


@contextlib.contextmanager
def _unpacked(source: Source, path: Path, buffer: int) -> Iterator[tuple[IO[bytes], bool]]:
    """Give the bytes of a NIfTI file, and whether they were compressed."""
    if source.size == 0:
        msg = f'<{path}> is empty (0 bytes); {_AGAIN}'
        raise DataError(msg)
    raw = io.BufferedReader(source, buffer)
    try:
        zipped = raw.peek(2)[:2] == b'\x1f\x8b'
        yield cast('IO[bytes]', gzip.GzipFile(fileobj=raw) if zipped else raw), zipped
    finally:
        raw.detach()  # or it would close the source, which has still to be asked


@contextlib.contextmanager
def _problems_of(path: Path) -> Iterator[None]:
    """Say in a sentence why a file cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f'There is no file <{path}>; check the path'
        raise DataError(msg) from error
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> ShivaCMBError:
    """Return what to say of a file that could not be read."""
    if isinstance(error, OSError):
        problem = server_problem(path, error)
        if problem is not None:
            return problem
    if isinstance(error, PermissionError):
        return DataError(f'<{path}> may not be read; give yourself permission to read it')
    if isinstance(error, MemoryError):
        return DataError(
            f'<{path}> needs more memory than there is; free some, or check its dimensions'
        )
    return DataError(f'<{path}> cannot be read to its end, it is truncated or damaged; {_AGAIN}')


def _read_header(stream: IO[bytes], path: Path) -> tuple[Any, Shape3]:
    """Read and check what must be right before the voxels can be read."""
    block = stream.read(348)
    kind = _header_size(block)
    if kind is None:
        msg = f'<{path}> is not a NIfTI file; convert the scan to .nii.gz, for example by dcm2niix'
        raise placeholder(path, block) or DataError(msg)
    block += stream.read(kind - 348)
    if len(block) < kind:
        msg = f'<{path}> is truncated, it ends within its header; {_AGAIN}'
        raise DataError(msg)
    header = _HEADER_BYTES[kind](block, check=False)
    if not bytes(header['magic'].tobytes()).startswith(_MAGIC[kind]):
        msg = f'<{path}> is not a single-file NIfTI (.nii or .nii.gz); convert it to one'
        raise DataError(msg)
    shape = _volume_shape(path, header)
    code = int(header['datatype'])
    if code not in _REAL_TYPES:
        name = _OTHER_TYPES.get(code, f'unknown type {code}')
        msg = f'<{path}> holds {name} values; a magnitude image of real numbers is needed'
        raise DataError(msg)
    return header, shape


def _header_size(block: bytes) -> int | None:
    """348 or 540 if the first field says so in either byte order."""
    for order in ('little', 'big'):
        size = int.from_bytes(block[:4], order)
        if len(block) == 348 and size in _HEADER_BYTES:
            return size
    return None


def _volume_shape(path: Path, header: Any) -> Shape3:
    """Shape of the one volume, trailing dimensions of size 1 dropped."""
    dim = [int(n) for n in header['dim']]
    sizes = dim[1 : dim[0] + 1]
    if not 1 <= dim[0] <= _DIM_MAX or min(sizes) < 1:
        msg = f'<{path}> has impossible dimensions {dim} in its header; {_AGAIN}'
        raise DataError(msg)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 3:
        volumes = int(np.prod(sizes[3:], dtype=object))
        msg = (
            f'<{path}> holds {volumes} volumes; one is needed: split the file and give one '
            'volume (one echo) or their combination'
        )
        raise DataError(msg)
    if len(sizes) < 3 or min(sizes) == 1:
        text = ' x '.join(str(n) for n in sizes)
        msg = f'<{path}> is 2-D ({text} voxels); a 3-D scan of the whole brain is needed'
        raise DataError(msg)
    return sizes[0], sizes[1], sizes[2]


def _layout(
    path: Path, header: Any, shape: Shape3, size: int, *, zipped: bool
) -> tuple[np.dtype[Any], int, int]:
    """Return the type of the voxels, the bytes from header to voxels, and the bytes of voxels."""
    dtype = np.dtype(_REAL_TYPES[int(header['datatype'])]).newbyteorder(header.endianness)
    offset = float(header['vox_offset'])
    least = int(header['sizeof_hdr'])
    possible = offset == 0 or (least <= offset <= 2**31 and offset.is_integer())
    if not possible:
        msg = f'<{path}> has an impossible data offset ({offset:g}) in its header; {_AGAIN}'
        raise DataError(msg)
    start = int(offset) or least + 4
    count = shape[0] * shape[1] * shape[2]
    wanted = count * dtype.itemsize
    if start + wanted > size * (_GZIP_MAX_RATIO if zipped else 1):
        msg = (
            f'<{path}> is truncated: its header announces {wanted} bytes of voxels, more than '
            f'the file can hold; {_AGAIN}'
        )
        raise DataError(msg)
    return dtype, start - least, wanted


def _read_values(
    stream: IO[bytes], path: Path, header: Any, shape: Shape3, size: int, *, zipped: bool
) -> npt.NDArray[np.float32]:
    """Read the voxels and scale them, as Fortran-ordered float32."""
    dtype, gap, wanted = _layout(path, header, shape, size, zipped=zipped)
    _skip(stream, gap)
    data = bytearray(wanted)
    if _read_into(stream, memoryview(data)) < wanted:
        raise EOFError
    while zipped and stream.read(1 << 20):  # to the checksum at the end
        pass
    raw = np.frombuffer(data, dtype=dtype).reshape(shape, order='F')
    slope, inter = _scaling(header)
    scaled = (slope, inter) != (1.0, 0.0)
    with np.errstate(over='ignore', invalid='ignore'):
        values: npt.NDArray[np.float32]
        if not scaled:
            values = raw.astype(np.float32, order='F', copy=False)
        else:
            kind = np.float64 if raw.dtype.itemsize == 8 else np.float32
            wide = raw.astype(kind, order='F')
            wide *= kind(slope)
            wide += kind(inter)
            values = wide.astype(np.float32, order='F', copy=False)
    return values


def _scaling(header: Any) -> tuple[float, float]:
    """Factor and summand of stored numbers; 1 and 0 where the header gives none that is usable."""
    slope, inter = float(header['scl_slope']), float(header['scl_inter'])
    return (slope, inter) if np.isfinite([slope, inter]).all() and slope != 0 else (1.0, 0.0)


def _skip(stream: IO[bytes], count: int) -> None:
    """Move on by ``count`` bytes, or raise EOFError."""
    while count > 0:
        part = stream.read(min(count, 1 << 20))
        if not part:
            raise EOFError
        count -= len(part)


def _read_into(stream: IO[bytes], view: memoryview) -> int:
    """Fill ``view`` and return how many bytes came."""
    done = 0
    while done < len(view):
        part = stream.read(min(len(view) - done, 1 << 22))
        if not part:
            break
        view[done : done + len(part)] = part
        done += len(part)
    return done


def _image(values: npt.NDArray[np.float32], header: Any) -> Any:
    """Build a clean NIfTI-1 image that keeps the forms and codes of the file."""
    new = nib.Nifti1Header()
    new.set_data_shape(values.shape)
    new.set_data_dtype(np.float32)
    for name, fields in _FORM_FIELDS.items():
        code = int(header[f'{name}_code'])
        if code > 0:
            # Codes that NIfTI does not define would read as 0 in other programs.
            new[f'{name}_code'] = code if code <= _LAST_CODE else _ALIGNED
            for field in fields:
                new[field] = header[field]
    new['pixdim'][:4] = header['pixdim'][:4]
    new['pixdim'][0] = -1 if header['pixdim'][0] < 0 else 1
    new['scl_slope'], new['scl_inter'] = 1, 0
    new['xyzt_units'] = 10
    return nib.Nifti1Image(values, new.get_best_affine(), new)
