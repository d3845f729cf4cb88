"""Answer files: named arrays with a checksum over all of them, read through a memory map.

A file is safetensors, written once and never changed: of one request under `chunks/`, of many
under `shards/`. What is mapped stays readable when the file is removed.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from ktan.durable import put_durably
from ktan.errors import UserError

DIGESTS = "digests"
TAP = "tap."
ARRIVAL = "arrival"
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
}
_CHECKSUM = "checksum"
_Mapped = tuple[dict[str, np.ndarray], np.ndarray]
"""Arrays by name, and uint8: the header as it lies in the file, with all receipts."""


class AnswerFile:
    """One file, found sound, and mapped for as long as nobody lets go of it."""

    def __init__(self, path: Path, teacher_version: str) -> None:
        """As `read`."""
        self.path = path
        self.on_use: Callable[[AnswerFile], None] | None = None
        """Called whenever its map is looked at."""
        self._teacher_version = teacher_version
        self._mapped: _Mapped | None = _sound(path, teacher_version)
        arrays, _ = self._mapped
        self.names = tuple(arrays)
        """Of its arrays."""
        self.size = sum(array.nbytes for array in arrays.values())
        """Bytes of its arrays."""

    @classmethod
    def read(cls, path: Path, teacher_version: str) -> "AnswerFile":
        """Maps `path` and verifies it.

        Raises UserError when it is not of this teacher version, does not fit its checksum or cannot
        be read, FileNotFoundError when it is not there.
        """
        return cls(path, teacher_version)

    @staticmethod
    def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
        """Writes `path` with a checksum; returns once it is durably there, whole."""
        arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        content = {**metadata, _CHECKSUM: _checksum(arrays, metadata)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            safetensors.numpy.save_file(arrays, temporary, content)
            put_durably(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """By name; mapped, and never written to. Raises UserError as `read` does, and when the file
        went after it was let go of."""
        return self._map()[0]

    @property
    def receipts(self) -> list[tuple[str, str]]:
        """Request id and receipt of each request, the receipt in the JSON that was stored."""
        metadata = _metadata(self._map()[1])
        if "requests" in metadata:
            requests = json.loads(metadata["requests"])
            return [(request["request_id"], request["receipt"]) for request in requests]
        return [(metadata["request_id"], metadata["receipt"])]

    def let_go(self) -> None:
        """Maps it no longer; it is mapped, and verified, again when it is looked at."""
        self._mapped = None

    def _map(self) -> _Mapped:
        # Another thread may let go of it meanwhile.
        mapped = self._mapped
        if mapped is None:
            try:
                mapped = self._mapped = _sound(self.path, self._teacher_version)
            except FileNotFoundError as error:
                raise UserError(
                    f"{self.path} is gone: another process put it into a shard meanwhile; run again"
                ) from error
        # Another thread may take it away meanwhile.
        on_use = self.on_use
        if on_use is not None:
            on_use(self)
        return mapped


def arrival(path: Path) -> int:
    """A file's place among those of one request each, in the order in which they came.

    -1 where none was recorded, as in earlier versions, or where the file cannot be read: `read`
    says what is wrong with it. Only its header is read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return -1
            header = np.frombuffer(file.read(length), dtype=np.uint8)
        return int(_metadata(header).get(ARRIVAL, -1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return -1


def corrupt(path: Path) -> str:
    """What to do about a file that is not what was written."""
    return (
        f"{path} is damaged or not of this store; move it away and run again: "
        "the service returns answers that were paid for once free of charge"
    )


def _sound(path: Path, teacher_version: str) -> _Mapped:
    """A file's arrays and header, mapped and verified. Raises as `AnswerFile.read` does."""
    try:
        arrays, header = _map(path)
        metadata = _metadata(header)
        sound = metadata.pop(_CHECKSUM) == _checksum(arrays, metadata)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(corrupt(path)) from error
    except (OSError, RuntimeError, MemoryError) as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise UserError(
            f"{path} is there but cannot be read: permission is missing, memory is short, or "
            "this process maps too many files (vm.max_map_count); mend that and run again"
        ) from error
    if not sound or metadata.get("teacher_version") != teacher_version:
        raise UserError(corrupt(path))
    return arrays, header


def _map(path: Path) -> _Mapped:
    """Of a safetensors file."""
    size = path.stat().st_size
    if size < 8:
        raise ValueError("too short for a header")
    # Unlike mmap.mmap, this keeps no file descriptor: a store may map thousands of files.
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    whole.flags.writeable = False
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    if start > size:
        raise ValueError("the header is cut off")
    header = whole[8:start]
    entries = json.loads(header.tobytes())
    del entries["__metadata__"]
    arrays = {name: _array(whole[start:], **entry) for name, entry in entries.items()}
    return arrays, header


def _metadata(header: np.ndarray) -> dict[str, str]:
    return dict(json.loads(header.tobytes())["__metadata__"])


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
