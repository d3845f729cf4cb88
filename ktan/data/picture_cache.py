"""Decoded pictures in one memory-mapped file, made once; a kill loses at most one part of it.

While it is made, a journal beside the file names the parts that are on disk, each with the SHA-256
of its pixels. Whoever goes on verifies those, and decodes the others.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ktan.data.pictures import Picture, Shape
from ktan.durable import put_durably
from ktan.locking import exclusive

_AT_ONCE = 256
"""Pictures on their way through the threads."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures that are decoded and recorded together."""

    rows: np.ndarray
    """int64 [n]: where each stands in the file."""
    pictures: Callable[[], Iterator[Picture]]
    """The n pictures, in the order of `rows`; called when they are decoded."""


def cached_pictures(folder: Path, shape: Shape, parts: Sequence[Part]) -> Tensor:
    """uint8 [N, C, H, W], memory-mapped from `folder`, where it is decoded unless it is there.

    `folder` belongs to these very pictures in this shape. Never is more than a part in memory.
    Raises UserError for a picture that cannot be decoded; what is decoded by then is kept.
    """
    target = folder / "samples.npy"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(folder, wait=True):
            if not target.exists():
                _make(target, shape, parts)
    return torch.from_numpy(np.load(target, mmap_mode="c", allow_pickle=False))


def _make(target: Path, shape: Shape, parts: Sequence[Part]) -> None:
    partial, journal = target.with_name(".samples.partial"), target.with_name("parts.jsonl")
    whole = (sum(len(part.rows) for part in parts), shape.channels, shape.height, shape.width)
    done = _recorded(journal)
    try:
        ready = _mapped(partial).shape == whole
    except (FileNotFoundError, ValueError):
        ready = False
    if not ready:
        journal.unlink(missing_ok=True)
        done = {}
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=whole)
    with ThreadPoolExecutor() as pool, journal.open("a", encoding="utf-8") as record:
        # A line that a kill cut off must not take the next one with it.
        record.write("\n")
        bar = tqdm(total=whole[0], desc="decoding", unit="picture", disable=None)
        for number, part in enumerate(parts):
            # Mapped anew for each part: what was written is not this process's memory any more.
            cached = _mapped(partial)
            if number not in done or done[number] != _checksum(cached, part.rows):
                _decode(cached, part, shape, pool)
                cached.flush()
                line = {"part": number, "sha256": _checksum(cached, part.rows)}
                record.write(json.dumps(line) + "\n")
                record.flush()
                os.fsync(record.fileno())
            bar.update(len(part.rows))
        bar.close()
    put_durably(partial, target)


def _mapped(partial: Path) -> np.memmap:
    return np.lib.format.open_memmap(partial, mode="r+")


def _decode(cached: np.ndarray, part: Part, shape: Shape, pool: ThreadPoolExecutor) -> None:
    pictures, start = part.pictures(), 0
    # PIL leaves Python's lock while it decodes and resizes.
    while some := list(itertools.islice(pictures, _AT_ONCE)):
        rows = part.rows[start : start + len(some)]
        for row, pixels in zip(rows, pool.map(lambda one: one.pixels(shape), some), strict=True):
            cached[row] = pixels
        start += len(some)


def _checksum(cached: np.ndarray, rows: np.ndarray) -> str:
    """SHA-256 of these rows' pixels, in this order."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), _AT_ONCE):
        digest.update(cached[rows[start : start + _AT_ONCE]].data)
    return digest.hexdigest()


def _recorded(journal: Path) -> dict[int, str]:
    """Part → checksum, as far as the journal can be read."""
    done: dict[int, str] = {}
    if not journal.exists():
        return done
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            done[int(entry["part"])] = str(entry["sha256"])
        except (ValueError, KeyError, TypeError):
            continue
    return done
