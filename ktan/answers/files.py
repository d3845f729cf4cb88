"""Answer files: named arrays with a checksum over all of them, read through a memory map.

A file is safetensors, written once and never changed: of one request under `chunks/`, of many
under `shards/`. What is mapped stays readable when the file is removed.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from ktan.durable import sync_folder
from ktan.errors import UserError

DIGESTS = "digests"
TAP = "tap."
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
}
_CHECKSUM = "checksum"


@dataclass(frozen=True, eq=False)
class AnswerFile:
    """One file, mapped and found sound."""

    path: Path
    arrays: Mapping[str, np.ndarray]
    """By name; never written to."""
    metadata: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, teacher_version: str) -> "AnswerFile":
        """Maps `path` and verifies it.

        Raises UserError when it is not of this teacher version or does not fit its checksum,
        FileNotFoundError when it is not there.
        """
        try:
            arrays, metadata = _map(path)
            sound = metadata.pop(_CHECKSUM) == _checksum(arrays, metadata)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(corrupt(path)) from error
        if not sound or metadata.get("teacher_version") != teacher_version:
            raise UserError(corrupt(path))
        return cls(path, arrays, metadata)

    @staticmethod
    def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
        """Writes `path` with a checksum; returns once it is durably there, whole."""
        arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        content = {**metadata, _CHECKSUM: _checksum(arrays, metadata)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            safetensors.numpy.save_file(arrays, temporary, content)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Of each request: `request_id` and `receipt`."""
        if "requests" in self.metadata:
            requests: list[dict[str, Any]] = json.loads(self.metadata["requests"])
            return requests
        receipt = json.loads(self.metadata["receipt"])
        return [{"request_id": self.metadata["request_id"], "receipt": receipt}]


def corrupt(path: Path) -> str:
    """What to do about a file that is not what was written."""
    return (
        f"{path} is damaged or not of this store; move it away and run again: "
        "the service returns answers that were paid for once free of charge"
    )


def _map(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file; nothing of it is read but its header."""
    size = path.stat().st_size
    if size < 8:
        raise ValueError("too short for a header")
    # Unlike mmap.mmap, this keeps no file descriptor: a store may map a thousand files.
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    whole.flags.writeable = False
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    if start > size:
        raise ValueError("the header is cut off")
    header = json.loads(whole[8:start].tobytes())
    metadata = dict(header.pop("__metadata__"))
    arrays = {name: _array(whole[start:], **entry) for name, entry in header.items()}
    return arrays, metadata


def _array(
    data: np.ndarray, dtype: str, shape: list[int], data_offsets: tuple[int, int]
) -> np.ndarray:
    begin, end = data_offsets
    kind = _DTYPES[dtype]
    if not 0 <= begin <= end <= len(data) or end - begin != kind.itemsize * math.prod(shape):
        raise ValueError("an array does not fit into the file")
    return data[begin:end].view(kind).reshape(shape)


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 over every array's name, dtype, shape and bytes and over the metadata."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
