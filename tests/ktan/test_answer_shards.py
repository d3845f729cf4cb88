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
import torch

from ktan.answers import AnswerManifest, AnswerStore, maps, shards
from ktan.answers.files import AnswerFile
from ktan.errors import UserError
from ktan.teacher import AnswerTap

MANIFEST = AnswerManifest(
    "ab" * 16,
    (
        AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.13, temperature=3.0),
        AnswerTap("hint", "hint", (2, 3), noise_sd=0.5),
    ),
)
DIGESTS = np.random.default_rng(1).integers(0, 256, (60, 32), dtype=np.uint8)
GIVEN = {
    tap.name: np.random.default_rng(2).normal(size=(60, *tap.shape)).astype(np.float32)
    for tap in MANIFEST.taps
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of four requests."""
    monkeypatch.setattr(shards, "MOST_REQUESTS", 4)


def fill(store: AnswerStore, requests: range = range(10)) -> None:
    """Six samples a request; every third request is for the hints alone."""
    for number in requests:
        part = slice(6 * number, 6 * number + 6)
        taps = ["hint"] if number % 3 == 2 else ["probabilities", "hint"]
        store.begin(f"r{number}", DIGESTS[part], taps)
        answers = {name: GIVEN[name][part] for name in taps}
        store.finish(f"r{number}", answers, {"entry": number, "signature": f"ß{number}"})


def check(store: AnswerStore, requests: int = 10) -> None:
    """Everything that `fill` put in is there, bit for bit and once."""
    digests, count = DIGESTS[: 6 * requests], 6 * requests
    assert len(store) == count
    order = np.random.default_rng(3).permutation(count)
    hints = store.rows(digests[order], ["hint"])["hint"]
    for batch in np.split(np.arange(count), 6):
        expected = GIVEN["hint"][order][batch]
        np.testing.assert_array_equal(hints[torch.from_numpy(batch)].numpy(), expected)
    labelled = np.array([number // 6 % 3 != 2 for number in range(count)])
    assert store.missing(digests, ["probabilities"]).tolist() == (~labelled).tolist()
    found = store.answers(digests[labelled], ["probabilities"])["probabilities"]
    np.testing.assert_array_equal(found.numpy(), GIVEN["probabilities"][:count][labelled])
    entries = sorted(receipt["entry"] for receipt in store.receipts())
    assert entries == list(range(requests))
    of_two = store.receipts(digests[[0, 5, 13]], ["hint"])
    assert sorted(receipt["signature"] for receipt in of_two) == ["ß0", "ß2"]


def files(folder: Path) -> tuple[int, int]:
    return len(list((folder / "shards").iterdir())), len(list((folder / "chunks").iterdir()))


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
    before = _content(tmp_path / "source")
    at_most_eight_maps(tmp_path / "source", monkeypatch)
    with pytest.raises(UserError, match="maps too many files"):
        AnswerStore.open(tmp_path / "source", read_only=True)
    monkeypatch.setattr(maps, "MOST", 4)
    store = AnswerStore.open(tmp_path / "source", read_only=True)
    check(store)
    assert into.adopt(store) == 10
    check(into)
    assert _content(tmp_path / "source") == before


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
    before = _content(tmp_path)
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
    assert _content(tmp_path) == before


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
    before = _content(tmp_path)
    check(AnswerStore.open(tmp_path, read_only=True), requests=3)
    assert _content(tmp_path) == before


def _content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


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
