"""The student's durable copy of every answer it was given, and of every question under way.

An answer costs privacy, so it is asked once: `begin` puts the request on disk before it is sent,
`finish` puts the answers there before they are used. After a crash `pending` names the requests
whose fate is unknown; sent again under the same id they cost nothing if they were charged.

A store is a folder: `manifest.json` (which teacher, which taps), `requests/ID.json` (under way),
`chunks/ID.safetensors` (the answers of one request with their receipt and a checksum).

A request may be for some of the teacher's taps: an answer is of one sample *and one tap*, and what
is missing is said so. Asking for another tap of a stored sample later costs that tap alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from ktan.answer_manifest import AnswerManifest
from ktan.durable import sync_folder, write_durably
from ktan.errors import UserError

__all__ = ["AnswerManifest", "AnswerStore", "PendingRequest"]

_DIGESTS = "digests"
_TAP = "tap."
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class PendingRequest:
    """A request that was begun and not finished: charged or not, only the service knows."""

    request_id: str
    digests: np.ndarray
    """uint8 [n, 32], in the order in which the samples were sent."""
    taps: tuple[str, ...]
    """Names of the taps that were asked for."""


class AnswerStore:
    """Answers by sample digest. One process writes; opened by `open`."""

    def __init__(self, folder: Path, manifest: AnswerManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._requests = folder / "requests"
        self._chunks = folder / "chunks"
        # Tap → digest → (chunk, row). The rows stay in their files until they are asked for.
        self._index: dict[str, dict[bytes, tuple[Path, int]]] = {
            tap.name: {} for tap in manifest.taps
        }

    @classmethod
    def open(cls, folder: Path, manifest: AnswerManifest | None = None) -> "AnswerStore":
        """Opens the store, or creates it for the teacher of `manifest`.

        Raises UserError when the folder holds the answers of another teacher version or of other
        release settings, when it holds none and no manifest is given, and when a chunk does not
        fit its checksum.
        """
        path = folder / "manifest.json"
        if path.exists():
            stored = AnswerManifest.from_json(json.loads(path.read_text()))
            if manifest is not None and manifest != stored:
                raise UserError(stored.difference(manifest, folder))
            manifest = stored
        elif manifest is None:
            raise UserError(f"{folder} holds no answers (no manifest.json)")
        store = cls(folder, manifest)
        for part in (store._requests, store._chunks):
            part.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            content = json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n"
            write_durably(path, content.encode())
        for chunk in sorted(store._chunks.glob("*.safetensors")):
            store._admit(chunk)
            # A crash between the answers and the end of their request leaves both files.
            (store._requests / f"{chunk.stem}.json").unlink(missing_ok=True)
        return store

    def __len__(self) -> int:
        """Different samples with an answer of any tap."""
        return len(set().union(*self._index.values()))

    def digests(self) -> np.ndarray:
        """Digests of all answered samples, uint8 [n, 32], in no particular order."""
        joined = b"".join(set().union(*self._index.values()))
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)

    def begin(
        self, request_id: str, digests: np.ndarray, taps: Sequence[str] | None = None
    ) -> None:
        """Records durably that these samples (uint8 [n, 32]) are about to be asked for `taps`.

        All taps of the manifest when None. Raises ValueError for a request id that was used before
        or that cannot name a file, and for a tap that is unknown, there twice, or none at all.
        """
        names = self._names(taps)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a request is for taps, each once, not for {list(names)}")
        if not _REQUEST_ID.fullmatch(request_id):
            raise ValueError(f"request id {request_id!r} cannot name a file")
        path = self._requests / f"{request_id}.json"
        if path.exists() or self._chunk(request_id).exists():
            raise ValueError(f"request id {request_id} was used before in {self.folder}")
        rows = [row.tobytes().hex() for row in _checked(digests)]
        begun = {"request_id": request_id, "taps": list(names), "digests": rows}
        write_durably(path, json.dumps(begun).encode())

    def pending(self) -> list[PendingRequest]:
        """Requests whose answers are not here; send them again under the same id, first of all."""
        return [self._pending(path) for path in sorted(self._requests.glob("*.json"))]

    def finish(
        self, request_id: str, answers: Mapping[str, np.ndarray], receipt: Mapping[str, Any]
    ) -> None:
        """Stores a begun request's answers: every tap that it asked for, float32 [n, *shape].

        Raises ValueError when the request was not begun, or a tap is missing, unknown or of
        another shape or dtype; nothing is written then.
        """
        path = self._requests / f"{request_id}.json"
        if not path.exists():
            raise ValueError(f"request {request_id} was not begun in {self.folder}")
        begun = self._pending(path)
        digests = begun.digests
        self._check(answers, begun)
        tensors = {_TAP + name: np.ascontiguousarray(value) for name, value in answers.items()}
        tensors[_DIGESTS] = digests
        metadata = {
            "request_id": request_id,
            "teacher_version": self.manifest.teacher_version,
            "receipt": json.dumps(receipt, sort_keys=True),
        }
        metadata["checksum"] = _checksum(tensors, metadata)
        chunk = self._chunk(request_id)
        write_durably(chunk, safetensors.numpy.save(tensors, metadata))
        self._admit(chunk)
        path.unlink()
        sync_folder(self._requests)

    def abandon(self, request_id: str) -> None:
        """Forgets a begun request that the service refused, and therefore did not charge."""
        (self._requests / f"{request_id}.json").unlink(missing_ok=True)
        sync_folder(self._requests)

    def missing(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> np.ndarray:
        """bool [n]: True where one of `taps` (all when None) is not stored.

        A pending request counts as missing. Raises ValueError for a tap that is unknown.
        """
        indices = [self._index[name] for name in self._names(taps)]
        keys = [row.tobytes() for row in _checked(digests)]
        rows = (any(key not in index for index in indices) for key in keys)
        return np.fromiter(rows, dtype=bool, count=len(digests))

    def answers(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Tap name → float32 [n, *shape] in the order of `digests`; all taps when None.

        Raises UserError when an answer is missing, ValueError for a tap that is unknown.
        """
        absent = int(self.missing(digests, taps).sum())
        if absent:
            raise UserError(
                f"{absent} of {len(digests)} samples have no answer in {self.folder}; "
                "ask the teacher for them first"
            )
        return {name: torch.from_numpy(self._read(name, digests)) for name in self._names(taps)}

    def _read(self, name: str, digests: np.ndarray) -> np.ndarray:
        """The stored answers of one tap: float32 [n, *shape]."""
        shape = next(tap.shape for tap in self.manifest.taps if tap.name == name)
        values = np.empty((len(digests), *shape), dtype=np.float32)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, digest in enumerate(digests):
            chunk, row = self._index[name][digest.tobytes()]
            wanted.setdefault(chunk, []).append((position, row))
        for chunk, places in wanted.items():
            positions, rows = map(list, zip(*places, strict=True))
            with safetensors.safe_open(chunk, framework="numpy") as file:
                values[positions] = file.get_tensor(_TAP + name)[rows]
        return values

    def _names(self, taps: Sequence[str] | None) -> tuple[str, ...]:
        if taps is None:
            return tuple(self._index)
        if unknown := [name for name in taps if name not in self._index]:
            raise ValueError(f"no taps {unknown}; the store has {list(self._index)}")
        return tuple(taps)

    def receipts(
        self, digests: np.ndarray | None = None, taps: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The receipts of all finished requests, in no particular order.

        With `digests`, of those alone that brought the answers to these samples and `taps` (all
        when None): several runs may share a store. Raises KeyError for an answer that is missing.
        """
        chunks = set(self._chunks.glob("*.safetensors"))
        if digests is not None:
            keys = [row.tobytes() for row in _checked(digests)]
            indices = [self._index[name] for name in self._names(taps)]
            chunks = {index[key][0] for index in indices for key in keys}
        return [json.loads(metadata["receipt"]) for metadata in self._metadata(chunks)]

    def _metadata(self, chunks: Iterable[Path]) -> Iterator[dict[str, str]]:
        for chunk in sorted(chunks):
            with safetensors.safe_open(chunk, framework="numpy") as file:
                yield file.metadata()

    def _chunk(self, request_id: str) -> Path:
        return self._chunks / f"{request_id}.safetensors"

    def _pending(self, path: Path) -> PendingRequest:
        values = json.loads(path.read_text())
        digests = np.frombuffer(bytes.fromhex("".join(values["digests"])), dtype=np.uint8)
        # A request that was begun before taps could be chosen is for all of them.
        taps = tuple(values.get("taps", self._index))
        return PendingRequest(values["request_id"], digests.reshape(-1, 32), taps)

    def _check(self, answers: Mapping[str, np.ndarray], begun: PendingRequest) -> None:
        expected = {
            tap.name: (len(begun.digests), *tap.shape)
            for tap in self.manifest.taps
            if tap.name in begun.taps
        }
        if set(answers) != set(expected):
            raise ValueError(f"answers for taps {sorted(answers)}, expected {sorted(expected)}")
        for name, shape in expected.items():
            if answers[name].shape != shape or answers[name].dtype != np.float32:
                raise ValueError(
                    f"tap {name!r}: {answers[name].dtype} {answers[name].shape}, "
                    f"expected float32 {shape}"
                )

    def _admit(self, chunk: Path) -> None:
        """Verifies one chunk and enters its rows; the first answer to a sample's tap stays."""
        try:
            with safetensors.safe_open(chunk, framework="numpy") as file:
                metadata = dict(file.metadata())
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            sound = metadata.pop("checksum") == _checksum(tensors, metadata)
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise UserError(_corrupt(chunk)) from error
        if not sound or metadata["teacher_version"] != self.manifest.teacher_version:
            raise UserError(_corrupt(chunk))
        for name in tensors.keys() - {_DIGESTS}:
            index = self._index.get(name.removeprefix(_TAP))
            if index is None:
                raise UserError(_corrupt(chunk))
            for number, row in enumerate(tensors[_DIGESTS]):
                index.setdefault(row.tobytes(), (chunk, number))


def _checked(digests: np.ndarray) -> np.ndarray:
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != 32:
        raise ValueError(f"digests are uint8 [n, 32], not {digests.dtype} {digests.shape}")
    return digests


def _checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes and over the metadata."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, tensor.dtype.name, list(tensor.shape)]).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _corrupt(chunk: Path) -> str:
    return (
        f"{chunk} is damaged or not of this store; move it away and run again: "
        "the service returns answers that were paid for once free of charge"
    )
