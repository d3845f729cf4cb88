import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ktan.answers import AnswerManifest, AnswerStore
from ktan.digests import sample_digests
from ktan.errors import UserError
from ktan.teacher import AnswerTap

PROBABILITIES = AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.13, temperature=3.0)
HINT = AnswerTap("hint", "hint", (2, 3), noise_sd=0.5)
MANIFEST = AnswerManifest("ab" * 16, (PROBABILITIES, HINT))


def samples(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8)


def answers(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "probabilities": random.normal(size=(count, 10)).astype(np.float32),
        "hint": random.normal(size=(count, 2, 3)).astype(np.float32),
    }


def test_digest_is_sha256_of_dtype_shape_and_bytes() -> None:
    images = samples(3)
    expected = hashlib.sha256(b"uint8[1, 4, 4]" + images[1].numpy().tobytes()).digest()
    assert sample_digests(images)[1].tobytes() == expected
    assert sample_digests(images).shape == (3, 32)


def test_digest_depends_on_dtype_and_shape_and_not_on_the_batch() -> None:
    images = samples(4)
    digests = sample_digests(images)
    np.testing.assert_array_equal(sample_digests(images[2:3])[0], digests[2])
    np.testing.assert_array_equal(sample_digests(images.numpy()[::-1])[0], digests[3])
    for other in (images.to(torch.int8), images.reshape(4, 16), images.float()):
        assert not (sample_digests(other) == digests).all(axis=1).any()


def test_receipts_of_some_samples_are_those_of_the_requests_that_brought_them(
    tmp_path: Path,
) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests, given = sample_digests(samples(7)), answers(7)
    asked = {"both": (slice(0, 4), None), "one": (slice(4, 7), ["hint"])}
    for name, (part, taps) in asked.items():
        store.begin(name, digests[part], taps)
        values = {tap: v[part] for tap, v in given.items() if taps is None or tap in taps}
        store.finish(name, values, {"entry": name})

    def entries(*arguments: object) -> list[str]:
        return sorted(receipt["entry"] for receipt in store.receipts(*arguments))  # type: ignore[arg-type]

    assert entries() == ["both", "one"]
    assert entries(digests[[0, 3]]) == ["both"]
    assert entries(digests[5:6], ["hint"]) == ["one"]
    assert entries(digests[3:5], ["hint"]) == ["both", "one"]
    assert entries(digests[:0]) == []


