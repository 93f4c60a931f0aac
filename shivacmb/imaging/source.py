"""Read an input file once, know its checksum, and never wait for it without end.

Inputs lie on file servers that many computers share. Somebody may replace a file while it is read,
the server may report errors for a minute, or stop answering. So the bytes that are parsed are
the bytes that are hashed, the file is looked at before and after, and a thread does the reading,
so that whoever waits for it can give up (docs/decisions/0115).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import queue
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shivacmb.exceptions import DataError, OutputError, ShivaCMBError, TemporaryError
from shivacmb.placeholders import placeholder, read_placeholder

#: Seconds without a byte after which a file server counts as gone.
STALL_S = 600.0
STALL_VARIABLE = 'SHIVACMB_STALL_SECONDS'
#: What an operating system reports when a server or a cable is at fault, not the file.
SERVER_ERRORS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EREMOTEIO,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOLINK,
        errno.ECOMM,
        errno.EBUSY,
        errno.EAGAIN,
        errno.ENFILE,
        errno.EMFILE,
    }
)
_BLOCK = 1 << 20
_BLOCKS_AHEAD = 4
_AGAIN = 'run the same command again when it is reachable'


@dataclass(frozen=True)
class SourceFacts:
    """A file as it was when it was read.

    Attributes
    ----------
    sha256 : str
        Of the very bytes that were parsed.
    size : int
        In bytes.
    mtime_ns, ctime_ns : int
        Time of the last change of content, and of content or attributes; for comparison with the
        same file only, since clocks differ.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int


def stall_seconds() -> float:
    """Return how long to wait for a byte: ``$SHIVACMB_STALL_SECONDS``, or 600."""
    try:
        seconds = float(os.environ.get(STALL_VARIABLE, STALL_S))
    except ValueError:
        return STALL_S
    return seconds if seconds > 0 else STALL_S


def server_problem(path: Path, error: OSError) -> TemporaryError | None:
    """Return what to raise for an error that is not the file's fault; None for others."""
    if error.errno not in SERVER_ERRORS:
        return None
    return TemporaryError(
        f'<{path}> cannot be read now, its disk or file server reports "{error.strerror}"; '
        f'{_AGAIN}'
    )


def disk_problem(folder: Path, error: OSError) -> ShivaCMBError:
    """Return what to raise for an error at an intermediate file.

    Parameters
    ----------
    folder : Path
        Where the file was to be, for errors that do not name it.
    error : OSError
        As Python or NumPy raised it; NumPy gives those of a full disk no number.

    Returns
    -------
    ShivaCMBError
        ``TemporaryError`` for a disk or file server that fails, else ``OutputError``.
    """
    place = Path(error.filename or folder)
    return server_problem(place, error) or OutputError(
        f'{error.strerror or error} <{place}>; check the disk and the permissions'
    )


def reading_problem(path: Path, error: Exception) -> ShivaCMBError | None:
    """Return what to raise for a file that could not be read; None when it is its own fault.

    Parameters
    ----------
    path : Path
        The file.
    error : Exception
        What reading it raised.
    """
    if isinstance(error, OSError) and (problem := server_problem(path, error)) is not None:
        return problem
    try:
        return placeholder(path, read_placeholder(path, path.stat().st_size))
    except OSError:
        return None


def changed(path: Path) -> TemporaryError:
    """Return what to raise when a file is another one than a moment ago."""
    return TemporaryError(
        f'<{path}> was changed while it was read; run the same command again when nobody writes '
        'to the dataset'
    )


class Source(io.RawIOBase):
    """The bytes of a regular file, in order, hashed on the way.

    Parameters
    ----------
    path : Path
        The file.
    block : int
        Bytes that are asked for at once; a few blocks are read ahead.

    Raises
    ------
    FileNotFoundError, PermissionError
        As ``open`` does.
    DataError
        If it is a folder or another thing that is no file.
    TemporaryError
        If the server reports an error, or sends nothing for ``stall_seconds``.
    """

    def __init__(self, path: Path, block: int = _BLOCK) -> None:
        super().__init__()
        self._path = path
        self._block = block
        self._digest = hashlib.sha256()
        self._rest = memoryview(b'')
        self._ended = False
        self._problem: Exception | None = None
        self._closing = threading.Event()
        self._limit = stall_seconds()
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=_BLOCKS_AHEAD)
        # A daemon: a read that hangs in the kernel must not keep the program from ending
        threading.Thread(target=self._fetch, daemon=True).start()
        self._before: os.stat_result = self._next()
        self._after = self._before
        self.size = self._before.st_size

    def _fetch(self) -> None:
        """Run in the thread: put the status, blocks, and the status at the end in the queue."""
        try:
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):
                # Opening a pipe would wait for a writer
                kind = 'a folder' if stat.S_ISDIR(status.st_mode) else 'a pipe or a device'
                self._put(DataError(f'<{self._path}> is {kind}; name one .nii or .nii.gz file'))
                return
            with self._path.open('rb', buffering=0) as stream:
                self._put(os.fstat(stream.fileno()))
                while block := stream.read(self._block):
                    if not self._put(block):
                        return
                self._put((os.fstat(stream.fileno()), self._path.stat()))
        except (OSError, MemoryError) as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._closing.is_set():
            try:
                self._queue.put(item, timeout=1)
            except queue.Full:
                continue
            return True
        return False

    def _next(self) -> Any:
        if self._problem is None:
            try:
                item = self._queue.get(timeout=self._limit)
            except queue.Empty:
                item = TemporaryError(
                    f'nothing came from <{self._path}> for {self._limit:g} s, its disk or file '
                    f'server does not answer; {_AGAIN}'
                )
            if not isinstance(item, Exception):
                return item
            if isinstance(item, OSError):
                item = server_problem(self._path, item) or item
            self._problem = item
        raise self._problem

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what is there; 0 at the end."""
        if not self._rest and not self._ended:
            item = self._next()
            if isinstance(item, tuple):
                self._ended, (self._after, there) = True, item
                if not _same(self._before, self._after) or not _same(self._after, there):
                    raise changed(self._path)
            else:
                self._digest.update(item)
                self._rest = memoryview(item)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Let the thread end: one that waits for room in the queue keeps its file open."""
        self._closing.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        super().close()

    def facts(self) -> SourceFacts:
        """Read what is left and return the facts.

        Raises
        ------
        TemporaryError
            If the file was changed meanwhile.
        """
        scrap = bytearray(_BLOCK)
        while self.readinto(scrap):
            pass
        status = self._after
        return SourceFacts(
            self._digest.hexdigest(), status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both describe the same content; inodes do not stay the same on every system."""
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def read_source(path: Path) -> tuple[bytes, SourceFacts]:
    """Return the content of a file that fits into memory, with its facts.

    Raises
    ------
    OSError, DataError, TemporaryError
        As for :class:`Source`.
    """
    with Source(path) as source:
        content = source.readall()
        return content or b'', source.facts()
