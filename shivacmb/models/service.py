"""One process that holds the networks, however many scans and workers ask it.

Loading an ensemble costs more than using it, and nipype's workers come and go. The service loads
once, in a process of its own: it starts while the first scan is still being read, its memory is
given back when it ends, and a crash inside an engine cannot take the run down. It holds the
networks of the lesions and, where scans need it, that of the brain mask. Requests are JSON over a
Unix socket in a private folder; arrays travel as ``.npy`` files, never as pickles.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shivacmb import exceptions
from shivacmb.exceptions import ModelError, ShivaCMBError, TemporaryError
from shivacmb.models.memory import give_back_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from shivacmb.models.ensemble import Ensemble

PARENT_POLL_SECONDS = 0.5
# A Unix socket's path may have 107 bytes; temporary folders of clusters are often longer
MAX_SOCKET_FOLDER = 80
MAX_STARTS = 3
#: Names of the ensembles that a service can hold.
LESIONS, BRAIN = 'lesions', 'brain'


@dataclass(frozen=True)
class EnsembleRequest:
    """Which networks to load, and on what.

    Attributes
    ----------
    bundle : str
        Folder of the bundle.
    engine, device : str
        As for ``load_ensemble``.
    threads : int
        Processor threads of one prediction.
    trust_model : bool
        Load networks that carry Python code.
    """

    bundle: str
    engine: str = 'auto'
    device: str = 'auto'
    threads: int = 1
    trust_model: bool = False

    def load(self) -> Ensemble:
        """Verify the checksums and load the ensemble."""
        from shivacmb.models import load_bundle, load_ensemble

        return load_ensemble(
            load_bundle(Path(self.bundle)),
            engine=self.engine,
            device=self.device,
            threads=self.threads,
            trust_model=self.trust_model,
        )


def predict_file(ensemble: Ensemble, image: Path, folds: Path) -> dict[str, str | int]:
    """Predict one image file with a loaded ensemble.

    Parameters
    ----------
    ensemble : Ensemble
        Loaded networks.
    image : Path
        ``.npy`` of float32 [X, Y, Z, C], scaled as the bundle demands.
    folds : Path
        ``.npy`` to write, for each fold: float32 [F, X, Y, Z], the probability of a
        microbleed; or float32 [F, X, Y, Z, K], all maps of a bundle that finds the brain.

    Returns
    -------
    dict
        Library, device and arithmetic of this prediction: ``Ensemble.describe``.
    """
    batch = np.load(image, allow_pickle=False)[np.newaxis]
    np.save(folds, ensemble.bundle.target_map(ensemble.predict(batch))[:, 0], allow_pickle=False)
    return dict(ensemble.describe())


class PredictionService:
    """Handle of the process; use it as a context manager.

    Parameters
    ----------
    requests : mapping of str to EnsembleRequest
        What the process loads as soon as it starts: ``LESIONS`` and, where it is needed,
        ``BRAIN``.
    temporary : Path, optional
        A folder of this run that the process removes when the run is killed outright.
    """

    def __init__(
        self, requests: Mapping[str, EnsembleRequest], temporary: Path | None = None
    ) -> None:
        self._folder = _socket_folder()
        self.address = str(self._folder / 'service')
        self._command = [
            sys.executable, '-m', 'shivacmb.models.service', self.address,
            json.dumps({name: asdict(request) for name, request in requests.items()}),
            str(os.getpid()), str(temporary or ''),
        ]  # fmt: skip
        self._closing = False
        self._lock = threading.Lock()
        self._process = self._start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / 'log').open('wb') as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _watch(self) -> None:
        """Start the process again when it dies: one scan too large must not take the others.

        Given up when it dies time after time without having predicted anything.
        """
        starts = 1
        while True:
            self._process.wait()
            answered = _answer_mark(self.address)
            starts = 1 if answered.exists() else starts + 1
            answered.unlink(missing_ok=True)
            if starts > MAX_STARTS:
                break
            with self._lock:
                if self._closing:
                    return
                Path(self.address).unlink(missing_ok=True)
                self._process = self._start()
        # Whoever still waits for the socket need not wait any longer
        with contextlib.suppress(OSError):
            _end_mark(self.address).touch()

    def __enter__(self) -> PredictionService:
        """Return the running service."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process and remove its folder."""
        with self._lock:
            self._closing = True
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _socket_folder() -> Path:
    """Make a private folder whose path is short enough for a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix='shivacmb-'))
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER:
        return folder
    folder.rmdir()
    for place in (f'/run/user/{os.getuid()}', '/tmp', '/dev/shm'):  # noqa: S108  mode 0700
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix='shivacmb-', dir=place))
    raise TemporaryError(
        f'the temporary folder <{tempfile.gettempdir()}> has too long a path for a socket and '
        '/tmp cannot be used; set TMPDIR to a shorter folder'  # noqa: S108
    )


def _end_mark(address: str) -> Path:
    return Path(address).with_name('ended')


def _answer_mark(address: str) -> Path:
    return Path(address).with_name('answered')


def _connect(address: str) -> Connection:
    """Connect; wait while the process has not opened its socket yet."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return Client(address, family='AF_UNIX')
        except (FileNotFoundError, ConnectionRefusedError) as error:  # noqa: PERF203  a poll
            gone = _end_mark(address).exists() or not Path(address).parent.exists()
            if gone or time.monotonic() > deadline:
                raise _ended(address) from error
            time.sleep(0.02)


