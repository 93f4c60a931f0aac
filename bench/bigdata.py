"""Measure what thousands of scans cost: input search, group level, files, memory over many scans.

    python bench/bigdata.py [--participants 10000] [--soak 16] [--only search group files soak]

Writes bench/bigdata.md. Needs strace for the counts of calls (left out without it). Times are wall
times; processor time is given beside them, because it depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from finished_tree import make
from report import write_table

ROOT = Path(__file__).resolve().parents[1]
COMMAND = str(Path(sys.executable).with_name('shivacmb'))
CALLS = 'trace=file,desc'
Row = tuple[str, str]

SEARCH = """
import sys, time
start = time.perf_counter()
from pathlib import Path
from shivacmb.bids import find_scans
found = find_scans(Path(sys.argv[1]), participants=sys.argv[2:])
assert len(found.scans) == len(sys.argv) - 2
print(time.perf_counter() - start, time.process_time())
"""
#: The group level on a file server that takes a millisecond for each file and each listing.
SLOW_SERVER = """
import sys, time
wanted = ('open', 'os.listdir', 'os.scandir')
sys.addaudithook(lambda event, args: time.sleep(0.001) if event in wanted else None)
from shivacmb.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def raw_tree(folder: Path, participants: int) -> None:
    """Participants with one small scan and one sidecar each."""
    folder.mkdir(parents=True)
    content = {'Name': 'bench', 'BIDSVersion': '1.10.0'}
    (folder / 'dataset_description.json').write_text(json.dumps(content))
    for number in range(participants):
        anat = folder / f'sub-{number:05d}' / 'anat'
        anat.mkdir(parents=True)
        (anat / f'sub-{number:05d}_T2starw.nii.gz').touch()
        (anat / f'sub-{number:05d}_T2starw.json').write_text('{"EchoTime": 0.02}')


def calls_on(folder: Path, labels: list[str], scratch: Path) -> tuple[int, int]:
    """Count calls of the search that name a path in the dataset, and those on what it opened."""
    trace = scratch / 'trace'
    command = ['strace', '-f', '-y', '-e', CALLS, '-o', str(trace)]
    subprocess.run(
        [*command, sys.executable, '-c', SEARCH, str(folder), *labels],
        check=True,
        capture_output=True,
    )
    named = opened = 0
    for line in trace.read_text(errors='replace').splitlines():
        if f'"{folder}' in line:
            named += 1
        elif f'<{folder}' in line:
            opened += 1
    return named, opened


def search(work: Path, participants: int) -> list[Row]:
    """Input search of one task."""
    folder = work / 'raw'
    raw_tree(folder, participants)
    rows = []
    for count in (1, 10):
        labels = [f'{7 + 3 * number:05d}' for number in range(count)]
        runs = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, '-c', SEARCH, str(folder), *labels],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            runs.append(tuple(map(float, done.stdout.split())))
        wall, processor = sorted(runs)[1]
        rows.append(
            (
                f'input search for {count} of {participants}, imports included (median of 3)',
                f'{wall:.2f} s ({processor:.2f} s of processor time)',
            )
        )
    if shutil.which('strace'):
        one = calls_on(folder, ['00007'], work)
        ten = calls_on(folder, [f'{7 + 3 * number:05d}' for number in range(10)], work)
        each = [(b - a) / 9 for a, b in zip(one, ten, strict=True)]
        rows += [
            ('calls that name a path in the dataset, one participant, root included', f'{one[0]}'),
            ('the same, each further participant', f'{each[0]:.1f}'),
            (
                'calls on what is open (read, close, getdents), one participant; each further',
                f'{one[1]}; {each[1]:.1f}',
            ),
        ]
    return rows