def test_answers_come_back_bit_for_bit_in_the_order_asked(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests, given = sample_digests(samples(7)), answers(7)
    for name, part in {"first": slice(0, 4), "second": slice(4, 7)}.items():
        store.begin(name, digests[part])
        store.finish(name, {tap: v[part] for tap, v in given.items()}, {"entry": name})
    order = [6, 0, 3, 3, 5]
    for opened in (store, AnswerStore.open(tmp_path), AnswerStore.open(tmp_path, MANIFEST)):
        found = opened.answers(digests[order])
        assert set(found) == {"probabilities", "hint"}
        for tap in found:
            np.testing.assert_array_equal(found[tap].numpy(), given[tap][order])
        assert sorted(receipt["entry"] for receipt in opened.receipts()) == ["first", "second"]
        assert len(opened) == 7
        assert not opened.missing(digests).any()


def test_missing_tells_unanswered_samples(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests = sample_digests(samples(5))
    store.begin("a", digests[1:3])
    assert store.missing(digests).all()
    store.finish("a", answers(2), {})
    assert store.missing(digests).tolist() == [True, False, False, True, True]
    with pytest.raises(UserError, match="3 of 5 samples have no answer"):
        store.answers(digests)


def test_first_answer_to_a_sample_stays(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests = sample_digests(samples(1))
    for number, name in enumerate(["a", "b"]):
        store.begin(name, digests)
        store.finish(name, answers(1, seed=number), {})
    for opened in (store, AnswerStore.open(tmp_path)):
        found = opened.answers(digests)["hint"].numpy()
        np.testing.assert_array_equal(found, answers(1, seed=0)["hint"])


def test_a_begun_request_survives_and_is_resumed_under_its_id(tmp_path: Path) -> None:
    digests = sample_digests(samples(3))
    AnswerStore.open(tmp_path, MANIFEST).begin("req-1", digests)
    store = AnswerStore.open(tmp_path, MANIFEST)
    (pending,) = store.pending()
    assert pending.request_id == "req-1"
    np.testing.assert_array_equal(pending.digests, digests)
    store.finish("req-1", answers(3), {})
    assert store.pending() == []
    assert AnswerStore.open(tmp_path).pending() == []


def test_a_refused_request_is_forgotten(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    store.begin("req", sample_digests(samples(2)))
    store.abandon("req")
    assert AnswerStore.open(tmp_path).pending() == []


def test_crash_between_answers_and_end_of_request_leaves_no_pending(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests = sample_digests(samples(2))
    store.begin("req", digests)
    request = (tmp_path / "requests" / "req.json").read_bytes()
    store.finish("req", answers(2), {})
    (tmp_path / "requests" / "req.json").write_bytes(request)
    store = AnswerStore.open(tmp_path)
    assert store.pending() == []
    assert not store.missing(digests).any()


def test_killed_while_finishing_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """A real process dies by SIGKILL after the chunk's bytes, before its name."""
    program = """
import os, signal, sys
from pathlib import Path
import test_answers as t
from ktan.answers import AnswerStore
from ktan.digests import sample_digests
store = AnswerStore.open(Path(sys.argv[1]), t.MANIFEST)
store.begin("req", sample_digests(t.samples(2)))
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.finish("req", t.answers(2), {})
"""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"}
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, check=False
    )
    assert run.returncode == -9
    store = AnswerStore.open(tmp_path)
    assert [pending.request_id for pending in store.pending()] == ["req"]
    assert store.missing(sample_digests(samples(2))).all()
    store.finish("req", answers(2), {})
    assert not AnswerStore.open(tmp_path).missing(sample_digests(samples(2))).any()


def test_another_teacher_or_other_settings_are_refused(tmp_path: Path) -> None:
    AnswerStore.open(tmp_path, MANIFEST)
    other = AnswerManifest("cd" * 16, MANIFEST.taps)
    with pytest.raises(UserError, match="cdcd"):
        AnswerStore.open(tmp_path, other)
    quieter = AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.1, temperature=3.0)
    with pytest.raises(UserError, match=r"release settings \(taps probabilities\)"):
        AnswerStore.open(tmp_path, AnswerManifest("ab" * 16, (quieter, HINT)))
    with pytest.raises(UserError, match="holds no answers"):
        AnswerStore.open(tmp_path / "elsewhere")


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    AnswerStore.open(tmp_path, MANIFEST)
    values = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        AnswerStore.open(tmp_path)


def test_every_flipped_byte_of_a_chunk_is_noticed(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    store.begin("req", sample_digests(samples(2)))
    store.finish("req", answers(2), {"entry": 7})
    chunk = tmp_path / "chunks" / "req.safetensors"
    sound = chunk.read_bytes()
    # Spaces that pad the header carry nothing, every other byte does.
    for position in range(8, len(sound)):
        if sound[position : position + 1] == b" ":
            continue
        damaged = bytearray(sound)
        damaged[position] ^= 1
        chunk.write_bytes(bytes(damaged))
        with pytest.raises(match=r"req\.safetensors"):
            AnswerStore.open(tmp_path)
    chunk.write_bytes(sound[:-5])
    with pytest.raises(UserError, match="damaged"):
        AnswerStore.open(tmp_path)


def test_wrong_answers_are_refused_and_write_nothing(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests = sample_digests(samples(2))
    store.begin("req", digests)
    good = answers(2)
    wrong = [
        {"hint": good["hint"]},
        {**good, "logits": good["probabilities"]},
        {**good, "hint": good["hint"].astype(np.float64)},
        {**good, "hint": good["hint"][:1]},
    ]
    for case in wrong:
        with pytest.raises(ValueError, match="expected"):
            store.finish("req", case, {})
    assert store.missing(digests).all()
    assert len(store.pending()) == 1
    with pytest.raises(ValueError, match="not begun"):
        store.finish("other", good, {})


def test_request_ids_are_used_once_and_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests = sample_digests(samples(1))
    store.begin("req", digests)
    with pytest.raises(ValueError, match="used before"):
        store.begin("req", digests)
    store.finish("req", answers(1), {})
    with pytest.raises(ValueError, match="used before"):
        store.begin("req", digests)
    for name in ("../out", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="cannot name a file"):
            store.begin(name, digests)


def test_each_tap_of_a_sample_is_asked_once_in_whatever_order(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    digests, given = sample_digests(samples(4)), answers(4)
    store.begin("hints", digests[:3], ["hint"])
    store.finish("hints", {"hint": given["hint"][:3]}, {})
    store.begin("labels", digests[2:], ["probabilities"])
    store.finish("labels", {"probabilities": given["probabilities"][2:]}, {})
    for opened in (store, AnswerStore.open(tmp_path, MANIFEST)):
        assert len(opened) == 4
        assert opened.missing(digests, ["hint"]).tolist() == [False, False, False, True]
        assert opened.missing(digests, ["probabilities"]).tolist() == [True, True, False, False]
        assert opened.missing(digests).tolist() == [True, True, False, True]
        found = opened.answers(digests[:3], ["hint"])
        assert set(found) == {"hint"}
        np.testing.assert_array_equal(found["hint"].numpy(), given["hint"][:3])
        both = opened.answers(digests[2:3])
        np.testing.assert_array_equal(both["probabilities"].numpy(), given["probabilities"][2:3])
        np.testing.assert_array_equal(both["hint"].numpy(), given["hint"][2:3])
        with pytest.raises(UserError, match="1 of 4"):
            opened.answers(digests, ["hint"])
    # A tap that is here already stays as it was.
    store.begin("again", digests, ["hint", "probabilities"])
    store.finish("again", {name: value + 1 for name, value in given.items()}, {})
    assert not store.missing(digests).any()
    np.testing.assert_array_equal(store.answers(digests)["hint"][:3].numpy(), given["hint"][:3])


def test_a_pending_request_remembers_its_taps(tmp_path: Path) -> None:
    store, digests = AnswerStore.open(tmp_path, MANIFEST), sample_digests(samples(2))
    store.begin("one", digests, ["hint"])
    store.begin("two", digests)
    for opened in (store, AnswerStore.open(tmp_path)):
        assert {request.request_id: request.taps for request in opened.pending()} == {
            "one": ("hint",),
            "two": ("probabilities", "hint"),
        }
    with pytest.raises(ValueError, match="probabilities"):
        store.finish("one", answers(2), {})
    for taps in ([], ["hint", "hint"], ["elsewhere"]):
        with pytest.raises(ValueError, match="taps"):
            store.begin("three", digests, taps)


def test_a_request_begun_before_taps_could_be_chosen_is_for_all(tmp_path: Path) -> None:
    store = AnswerStore.open(tmp_path, MANIFEST)
    rows = [row.tobytes().hex() for row in sample_digests(samples(2))]
    text = json.dumps({"request_id": "old", "digests": rows})
    (tmp_path / "requests" / "old.json").write_text(text)
    assert store.pending()[0].taps == ("probabilities", "hint")
    store.finish("old", answers(2), {})
    assert not store.missing(sample_digests(samples(2))).any()
