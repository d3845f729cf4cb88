"""Files of answers as memory maps: more than a process may have, gone, or not to be mapped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ktan.answers import AnswerStore, maps, shards
from ktan.errors import UserError
from tests.ktan.answer_files import DIGESTS, GIVEN, MANIFEST, check, contents, files, fill


def test_more_files_than_a_process_can_map_are_folded_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(AnswerStore.open(tmp_path, MANIFEST))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    assert files(tmp_path) == (0, 10)
    at_most_eight_maps(tmp_path, monkeypatch)
    monkeypatch.setattr(shards, "MOST_REQUESTS", 3)
    check(AnswerStore.open(tmp_path))
    assert files(tmp_path) == (3, 1)
    assert json.loads(path.read_text())["format"] == 2


def test_more_files_than_a_process_can_map_are_read_in_turn_where_nothing_may_be_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(AnswerStore.open(tmp_path / "source", MANIFEST))
    into = AnswerStore.open(tmp_path / "into", MANIFEST)
    before = contents(tmp_path / "source")
    at_most_eight_maps(tmp_path / "source", monkeypatch)
    with pytest.raises(UserError, match="maps too many files"):
        AnswerStore.open(tmp_path / "source", read_only=True)
    monkeypatch.setattr(maps, "MOST", 4)
    store = AnswerStore.open(tmp_path / "source", read_only=True)
    check(store)
    assert into.adopt(store) == 10
    check(into)
    assert contents(tmp_path / "source") == before


def test_a_file_that_went_while_it_was_not_mapped_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process finds its answers in a shard."""
    monkeypatch.setattr(maps, "MOST", 1)
    fill(AnswerStore.open(tmp_path, MANIFEST), range(3))
    store = AnswerStore.open(tmp_path, read_only=True)
    view = store.rows(DIGESTS[:18], ["hint"])["hint"]
    AnswerStore.open(tmp_path).fold()
    np.testing.assert_array_equal(view[12:].numpy(), GIVEN["hint"][12:18])
    with pytest.raises(UserError, match=r"r0\.safetensors is gone.*run again"):
        view[:6]
    check(AnswerStore.open(tmp_path, read_only=True), requests=3)


def at_most_eight_maps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files in `folder`."""
    map_file = torch.from_file

    def limited(path: str, **arguments: object) -> torch.Tensor:
        if Path("/proc/self/maps").read_text().count(str(folder)) == 8:
            raise RuntimeError("unable to mmap: Cannot allocate memory (12)")
        return map_file(path, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "from_file", limited)


def test_a_file_that_is_there_and_cannot_be_mapped_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that were paid for are never passed over, and a request of theirs does not end."""
    store = AnswerStore.open(tmp_path, MANIFEST)
    fill(store, range(3))
    store.begin("pending", DIGESTS[30:])
    shutil.copyfile(tmp_path / "requests" / "pending.json", tmp_path / "requests" / "r1.json")
    map_file = torch.from_file

    def failing(path: str, **arguments: object) -> torch.Tensor:
        if path.endswith("r1.safetensors"):
            raise RuntimeError("unable to mmap: Cannot allocate memory (12)")
        return map_file(path, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "from_file", failing)
    with pytest.raises(UserError, match=r"r1\.safetensors is there but cannot be read"):
        AnswerStore.open(tmp_path)
    assert (tmp_path / "requests" / "r1.json").exists()
    monkeypatch.undo()
    check(AnswerStore.open(tmp_path), requests=3)