def usage(arguments: list[str]) -> tuple[float, float, float]:
    """Run a command; return wall seconds, processor seconds and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(f'{arguments} ended with {status}: {process.stderr.read().decode()}')
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def drop_caches() -> bool:
    """Have the next reader go to the disk, where that is allowed."""
    os.sync()
    try:
        Path('/proc/sys/vm/drop_caches').write_text('3')
    except OSError:
        return False
    return True


def finished_run(work: Path) -> Path:
    """Run the demo, with one broken scan, for real."""
    raw = work / 'demo'
    shutil.copytree(ROOT / 'bids_examples' / 'demo', raw)
    anat = raw / 'sub-broken' / 'anat'
    anat.mkdir(parents=True)
    (anat / 'sub-broken_T2starw.nii.gz').write_bytes(b'no image')
    out = work / 'demo-out'
    subprocess.run([COMMAND, str(raw), str(out), 'participant', '--quiet'], capture_output=True)
    return out


def group(work: Path, participants: int, source: Path) -> list[Row]:
    """Measure the group level over a study, cold, warm, while it grows, on a slow server."""
    out = work / 'study'
    make(source, out, participants)
    arguments = [COMMAND, str(ROOT / 'bids_examples' / 'demo'), str(out), 'group', '--quiet']
    rows = []

    def add(name: str, used: tuple[float, float, float]) -> None:
        rows.append((name, f'{used[0]:.1f} s ({used[1]:.1f} s), {used[2]:.0f} MB'))

    cold = drop_caches()
    name = f'`group` over {participants} scans: wall, (processor time), peak memory'
    add(f'{name}; {"nothing in the cache" if cold else "first time"}', usage(arguments))
    add('again', usage(arguments))
    extra = max(participants // 20, 1)
    adding = threading.Thread(target=make, args=(source, out, extra, participants))
    adding.start()
    add(f'while {extra} participants are being added', usage(arguments))
    adding.join()
    slow = [sys.executable, '-c', SLOW_SERVER, *arguments[1:]]
    add('on a server that takes 1 ms for each file and listing', usage(slow))
    with (out / 'group_desc-CMB_counts.tsv').open() as table:
        assert sum(1 for _ in table) == 1 + participants + extra
    index = (out / 'docs' / 'index.html').stat().st_size
    rows.append(('size of the index page', f'{index / 1e6:.2f} MB'))
    names: list[Row] = []
    for folder in (out, out / 'docs', out / 'docs' / 'figures', out / 'logs'):
        others = [item for item in folder.iterdir() if not item.name.startswith('sub-')]
        names.append((f'entries beside sub-* in `{folder.relative_to(work)}/`', f'{len(others)}'))
    return rows + names


def files(work: Path) -> list[Row]:
    """Files of a run over one participant with one scan."""
    out = work / 'one'
    demo = str(ROOT / 'bids_examples' / 'demo')
    subprocess.run(
        [COMMAND, demo, str(out), 'participant', '--participant-label', '01', '--quiet',
         '--work-dir', str(work / 'w')], check=True, capture_output=True,
    )  # fmt: skip
    everything = [path for path in out.rglob('*') if path.is_file()]
    shared = [path for path in everything if path.parent == out or path.name[:9] == 'CITATION-']
    return [
        ('files of a run over one scan', f'{len(everything) - len(shared)}'),
        ('files that all runs share', f'{len(shared)}'),
        ('left in the work folder', f'{len(list((work / "w").iterdir()))}'),
    ]


def soak(work: Path, scans: int) -> list[Row]:
    """Memory of a run over many small scans, as it goes on."""
    raw = work / 'soak'
    raw.mkdir()
    source = ROOT / 'bids_examples' / 'demo'
    shutil.copyfile(source / 'dataset_description.json', raw / 'dataset_description.json')
    image = nib.load(next((source / 'sub-01' / 'anat').glob('*.nii.gz')))
    rng = np.random.default_rng(20261121)
    for number in range(scans):
        anat = raw / f'sub-{number:02d}' / 'anat'
        anat.mkdir(parents=True)
        noisy = np.asarray(image.dataobj) + rng.integers(0, 3, image.shape)
        nib.Nifti1Image(noisy.astype(np.int16), image.affine, image.header).to_filename(
            anat / f'sub-{number:02d}_T2starw.nii.gz'
        )
    out = work / 'soak-out'
    child = subprocess.Popen(
        [COMMAND, str(raw), str(out), 'participant', '--quiet'], stdout=subprocess.DEVNULL
    )
    process = psutil.Process(child.pid)
    seen: dict[int, tuple[float, float]] = {}
    while child.poll() is None:
        done = len(list(out.glob('logs/sub-*/sub-*.json')))
        whole = service = 0.0
        for member in [process, *process.children(recursive=True)]:
            try:
                memory = member.memory_full_info().pss / 1e6
                held = 'shivacmb.models.service' in ' '.join(member.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            whole += memory
            service = memory if held else service
        before = seen.get(done, (0.0, 0.0))
        seen[done] = (max(before[0], whole), max(before[1], service))
        time.sleep(0.1)
    assert child.returncode == 0
    thirds = [range(start, start + scans // 3) for start in (1, scans // 3, 2 * scans // 3)]
    rows = []
    for third in thirds:
        peaks = [seen[done] for done in third if done in seen]
        rows.append(
            (
                f'peak memory with {third.start} to {third.stop - 1} of {scans} small scans done: '
                'all processes; the one that predicts',
                f'{max(p[0] for p in peaks):.0f} MB; {max(p[1] for p in peaks):.0f} MB',
            )
        )
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--participants', type=int, default=10_000)
    parser.add_argument('--soak', type=int, default=18, help='scans of the memory test')
    parser.add_argument('--source', type=Path, help='a finished run to multiply; else the demo')
    parts = ('search', 'group', 'files', 'soak')
    parser.add_argument('--only', nargs='+', choices=parts, default=parts)
    parser.add_argument('-o', '--output', type=Path, default=Path(__file__).with_suffix('.md'))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix='shivacmb-bigdata-'))
    load = os.getloadavg()[0]
    rows: list[Row] = []
    try:
        if 'search' in args.only:
            rows += search(work, args.participants)
        if 'group' in args.only:
            rows += group(work, args.participants, args.source or finished_run(work))
        if 'files' in args.only:
            rows += files(work)
        if 'soak' in args.only:
            rows += soak(work, args.soak)
    finally:
        shutil.rmtree(work)
    busy = f'; load {load:.0f} from other work before, {os.getloadavg()[0]:.0f} at the end'
    how = (
        f'{args.participants} participants, {len(os.sched_getaffinity(0))} processors, Python '
        f'{platform.python_version()}{busy}. Made by `python bench/bigdata.py`.'
    )
    write_table(args.output, 'Thousands of scans', how, rows)


if __name__ == '__main__':
    main()
