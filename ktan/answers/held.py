"""The answer files of one store, and where each answer lies in them.

`chunks/ID.safetensors` holds the answers of one request, `shards/NUMBER.safetensors` those of many.
A chunk goes when the shard that holds its answers is durably there; a crash in between leaves
both, and the chunk goes when the store is opened next.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktan.answers.files import ARRIVAL, DIGESTS, TAP, AnswerFile, arrival, corrupt
from ktan.answers.index import Digests, Positions, TapIndex, joined
from ktan.answers.maps import Maps
from ktan.answers.shards import REQUEST, next_name, portions, ready, write_shard
from ktan.durable import put_durably
from ktan.errors import UserError
from ktan.locking import exclusive

CHUNKS = "chunks"


class HeldAnswers:
    """Files of one teacher version, found sound and searchable; none of their answers in memory."""

    def __init__(self, folder: Path, teacher_version: str, taps: Sequence[str]) -> None:
        """Holds nothing before `load`."""
        self.folder = folder
        self.chunks, self.shards = folder / CHUNKS, folder / "shards"
        self._version = teacher_version
        self._shards: dict[int, AnswerFile] = {}
        self._loose: dict[int, AnswerFile] = {}
        """Of one request each. Shards and these are numbered together, in the order of arrival."""
        self._loose_digests: dict[AnswerFile, Digests] = {}
        """In memory, to be searched when their file is not mapped."""
        self._maps = Maps()
        self._numbers = itertools.count()
        self._loose_bytes = 0
        self._arrivals = 0
        """One more than the greatest of the files of one request each."""
        self._in_shards: set[str] = set()
        """Ids of requests."""
        self._index = {name: TapIndex() for name in taps}

    def make_folders(self) -> None:
        """Where they are not there."""
        for part in (self.chunks, self.shards):
            part.mkdir(parents=True, exist_ok=True)

    def load(self, fold: Callable[[], None] | None) -> None:
        """Verifies all there is, and calls `fold` whenever there is enough for a shard.

        Raises UserError for a file that is not sound.
        """
        # In this order: what another process folds meanwhile is found in its shard.
        for chunk in self._present_chunks():
            self._admit_loose(chunk)
            if fold is not None and self.enough:
                fold()
        self._admit_new_shards(remove=fold is not None)
        if fold is not None and self.enough:
            fold()

    def __contains__(self, request_id: str) -> bool:
        """Whether this request's answers are here."""
        return request_id in self._in_shards or self._chunk(request_id).exists()

    @property
    def requests(self) -> list[str]:
        """Ids of all requests whose answers are here."""
        return [*self._in_shards, *(file.path.stem for file in self._loose.values())]

    @property
    def enough(self) -> bool:
        """Whether there are answers for a shard."""
        return ready(len(self._loose), self._loose_bytes)

    def add(
        self,
        request_id: str,
        digests: Digests,
        answers: Mapping[str, np.ndarray],
        receipt: Mapping[str, Any],
    ) -> None:
        """Stores the answers of one request; durable on return."""
        path = self._chunk(request_id)
        arrays = {DIGESTS: digests, **{TAP + name: values for name, values in answers.items()}}
        metadata = {
            "request_id": request_id,
            "teacher_version": self._version,
            "receipt": json.dumps(receipt, sort_keys=True),
            ARRIVAL: str(self._arrivals),
        }
        AnswerFile.write(path, arrays, metadata)
        self._arrivals += 1
        self._admit_loose(AnswerFile.read(path, self._version))

    def fold(self) -> None:
        """Puts the answers that lie in files of their own into shards.

        Does nothing while another process folds.
        """
        with exclusive(self.folder) as alone:
            if alone:
                self._fold_alone()

    def adopt(self, other: "HeldAnswers") -> int:
        """Copies the answers of another store's requests; returns how many requests were new.

        For a process that is alone here. What is here is folded first: shards are searched in the
        order in which they came, and before anything else, so that the first answer stays. Each
        file is durably here, or not at all, whenever this is cut off; the next call goes on.
        """
        self._fold_alone()
        self._arrivals = max(self._arrivals, other._arrivals)
        known = set(self.requests)
        new = 0
        for file in (*other._shards.values(), *other._loose.values()):
            ids = {request_id for request_id, _ in file.receipts} - known
            if not ids:
                continue
            one = file.path.parent.name == CHUNKS
            path = self.chunks / file.path.name if one else self.shards / next_name(self.shards)
            # Here alone, where whoever is alone may sweep: others write to the chunks meanwhile.
            partial = self.shards / f".{path.name}.{os.getpid()}.tmp"
            try:
                shutil.copyfile(file.path, partial)
                put_durably(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            copied = AnswerFile.read(path, self._version)
            self._admit_loose(copied) if one else self._admit_shard(copied)
            known |= ids
            new += len(ids)
        return new

    def find(self, name: str, digests: Digests) -> tuple[Positions, Positions]:
        """File number and row of the first answer of tap `name` to each sample; -1: none."""
        return self._index[name].find(digests)

    def file(self, number: int) -> AnswerFile:
        """The file of that number, which has array `TAP` + name of the taps that it answers."""
        return self._loose[number] if number in self._loose else self._shards[number]

    def digests(self, taps: Sequence[str]) -> Digests:
        """Of all samples with an answer of any of `taps`, each once, in no particular order."""
        parts = [part for name in taps for part in self._index[name].parts()]
        found: Digests = joined(parts).view(np.uint8).reshape(-1, 32)
        return found

    def receipts(self, of: Mapping[int, set[int]] | None = None) -> Iterator[dict[str, Any]]:
        """Of all requests, each once; with `of`, of these places in files alone."""
        seen: set[str] = set()
        for number, file in (self._shards | self._loose).items():
            if of is not None and number not in of:
                continue
            for place, (request_id, receipt) in enumerate(file.receipts):
                if request_id not in seen and (of is None or place in of[number]):
                    seen.add(request_id)
                    yield json.loads(receipt)

    def brought(self, digests: Digests, taps: Sequence[str]) -> dict[int, set[int]]:
        """File → places in it of the requests that brought these answers.

        Raises KeyError for an answer that is missing.
        """
        places: dict[int, set[int]] = {}
        for name in taps:
            files, rows = self.find(name, digests)
            if (files < 0).any():
                raise KeyError(f"an answer of {name!r} is missing")
            for number in np.unique(files).tolist():
                file, found = self.file(number), [0]
                if REQUEST + name in file.names:
                    found = file.arrays[REQUEST + name][rows[files == number]].tolist()
                places.setdefault(number, set()).update(found)
        return places

    def _chunk(self, request_id: str) -> Path:
        return self.chunks / f"{request_id}.safetensors"

    def _present_chunks(self) -> Iterator[AnswerFile]:
        paths = [(arrival(path), path) for path in self.chunks.glob("*.safetensors")]
        for number, path in sorted(paths):
            self._arrivals = max(self._arrivals, number + 1)
            try:
                yield AnswerFile.read(path, self._version)
            except FileNotFoundError:
                continue

    def _fold_alone(self) -> None:
        for rest in self.shards.glob(".*.tmp"):
            # Of a process that was killed.
            rest.unlink(missing_ok=True)
        # Another process may have folded some meanwhile.
        self._admit_new_shards()
        for portion in portions(list(self._loose.values())):
            path = self.shards / next_name(self.shards)
            write_shard(path, portion, self._version)
            self._admit_new_shards()

    def _admit_loose(self, file: AnswerFile) -> None:
        number = next(self._numbers)
        taps = self._taps(file)
        if file not in self._loose_digests:
            self._loose_digests[file] = file.arrays[DIGESTS].copy()
            self._maps.add(file)
        for name in taps:
            self._index[name].add(number, self._loose_digests[file])
        self._loose[number] = file
        self._loose_bytes += file.size

    def _admit_shard(self, file: AnswerFile) -> None:
        number = next(self._numbers)
        for name in self._taps(file):
            self._index[name].add_shard(number, file.arrays[f"{DIGESTS}.{name}"])
        self._shards[number] = file
        self._in_shards.update(request_id for request_id, _ in file.receipts)

    def _admit_new_shards(self, *, remove: bool = True) -> None:
        """Those that this object does not know, in place of the files that they were made of.

        remove: those files, from the disk too.
        """
        known = {file.path for file in self._shards.values()}
        for path in sorted(self.shards.glob("*.safetensors")):
            if path not in known:
                self._admit_shard(AnswerFile.read(path, self._version))
        loose = list(self._loose.values())
        left = [file for file in loose if file.path.stem not in self._in_shards]
        if len(left) == len(loose):
            return
        self._loose, self._loose_bytes = {}, 0
        for index in self._index.values():
            index.clear_loose()
        for file in left:
            self._admit_loose(file)
        for file in loose:
            if file.path.stem in self._in_shards:
                del self._loose_digests[file]
                self._maps.forget(file)
                if remove:
                    file.path.unlink(missing_ok=True)

    def _taps(self, file: AnswerFile) -> list[str]:
        """Raises UserError when one of them is not of this store."""
        names = [name.removeprefix(TAP) for name in file.names if name.startswith(TAP)]
        if not self._index.keys() >= set(names):
            raise UserError(corrupt(file.path))
        return names
