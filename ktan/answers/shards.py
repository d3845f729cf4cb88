"""Shards: the answers of many requests in one file, sorted by digest, with every receipt.

A shard is an answer file (`files.py`) with three arrays a tap: `digests.TAP` ascending, `tap.TAP`
in their order, and `request.TAP`, the place of the request that brought each row in the metadata
`requests`: a list of `{"request_id", "receipt"}`, the receipts as they were received. It is written
once, from requests that are in files of their own; those are removed when it is durably there.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ktan.answers.files import DIGESTS, TAP, AnswerFile
from ktan.answers.index import keys

REQUEST = "request."
MOST_REQUESTS = 1000
MOST_BYTES = 1 << 26
"""Of one shard: what is in memory, twice, while it is made."""


def ready(requests: int, size: int) -> bool:
    """Whether so many requests with files of `size` bytes in all are enough for a shard."""
    return requests >= MOST_REQUESTS or size >= MOST_BYTES


def portions(files: Sequence[AnswerFile]) -> Iterator[list[AnswerFile]]:
    """`files` in order, in portions of one shard each, the last one maybe less than `ready`."""
    portion: list[AnswerFile] = []
    size = 0
    for file in files:
        portion.append(file)
        size += file.size
        if ready(len(portion), size):
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def write_shard(path: Path, files: Sequence[AnswerFile], teacher_version: str) -> None:
    """Puts the answers of these requests, one a file, into a shard; durable on return.

    Answers to one sample stay in the order of `files`, so that the first remains the first.
    """
    names = sorted({name for file in files for name in file.arrays if name.startswith(TAP)})
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        having = [number for number, file in enumerate(files) if name in file.arrays]
        digests = np.concatenate([files[number].arrays[DIGESTS] for number in having])
        order = np.argsort(keys(digests), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        shape = files[having[0]].arrays[name].shape[1:]
        values = np.empty((len(order), *shape), dtype=np.float32)
        requests = np.empty(len(order), dtype=np.int32)
        start = 0
        for number in having:
            given = files[number].arrays[name]
            rows = place[start : start + len(given)]
            values[rows], requests[rows] = given, number
            start += len(given)
        tap = name.removeprefix(TAP)
        arrays |= {f"{DIGESTS}.{tap}": digests[order], f"{REQUEST}{tap}": requests, name: values}
    receipts = [
        {"request_id": request_id, "receipt": receipt}
        for file in files
        for request_id, receipt in file.receipts
    ]
    metadata = {"teacher_version": teacher_version, "requests": json.dumps(receipts)}
    AnswerFile.write(path, arrays, metadata)


def next_name(folder: Path) -> str:
    """Shards are numbered in the order in which they were made."""
    numbers = [int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdigit()]
    return f"{max(numbers, default=-1) + 1:06d}.safetensors"
