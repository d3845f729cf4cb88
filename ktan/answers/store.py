"""Answers by sample and tap: asked once, paid once, kept.

An answer costs privacy, so it is asked once: `begin` puts the request on disk before it is sent,
`finish` puts the answers there before they are used. After a crash `pending` names the requests
whose fate is unknown; sent again under the same id they cost nothing if they were charged.

A store is a folder: `manifest.json` (which teacher, which taps), `requests/ID.json` (under way),
`chunks/ID.safetensors` (the answers of one request with their receipt and a checksum), and
`shards/NUMBER.safetensors` (those of a thousand requests, folded into one file). Every file is
written whole, under its name at once, and never changed: whatever stops a process leaves a store
that is sound. A chunk goes when the shard that holds it is durably there.

A request may be for some of the teacher's taps: an answer is of one sample *and one tap*, and what
is missing is said so. Asking for another tap of a stored sample later costs that tap alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ktan.answers.held import HeldAnswers
from ktan.answers.index import Digests, checked
from ktan.answers.manifest import FORMAT, AnswerManifest
from ktan.answers.requests import PendingRequest, Requests
from ktan.answers.rows import AnswerRows
from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.locking import exclusive

MANIFEST = "manifest.json"


class AnswerStore:
    """Answers by sample digest. One process writes; opened by `open`."""

    def __init__(
        self,
        folder: Path,
        manifest: AnswerManifest,
        *,
        older: bool = False,
        read_only: bool = False,
    ) -> None:
        """older: the manifest in `folder` is of an earlier format. read_only: as in `open`."""
        self.folder = folder
        self.manifest = manifest
        self._older = older
        self._read_only = read_only
        self._taps = {tap.name: tap for tap in manifest.taps}
        self._requests = Requests(folder / "requests", list(self._taps))
        self._held = HeldAnswers(folder, manifest.teacher_version, list(self._taps))
        if not read_only:
            self._requests.make_folder()
            self._held.make_folders()
        self._held.load(None if read_only else self.fold)

    @classmethod
    def open(
        cls, folder: Path, manifest: AnswerManifest | None = None, *, read_only: bool = False
    ) -> "AnswerStore":
        """Opens the store, or creates it for the teacher of `manifest`; reads all of it once.

        read_only: nothing in `folder` is written, removed or created; what would do so later
        raises ValueError.

        Raises UserError when the folder holds the answers of another teacher version or of other
        release settings, when it holds none and no manifest is given, and when a file does not
        fit its checksum.
        """
        path, older = folder / MANIFEST, False
        if path.exists() or manifest is None or read_only:
            values = _manifest_json(folder)
            stored = AnswerManifest.from_json(values)
            if manifest is not None and manifest != stored:
                raise UserError(stored.difference(manifest, folder))
            manifest, older = stored, values["format"] != FORMAT
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _write(manifest, path)
        store = cls(folder, manifest, older=older, read_only=read_only)
        if not read_only:
            # A crash between the answers and the end of their request leaves both files.
            store._end_answered()
        return store

    def __len__(self) -> int:
        """Different samples with an answer of any tap."""
        return len(self.digests())

    def digests(self) -> Digests:
        """Digests of all answered samples, uint8 [n, 32], in no particular order."""
        return self._held.digests(list(self._taps))

    def count(self, tap: str) -> int:
        """Different samples with an answer of this tap. Raises ValueError where it is unknown."""
        (name,) = self._names([tap])
        return len(self._held.digests([name]))

    def begin(
        self, request_id: str, digests: np.ndarray, taps: Sequence[str] | None = None
    ) -> None:
        """Records durably that these samples (uint8 [n, 32]) are about to be asked for `taps`.

        All taps of the manifest when None. Raises ValueError for a request id that was used before
        or that cannot name a file, and for a tap that is unknown, there twice, or none at all.
        """
        self._require_writable()
        names = self._names(taps)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a request is for taps, each once, not for {list(names)}")
        if request_id in self._held:
            raise ValueError(f"request id {request_id} was used before in {self.folder}")
        self._requests.begin(PendingRequest(request_id, checked(digests), names))

    def pending(self) -> list[PendingRequest]:
        """Requests whose answers are not here; send them again under the same id, first of all."""
        return [begun for begun in self._requests.all() if begun.request_id not in self._held]

    def finish(
        self, request_id: str, answers: Mapping[str, np.ndarray], receipt: Mapping[str, Any]
    ) -> None:
        """Stores a begun request's answers: every tap that it asked for, float32 [n, *shape].

        Raises ValueError when the request was not begun, or a tap is missing, unknown or of
        another shape or dtype; nothing is written then.
        """
        self._require_writable()
        begun = self._requests.get(request_id)
        if begun is None:
            raise ValueError(f"request {request_id} was not begun in {self.folder}")
        self._check(answers, begun)
        self._held.add(request_id, begun.digests, answers, receipt)
        self._requests.end(request_id)
        if self._held.enough:
            self.fold()

    def abandon(self, request_id: str) -> None:
        """Forgets a begun request that the service refused, and therefore did not charge."""
        self._require_writable()
        self._requests.end(request_id)

    def fold(self) -> None:
        """Puts the answers that lie in files of their own into shards.

        `finish` and `open` do so by themselves whenever there is enough for one. Does nothing
        while another process folds.
        """
        self._require_writable()
        self._become_current()
        self._held.fold()

    def adopt(self, other: "AnswerStore") -> int:
        """Copies the answers, receipts and begun requests of another store of the same teacher.

        Returns how many requests' answers were new here. Cut off, it goes on when called again.
        Raises UserError for another teacher's store, or while another process writes here.
        """
        self._require_writable()
        if other.manifest != self.manifest:
            raise UserError(self.manifest.difference(other.manifest, self.folder))
        with exclusive(self.folder) as alone:
            if not alone:
                raise UserError(f"another process works on {self.folder}; wait until it has ended")
            self._become_current()
            new = self._held.adopt(other._held)
            self._end_answered()
            begun = set(self._requests.ids())
            for request in other.pending():
                if request.request_id not in self._held and request.request_id not in begun:
                    self._requests.begin(request)
        return new

    def missing(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> np.ndarray:
        """bool [n]: True where one of `taps` (all when None) is not stored.

        A pending request counts as missing. Raises ValueError for a tap that is unknown.
        """
        absent = np.zeros(len(checked(digests)), dtype=bool)
        for name in self._names(taps):
            absent |= self._held.find(name, digests)[0] < 0
        return absent

    def answers(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Tap name → float32 [n, *shape] in memory, in the order of `digests`; all taps when None.

        Raises UserError when an answer is missing, ValueError for a tap that is unknown.
        """
        return {name: rows[:] for name, rows in self.rows(digests, taps).items()}

    def rows(self, digests: np.ndarray, taps: Sequence[str] | None = None) -> dict[str, AnswerRows]:
        """Tap name → the answers in the order of `digests` (uint8 [n, 32]), none of them in memory.

        `rows(digests)[tap][positions]` gives float32 [b, *shape] for int64 [b] positions in
        `digests`, read from memory-mapped files: see `AnswerRows`. All taps when None. 8 bytes a
        sample and tap stay in memory. Raises as `answers` does.
        """
        return {name: self._rows(name, checked(digests)) for name in self._names(taps)}

    def receipts(
        self, digests: np.ndarray | None = None, taps: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The receipts of all finished requests, each once, in no particular order.

        With `digests`, of those alone that brought the answers to these samples and `taps` (all
        when None): several runs may share a store. Raises KeyError for an answer that is missing.
        """
        if digests is None:
            return self._held.receipts()
        return self._held.receipts(self._held.brought(checked(digests), self._names(taps)))

    def _end_answered(self) -> None:
        for request_id in self._requests.ids():
            if request_id in self._held:
                self._requests.end(request_id)

    def _require_writable(self) -> None:
        if self._read_only:
            raise ValueError(f"{self.folder} was opened to be read only")

    def _become_current(self) -> None:
        """An earlier version must not take a store with shards for one without these answers."""
        if self._older:
            _write(self.manifest, self.folder / MANIFEST)
            self._older = False

    def _rows(self, name: str, digests: Digests) -> AnswerRows:
        files, rows = self._held.find(name, digests)
        if absent := int((files < 0).sum()):
            raise UserError(
                f"{absent} of {len(digests)} samples have no answer in {self.folder}; "
                "ask the teacher for them first"
            )
        read = {number: self._held.file(number) for number in np.unique(files).tolist()}
        return AnswerRows(self._taps[name], read, files, rows)

    def _names(self, taps: Sequence[str] | None) -> tuple[str, ...]:
        if taps is None:
            return tuple(self._taps)
        if unknown := [name for name in taps if name not in self._taps]:
            raise ValueError(f"no taps {unknown}; the store has {list(self._taps)}")
        return tuple(taps)

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


def read_manifest(folder: Path) -> AnswerManifest:
    """Whose answers a store holds; reads none of them. Raises UserError where there is no store."""
    return AnswerManifest.from_json(_manifest_json(folder))


def _manifest_json(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"{folder} holds no answers (no {MANIFEST})")
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def _write(manifest: AnswerManifest, path: Path) -> None:
    content = json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n"
    write_durably(path, content.encode())
