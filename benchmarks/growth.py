"""What large public sets cost: seconds and memory at 10^4, 10^5 and 10^6 synthetic samples.

    python -m benchmarks.growth [--sizes 10000,100000,1000000] [--folder DIR]   (make bench-growth)

Each stage of a student's way through its public data runs in a process of its own: reading a folder
of pictures and tar archives (first and second time), asking an in-process teacher and storing its
answers, opening the store again, reading the answers in an order of training, training a student on
them, choosing queries. *Memory* is what the stage added to the process, at most: *own* is what only
memory can hold (anonymous pages), *mapped* what the kernel may drop at any time because it is on
disk.

Seconds are by the clock, of processor by `time.process_time`; they grow linearly where the power
of n between the two largest sizes is about 1. Samples are uint8 [3, 8, 8], answers 10 probabilities
and a hint of 64, features 128: small, so that 10^6 fit into minutes and some 10 GB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "growth.json"
COMMAND = "python -m benchmarks.growth"
SIZES = "10000,100000,1000000"
SIDE, CLASSES, HINT, FEATURES, REQUEST, BATCH = 8, 10, 64, 128, 64, 128
PER_ARCHIVE = 5_000
COUNT = 1_000
"""Queries that are chosen, at every size."""


def picture(number: int) -> bytes:
    """A .ppm of pixels that no other number has."""
    pixels = hashlib.shake_128(number.to_bytes(8, "little")).digest(3 * SIDE * SIDE)
    return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels


def make_folder(folder: Path, size: int) -> None:
    """`size` pictures in ten class folders."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for number in range(size):
        (folder / str(number % CLASSES) / f"{number:07d}.ppm").write_bytes(picture(number))


def make_archives(folder: Path, size: int) -> None:
    """The same pictures in tar files, with labels."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in range(CLASSES)))
    for start in range(0, size, PER_ARCHIVE):
        with tarfile.open(folder / f"train-{start // PER_ARCHIVE:05d}.tar", "w") as archive:
            for number in range(start, min(start + PER_ARCHIVE, size)):
                files = {"ppm": picture(number), "cls": str(number % CLASSES).encode()}
                for extension, content in files.items():
                    member = tarfile.TarInfo(f"{number:07d}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


@dataclass
class Peak:
    """Bytes above those at the beginning."""

    own: int = 0
    mapped: int = 0


@contextmanager
def memory() -> Iterator[Peak]:
    """Looks every ten milliseconds."""
    first, peak, over = _pages(), Peak(), threading.Event()

    def look() -> None:
        while True:
            own, mapped = (now - then for now, then in zip(_pages(), first, strict=True))
            peak.own, peak.mapped = max(peak.own, own), max(peak.mapped, mapped)
            if over.wait(0.01):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _pages() -> tuple[int, int]:
    """Anonymous and mapped bytes of this process that are in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, file, shared = (
        1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")
    )
    return own, file + shared


def measured(stage: str, folder: Path, size: int) -> dict[str, float]:
    """One stage in a new process."""
    command = [sys.executable, "-m", "benchmarks.growth", "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--sizes", str(size)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def power(rows: list[dict[str, Any]], figure: str) -> float | None:
    """p where the figure grows like n^p between the two largest sizes."""
    if len(rows) < 2 or min(rows[-1][figure], rows[-2][figure]) <= 0:
        return None
    growth = rows[-1][figure] / rows[-2][figure]
    return math.log(growth) / math.log(rows[-1]["samples"] / rows[-2]["samples"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on a disk with room")
    parser.add_argument("--stage", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    if options.stage:
        from benchmarks.growth_stages import STAGES

        print(json.dumps(_run(STAGES[options.stage](options.folder, sizes[0]))))
        return
    from benchmarks.growth_stages import STAGES, WHAT

    table: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder or _disk()) as made:
            folder = Path(made)
            make_folder(folder / "pictures", size)
            make_archives(folder / "archives", size)
            for stage, rows in table.items():
                rows.append({"samples": size, **measured(stage, folder, size)})
                print(_line(stage, rows[-1]), flush=True)
    growth = {
        stage: {figure: power(rows, figure) for figure in ("seconds", "own_mb")}
        for stage, rows in table.items()
    }
    print("\n".join(_grown(stage, rows, growth[stage]) for stage, rows in table.items()))
    arguments = "" if options.sizes == SIZES else f" --sizes {options.sizes}"
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "command": COMMAND + arguments,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "load": [round(load, 1) for load in os.getloadavg()],
        "what": WHAT,
        "stages": table,
        "power_of_n": growth,
    }
    options.out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _run(stage: Callable[[], dict[str, float] | None]) -> dict[str, float]:
    with memory() as peak:
        clock, processor = time.perf_counter(), time.process_time()
        found = stage() or {}
        seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    return {
        "seconds": round(seconds, 3),
        "processor_seconds": round(busy, 3),
        "own_mb": round(peak.own / 1e6, 1),
        "mapped_mb": round(peak.mapped / 1e6, 1),
        **found,
    }


def _disk() -> str:
    return os.environ.get("TMPDIR", "/var/tmp")


def _line(stage: str, row: dict[str, Any]) -> str:
    return (
        f"{stage:<18}{row['samples']:>10,}{row['seconds']:>10.2f} s"
        f"{row['processor_seconds']:>9.2f} s cpu{row['own_mb']:>8.0f} MB own"
        f"{row['mapped_mb']:>8.0f} MB mapped"
    )


def _grown(stage: str, rows: list[dict[str, Any]], growth: dict[str, float | None]) -> str:
    seconds = growth["seconds"]
    each = 1e6 * rows[-1]["own_mb"] / rows[-1]["samples"]
    return (
        f"{stage:<18} seconds like n^{'?' if seconds is None else f'{seconds:.2f}'}, "
        f"{each:,.0f} bytes of own memory a sample"
    )


if __name__ == "__main__":
    main()