def _ended(address: str) -> TemporaryError:
    log = Path(address).with_name('log')
    said = log.read_text(errors='replace').strip().splitlines() if log.exists() else []
    last = f' Its last words: {said[-1]}' if said else ''
    return TemporaryError(
        'the prediction process ended unexpectedly, most often because memory ran out; '
        f'free memory or lower --omp-nthreads and run the same command again.{last}'
    )


def request_prediction(
    address: str, image: Path, folds: Path, network: str = LESIONS
) -> dict[str, str | int]:
    """Have the service predict one image; returns when the file is written.

    Parameters
    ----------
    address : str
        ``PredictionService.address``.
    image, folds : Path
        As for :func:`predict_file`.
    network : str
        Which ensemble: ``LESIONS`` or ``BRAIN``.

    Returns
    -------
    dict
        As :func:`predict_file`.

    Raises
    ------
    ShivaCMBError
        Whatever went wrong in the service, with its own class.
    """
    try:
        with _connect(address) as connection:
            connection.send_bytes(json.dumps([network, str(image), str(folds)]).encode())
            answer = json.loads(connection.recv_bytes())
    except (EOFError, ConnectionResetError, BrokenPipeError) as error:
        raise _ended(address) from error
    if 'kind' in answer:
        kind = getattr(exceptions, answer['kind'], ModelError)
        raise kind(answer['message'])
    return dict(answer)


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, ShivaCMBError):
        return {'kind': type(error).__name__, 'message': str(error)}
    if isinstance(error, MemoryError):
        return {
            'kind': 'TemporaryError',
            'message': 'memory ran out while predicting; free memory and run the command again',
        }
    return {'kind': 'ModelError', 'message': f'prediction failed: {type(error).__name__}: {error}'}


def _end_with_parent(parent: int, folders: Sequence[Path]) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    # A killed run cannot tidy up after itself; its workers may write for a moment longer
    for _ in range(20):
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.exists() for folder in folders):
            break
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(0)


class _Held:
    """An ensemble in a thread of its own, which loads it and predicts one image at a time.

    One thread for all images: memory that a thread gives back stays in its pool, so that a new
    thread for each would let the process grow.

    Parameters
    ----------
    request : EnsembleRequest
        What to load.
    modest : bool
        Give working memory back after each image: another network predicts at the same time.
    """

    def __init__(self, request: EnsembleRequest, *, modest: bool) -> None:
        self._request = request
        self._modest = modest
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._loading: Future[Ensemble]
        self._loading = self._thread.submit(request.load)

    def answer(self, image: Path, folds: Path) -> Mapping[str, str | int]:
        """Predict; return on what, or what went wrong."""
        try:
            return self._thread.submit(self._predict, image, folds).result()
        except Exception as error:  # noqa: BLE001  reported to whoever asked
            return _failure(error)

    def _predict(self, image: Path, folds: Path) -> dict[str, str | int]:
        failed = self._loading.exception()
        if isinstance(failed, TemporaryError):
            # the GPU was taken or memory was short: by now it may be free
            again: Future[Ensemble] = Future()
            again.set_result(self._request.load())
            self._loading = again
        ensemble = self._loading.result()
        try:
            return predict_file(ensemble, image, folds)
        except OSError as error:
            from shivacmb.imaging import disk_problem

            raise disk_problem(folds.parent, error) from error
        finally:
            if self._modest:
                # an engine that cannot is none the worse for it
                with contextlib.suppress(RuntimeError):
                    ensemble.release()
            give_back_memory()


def _converse(connection: Connection, held: Mapping[str, _Held], answered: Path) -> None:
    # A client that is killed meanwhile harms only itself
    with contextlib.suppress(EOFError, OSError), connection:
        network, image, folds = json.loads(connection.recv_bytes())
        answer = held[network].answer(Path(image), Path(folds))
        if network == LESIONS and 'kind' not in answer:
            answered.touch()
        connection.send_bytes(json.dumps(answer).encode())


def serve(address: str, requests: Mapping[str, EnsembleRequest]) -> None:
    """Load the networks, then answer requests until killed.

    Conversations do not wait for each other, so that a brain mask is there before the lesions of
    another scan are predicted.

    Parameters
    ----------
    address : str
        Unix socket to open; its folder belongs to this run alone.
    requests : mapping of str to EnsembleRequest
        What to load. A failure to load is the answer to every request.
    """
    with Listener(address, family='AF_UNIX', backlog=128) as listener:
        held = {name: _Held(request, modest=name == BRAIN) for name, request in requests.items()}
        while True:
            with contextlib.suppress(EOFError, OSError):
                connection = listener.accept()
                args = (connection, held, _answer_mark(address))
                threading.Thread(target=_converse, args=args, daemon=True).start()


def main(argv: list[str]) -> None:
    """Run as ``python -m shivacmb.models.service ADDRESS REQUESTS PARENT TEMPORARY``."""
    address, requests, parent, temporary = argv
    folders = [Path(address).parent, *([Path(temporary)] if temporary else [])]
    threading.Thread(target=_end_with_parent, args=(int(parent), folders), daemon=True).start()
    serve(address, {name: EnsembleRequest(**item) for name, item in json.loads(requests).items()})


if __name__ == '__main__':
    main(sys.argv[1:])
