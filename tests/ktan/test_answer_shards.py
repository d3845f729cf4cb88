"""The answers of many requests in one file: folded, killed in between, damaged, of older stores."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ktan.answers import AnswerStore, shards
from ktan.answers.files import AnswerFile
from ktan.errors import UserError
from tests.ktan.answer_files import DIGESTS, GIVEN, MANIFEST, check, contents, files, fill


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of four requests."""
    monkeypatch.setattr(shards, "MOST_REQUESTS", 4)


@pytest.mark.usefixtures("small")
def test_requests_become_shards_and_nothing_is_lost(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    fill(store)
    assert files(tmp_path) == (2, 2)
    for opened in (store, AnswerStore.open(tmp_path)):
        check(opened)
        with pytest.raises(ValueError, match="used before"):
            opened.begin("r0", DIGESTS[:1])
    store.fold()
    assert files(tmp_path) == (3, 0)
    check(store)
    check(AnswerStore.open(tmp_path))


@pytest.mark.usefixtures("small")
def test_the_first_answer_stays_across_files(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    for number in range(6):
        store.begin(f"{9 - number}", DIGESTS[:2], ["hint"])
        store.finish(f"{9 - number}", {"hint": GIVEN["hint"][number : number + 2]}, {})
    for opened in (store, AnswerStore.open(tmp_path)):
        found = opened.answers(DIGESTS[:2], ["hint"])["hint"].numpy()
        np.testing.assert_array_equal(found, GIVEN["hint"][:2])


def answer(store: AnswerStore, request_id: str, number: int) -> None:
    """The hints of `number` as a request's answer about the first two samples."""
    store.begin(request_id, DIGESTS[:2], ["hint"])
    store.finish(request_id, {"hint": GIVEN["hint"][number : number + 2]}, {"entry": number})


def answered(store: AnswerStore) -> np.ndarray:
    return store.answers(DIGESTS[:2], ["hint"])["hint"].numpy()


def test_the_first_answer_stays_when_the_store_is_opened_again(tmp_path: Path) -> None:
    answer(AnswerStore.open(tmp_path, MANIFEST), "c", 0)
    answer(AnswerStore.open(tmp_path), "b", 1)
    store = AnswerStore.open(tmp_path)
    answer(store, "a", 2)
    for opened in (store, AnswerStore.open(tmp_path), AnswerStore.open(tmp_path, read_only=True)):
        np.testing.assert_array_equal(answered(opened), GIVEN["hint"][:2])
    AnswerStore.open(tmp_path).fold()
    np.testing.assert_array_equal(answered(AnswerStore.open(tmp_path)), GIVEN["hint"][:2])


def test_files_without_a_recorded_order_come_first_and_by_name(tmp_path: Path) -> None:
    """As earlier versions read them."""
    with pytest.MonkeyPatch.context() as patch:
        write = AnswerFile.write
        patch.setattr(
            AnswerFile,
            "write",
            lambda path, arrays, metadata: write(
                path, arrays, {name: text for name, text in metadata.items() if name != "arrival"}
            ),
        )
        store = AnswerStore.open(tmp_path, MANIFEST)
        answer(store, "d", 0)
        answer(store, "c", 1)
    answer(AnswerStore.open(tmp_path), "a", 2)
    np.testing.assert_array_equal(answered(AnswerStore.open(tmp_path)), GIVEN["hint"][1:3])


@pytest.mark.parametrize("folded", [True, False])
def test_the_first_answer_stays_when_another_store_is_adopted(tmp_path: Path, folded: bool) -> None:
    into = AnswerStore.open(tmp_path / "into", MANIFEST)
    answer(into, "b", 0)
    source = AnswerStore.open(tmp_path / "source", MANIFEST)
    answer(source, "a", 1)
    if folded:
        source.fold()
    assert into.adopt(source) == 1
    for opened in (into, AnswerStore.open(tmp_path / "into")):
        np.testing.assert_array_equal(answered(opened), GIVEN["hint"][:2])


def test_a_begun_request_ends_when_its_answers_are_adopted(tmp_path: Path) -> None:
    into = AnswerStore.open(tmp_path / "into", MANIFEST)
    into.begin("a", DIGESTS[:2], ["hint"])
    into.begin("b", DIGESTS[:2], ["hint"])
    source = AnswerStore.open(tmp_path / "source", MANIFEST)
    answer(source, "a", 1)
    assert into.adopt(source) == 1
    assert [path.stem for path in (tmp_path / "into" / "requests").iterdir()] == ["b"]
    assert [request.request_id for request in into.pending()] == ["b"]


@pytest.mark.parametrize("folded", [True, False])
def test_a_copy_that_is_cut_off_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    """Neither by an error, nor, once the next merge is through, by a kill."""
    into = AnswerStore.open(tmp_path / "into", MANIFEST)
    source = AnswerStore.open(tmp_path / "source", MANIFEST)
    answer(source, "a", 1)
    if folded:
        source.fold()

    def full(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    def rest() -> list[Path]:
        return list((tmp_path / "into").rglob(".*"))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            into.adopt(source)
    assert rest() == []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(OSError, match="No space"):
            into.adopt(source)
    assert len(rest()) == 1
    assert into.adopt(source) == 1
    assert rest() == []


def test_rows_stay_readable_while_their_files_are_folded(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    fill(store)
    other = AnswerStore.open(tmp_path)
    view = other.rows(DIGESTS, ["hint"])["hint"]
    store.fold()
    assert files(tmp_path) == (1, 0)
    np.testing.assert_array_equal(view[:].numpy(), GIVEN["hint"])
    # The other one holds what it has seen, and folds nothing twice.
    other.fold()
    assert files(tmp_path) == (1, 0)
    check(other)


@pytest.mark.usefixtures("small")
def test_a_store_of_the_first_format_is_read_and_takes_shards(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_REQUESTS", 1000)
        fill(AnswerStore.open(tmp_path, MANIFEST), range(3))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    shutil.rmtree(tmp_path / "shards")
    check(AnswerStore.open(tmp_path), requests=3)
    assert json.loads(path.read_text())["format"] == 1
    fill(AnswerStore.open(tmp_path, MANIFEST), range(3, 10))
    assert json.loads(path.read_text())["format"] == 2
    check(AnswerStore.open(tmp_path))


@pytest.mark.usefixtures("small")
def test_a_store_that_is_opened_read_only_is_left_as_it_is(tmp_path: Path) -> None:
    """One of the first format, with requests that would be folded, and one that would be ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_REQUESTS", 1000)
        store = AnswerStore.open(tmp_path, MANIFEST)
        fill(store)
        store.begin("begun", DIGESTS[:2])
    begun = (tmp_path / "requests" / "begun.json").read_text()
    (tmp_path / "requests" / "r1.json").write_text(begun.replace("begun", "r1"))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    shutil.rmtree(tmp_path / "shards")
    before = contents(tmp_path)
    store = AnswerStore.open(tmp_path, read_only=True)
    check(store)
    assert [request.request_id for request in store.pending()] == ["begun"]
    into = AnswerStore.open(tmp_path.with_name(f"{tmp_path.name}-into"), MANIFEST)
    assert into.adopt(store) == 10
    check(into)
    for change in (
        lambda: store.begin("new", DIGESTS[:1]),
        lambda: store.finish("begun", {}, {}),
        lambda: store.abandon("begun"),
        store.fold,
        lambda: store.adopt(into),
    ):
        with pytest.raises(ValueError, match="read only"):
            change()
    with pytest.raises(UserError, match="holds no answers"):
        AnswerStore.open(tmp_path / "new", MANIFEST, read_only=True)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("small")
def test_what_a_crash_left_beside_its_shard_stays_in_a_store_that_is_read_only(
    tmp_path: Path,
) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    fill(store, range(3))
    chunk = tmp_path / "chunks" / "r0.safetensors"
    content = chunk.read_bytes()
    store.fold()
    chunk.write_bytes(content)
    before = contents(tmp_path)
    check(AnswerStore.open(tmp_path, read_only=True), requests=3)
    assert contents(tmp_path) == before


def test_killed_at_any_file_operation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child dies by SIGKILL at its n-th call that changes the disk, for every n."""
    monkeypatch.setattr(shards, "MOST_REQUESTS", 2)
    for number in itertools.count():
        folder = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            _die_at(number)
            fill(AnswerStore.open(folder, MANIFEST), range(3))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        _go_on(folder)
        check(AnswerStore.open(folder), requests=3)
    # Eight for each request, five for the shard, those of the empty store.
    assert number > 3 * 8 + 5


def _die_at(number: int) -> None:
    calls = itertools.count()

    def dying(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **named)

        return call

    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, dying(getattr(Path, name)))
    os.fsync = dying(os.fsync)  # type: ignore[assignment]


def _go_on(folder: Path) -> None:
    """As `fetch` does: what was begun is finished first, then what is missing is asked."""
    store = AnswerStore.open(folder, MANIFEST)
    for request in store.pending():
        store.abandon(request.request_id)
    for number in range(3):
        if store.missing(DIGESTS[6 * number : 6 * number + 6], ["hint"]).any():
            fill(store, range(number, number + 1))


def test_every_flipped_bit_of_a_shard_is_noticed(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    fill(store, range(2))
    store.fold()
    (shard,) = (tmp_path / "shards").iterdir()
    sound = shard.read_bytes()
    positions = [*range(200), *range(200, len(sound), 37), len(sound) - 1]
    for position in positions:
        if sound[position : position + 1] == b" ":
            continue
        damaged = bytearray(sound)
        damaged[position] ^= 1
        shard.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match=r"000000\.safetensors is damaged"):
            AnswerStore.open(tmp_path)
    for length in (0, 7, 100, len(sound) - 5):
        shard.write_bytes(sound[:length])
        with pytest.raises(UserError, match="damaged"):
            AnswerStore.open(tmp_path)
