"""One prediction at a time on one graphics card, however many runs share it.

Runs on one card do not know of each other. Each lets its memory grow with use instead of taking
the whole card, and predicts only while it holds the card's lock: an advisory lock on a file in the
machine's temporary folder, which the kernel releases when a process ends, however it ends.
docs/decisions/0111.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from shivacmb.exceptions import TemporaryError, UsageError

#: Seconds to wait for a turn; a prediction takes seconds, so longer means that something hangs.
WAIT_S = 600.0
_POLL_S = 0.02
_UUID_BYTES = 16


def card_of_this_process() -> str:
    """Return what identifies the first GPU that this process sees, for every process alike.

    The number in CUDA_VISIBLE_DEVICES does not: a cluster job sees its own card as number 0. So
    the driver is asked for the card's UUID, which needs no memory on the card. A part of a card
    (MIG) is named by the variable itself.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')[0].strip()
    if visible.startswith('MIG-'):
        return visible
    return _uuid_from_driver() or visible or '0'


def _uuid_from_driver(library: str = 'libcuda.so.1') -> str:
    """UUID of device 0 in the order of this process; '' where the driver does not answer."""
    try:
        driver = ctypes.CDLL(library)
        device, uuid = ctypes.c_int(), (ctypes.c_ubyte * _UUID_BYTES)()
        ask = getattr(driver, 'cuDeviceGetUuid_v2', None) or driver.cuDeviceGetUuid
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
            return ''
        return '' if ask(ctypes.byref(uuid), device) else bytes(uuid).hex()
    except (OSError, AttributeError):
        return ''


def lock_path(card: str) -> Path:
    """Return the lock file of a card.

    It lies in ``$SHIVACMB_GPU_LOCKS``, else in /tmp (jobs often have a TMPDIR of their own), else
    in the temporary folder.
    """
    named = os.environ.get('SHIVACMB_GPU_LOCKS')
    places = [named] if named else ['/tmp', tempfile.gettempdir()]  # noqa: S108  see _open
    folder = next((place for place in places if os.access(place, os.W_OK)), places[-1])
    return Path(folder) / f'shivacmb-gpu-{hashlib.sha256(card.encode()).hexdigest()[:16]}.lock'


def wait_seconds() -> float:
    """Return how long to wait for a turn: ``$SHIVACMB_GPU_WAIT`` seconds, else ``WAIT_S``.

    Raises
    ------
    UsageError
        The variable holds no number of seconds.
    """
    text = os.environ.get('SHIVACMB_GPU_WAIT', '')
    try:
        seconds = float(text) if text else WAIT_S
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UsageError(f'SHIVACMB_GPU_WAIT must be a number of seconds, not {text!r}')
    return seconds


@contextlib.contextmanager
def gpu_turn(device: str, card: str | None = None) -> Iterator[None]:
    """Hold the card while the block runs; nothing is held for the CPU.

    Parameters
    ----------
    device : {'gpu', 'cpu'}
        Where the block computes.
    card : str, optional
        Which card; by default the one that this process sees first.

    Raises
    ------
    TemporaryError
        Other runs kept the card for longer than :func:`wait_seconds`.
    """
    if device != 'gpu':
        yield
        return
    path = lock_path(card_of_this_process() if card is None else card)
    descriptor = _open(path)
    if descriptor is None:
        # another user's file that may not be read: without the lock, memory still grows with use
        yield
        return
    try:
        _lock(descriptor, path, wait_seconds())
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """Open the lock file for reading, which is enough to lock it; never through a link.

    An existing file is opened without O_CREAT, which Linux refuses for another user's file in a
    folder like /tmp (fs.protected_regular).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    for extra in (0, os.O_CREAT | os.O_EXCL, 0):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags | extra, 0o644)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
    return None


def _lock(descriptor: int, path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203  a poll waits anyway
            if time.monotonic() >= deadline:
                raise TemporaryError(
                    f'the GPU was not free for {seconds:g} s: other runs on it hold <{path}>; '
                    'start fewer runs on one GPU, give them more time with SHIVACMB_GPU_WAIT, or '
                    'use --device cpu'
                ) from None
            time.sleep(_POLL_S)
        except OSError:
            return  # a file system without locks
        else:
            return
