"""Requests under way: on disk before they are sent, gone when their answers are there."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ktan.answers.index import Digests
from ktan.durable import sync_folder, write_durably

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class PendingRequest:
    """A request that was begun and not finished: charged or not, only the service knows."""

    request_id: str
    digests: Digests
    """uint8 [n, 32], in the order in which the samples were sent."""
    taps: tuple[str, ...]
    """Names of the taps that were asked for."""


class Requests:
    """The folder of requests that were begun."""

    def __init__(self, folder: Path, taps: Sequence[str]) -> None:
        """taps: all of the teacher's."""
        self._folder = folder
        self._taps = tuple(taps)

    def make_folder(self) -> None:
        """Where it is not there."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, request_id: str) -> Path:
        return self._folder / f"{request_id}.json"

    def begin(self, request: PendingRequest) -> None:
        """On return it is on disk. Raises ValueError for an id that cannot name a file, or that
        is under way."""
        if not _REQUEST_ID.fullmatch(request.request_id):
            raise ValueError(f"request id {request.request_id!r} cannot name a file")
        path = self.path(request.request_id)
        if path.exists():
            raise ValueError(f"request id {request.request_id} was used before in {path.parent}")
        begun = {
            "request_id": request.request_id,
            "taps": list(request.taps),
            "digests": [row.tobytes().hex() for row in request.digests],
        }
        write_durably(path, json.dumps(begun).encode())

    def ids(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def get(self, request_id: str) -> PendingRequest | None:
        """The request as it was begun; None where it is not under way."""
        path = self.path(request_id)
        return self._read(path) if path.exists() else None

    def all(self) -> list[PendingRequest]:
        return [self._read(self.path(request_id)) for request_id in self.ids()]

    def end(self, request_id: str) -> None:
        """Forgets it, durably; nothing where it is not under way."""
        self.path(request_id).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _read(self, path: Path) -> PendingRequest:
        values = json.loads(path.read_text())
        digests = np.frombuffer(bytes.fromhex("".join(values["digests"])), dtype=np.uint8)
        # A request that was begun before taps could be chosen is for all of them.
        taps = tuple(values.get("taps", self._taps))
        return PendingRequest(values["request_id"], digests.reshape(-1, 32), taps)
