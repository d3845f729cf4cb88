"""Answers by sample and tap: asked once, paid once, kept.

An answer costs privacy, so it is asked once: `begin` puts the request on disk before it is sent,
`finish` puts the answers there before they are used. After a crash `pending` names the requests
whose fate is unknown; sent again under the same id they cost nothing if they were charged.

A store is a folder: `manifest.json` (which teacher, which taps), `requests/ID.json` (under way),
`chunks/ID.safetensors` (the answers of one request with their receipt and a checksum).

A request may be for some of the teacher's taps: an answer is of one sample *and one tap*, and what
is missing is said so. Asking for another tap of a stored sample later costs that tap alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ktan.answers.files import DIGESTS, TAP, AnswerFile, corrupt
from ktan.answers.index import Digests, TapIndex, checked
from ktan.answers.manifest import AnswerManifest
from ktan.answers.requests import PendingRequest, Requests
from ktan.answers.rows import AnswerRows
from ktan.durable import write_durably
from ktan.errors import UserError


class AnswerStore:
    """Answers by sample digest. One process writes; opened by `open`."""

    def __init__(self, folder: Path, manifest: AnswerManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._requests = Requests(folder / "requests", [tap.name for tap in manifest.taps])
        self._chunks = folder / "chunks"
        self._chunks.mkdir(parents=True, exist_ok=True)
        self._files: list[AnswerFile] = []
        self._index = {tap.name: TapIndex() for tap in manifest.taps}

    @classmethod
    def open(cls, folder: Path, manifest: AnswerManifest | None = None) -> "AnswerStore":
        """Opens the store, or creates it for the teacher of `manifest`.

        Raises UserError when the folder holds the answers of another teacher version or of other
        release settings, when it holds none and no manifest is given, and when a file does not
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
        if not path.exists():
            content = json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n"
            write_durably(path, content.encode())
        for chunk in sorted(store._chunks.glob("*.safetensors")):
            store._admit(chunk)
            # A crash between the answers and the end of their request leaves both files.
            store._requests.path(chunk.stem).unlink(missing_ok=True)
        return store

    def __len__(self) -> int:
        """Different samples with an answer of any tap."""
        return len(self.digests())

    def digests(self) -> Digests:
        """Digests of all answered samples, uint8 [n, 32], in no particular order."""
        parts = [part for index in self._index.values() for part in index.parts()]
        found: Digests = np.unique(np.concatenate(parts)).view(np.uint8).reshape(-1, 32)
        return found

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
        if self._chunk(request_id).exists():
            raise ValueError(f"request id {request_id} was used before in {self.folder}")
        self._requests.begin(PendingRequest(request_id, checked(digests), names))

    def pending(self) -> list[PendingRequest]:
        """Requests whose answers are not here; send them again under the same id, first of all."""
        return self._requests.all()

    def finish(
        self, request_id: str, answers: Mapping[str, np.ndarray], receipt: Mapping[str, Any]
    ) -> None:
        """Stores a begun request's answers: every tap that it asked for, float32 [n, *shape].

        Raises ValueError when the request was not begun, or a tap is missing, unknown or of
        another shape or dtype; nothing is written then.
        """
        begun = self._requests.get(request_id)
        if begun is None:
            raise ValueError(f"request {request_id} was not begun in {self.folder}")
        self._check(answers, begun)
        chunk = self._chunk(request_id)
        AnswerFile.write(
            chunk,
            {DIGESTS: begun.digests, **{TAP + name: values for name, values in answers.items()}},
            {
                "request_id": request_id,
                "teacher_version": self.manifest.teacher_version,
                "receipt": json.dumps(receipt, sort_keys=True),
            },
        )
        self._admit(chunk)
        self._requests.end(request_id)

    def abandon(self, request_id: str) -> None:
        """Forgets a begun request that the service refused, and therefore did not charge."""
        self._requests.end(request_id)

    def missing(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> np.ndarray:
        """bool [n]: True where one of `taps` (all when None) is not stored.

        A pending request counts as missing. Raises ValueError for a tap that is unknown.
        """
        absent = np.zeros(len(checked(digests)), dtype=bool)
        for name in self._names(taps):
            absent |= self._index[name].find(digests)[0] < 0
        return absent

    def answers(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Tap name → float32 [n, *shape] in memory, in the order of `digests`; all taps when None.

        Raises UserError when an answer is missing, ValueError for a tap that is unknown.
        """
        return {name: rows[:] for name, rows in self.rows(digests, taps).items()}

    def rows(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> dict[str, AnswerRows]:
        """Tap name → the answers in the order of `digests` (uint8 [n, 32]), none of them in memory.

        `rows(digests)[tap][positions]` gives float32 [b, *shape] for int64 [b] positions in
        `digests`, read from memory-mapped files: see `AnswerRows`. All taps when None. 16 bytes a
        sample and tap stay in memory. Raises as `answers` does.
        """
        return {name: self._rows(name, checked(digests)) for name in self._names(taps)}

    def _rows(self, name: str, digests: Digests) -> AnswerRows:
        shape = next(tap.shape for tap in self.manifest.taps if tap.name == name)
        files, rows = self._index[name].find(digests)
        if absent := int((files < 0).sum()):
            raise UserError(
                f"{absent} of {len(digests)} samples have no answer in {self.folder}; "
                "ask the teacher for them first"
            )
        values = {n: self._files[n].arrays[TAP + name] for n in np.unique(files).tolist()}
        return AnswerRows(shape, values, files, rows)

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
        files = self._files
        if digests is not None:
            found = [self._index[name].find(checked(digests))[0] for name in self._names(taps)]
            numbers = np.unique(np.concatenate(found))
            if (numbers < 0).any():
                raise KeyError("an answer is missing")
            files = [files[number] for number in numbers.tolist()]
        return [request["receipt"] for file in files for request in file.requests]

    def _chunk(self, request_id: str) -> Path:
        return self._chunks / f"{request_id}.safetensors"

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
        file = AnswerFile.read(chunk, self.manifest.teacher_version)
        taps = [name.removeprefix(TAP) for name in file.arrays.keys() - {DIGESTS}]
        if not self._index.keys() >= set(taps):
            raise UserError(corrupt(chunk))
        for name in taps:
            self._index[name].add(len(self._files), file.arrays[DIGESTS])
        self._files.append(file)
