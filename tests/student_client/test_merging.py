"""Stores that several processes filled become one: nothing is lost, and nothing mixed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ktan.answers import AnswerStore
from ktan.digests import sample_digests
from ktan.errors import UserError
from privacy.receipts import Receipt
from student_client.commands_answers import check
from student_client.fetching import Pool, fetch
from student_client.ledger_history import Contradiction, History
from student_client.merging import merge_stores
from student_client.pin import Pin, open_store
from student_client.verification import Verifier


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (30, 1, 28, 28), generator=generator).to(torch.uint8)


def ask(stage, folder, samples, rows):
    with stage.teacher() as teacher:
        description = teacher.describe()
        store, pool = open_store(folder, description), Pool(samples)
        verifier = Verifier.of(description, store)
        fetch(teacher, description, store, verifier, pool, pool.digests[rows], batch=4)
    return store


def test_all_answers_and_receipts_come_and_again_nothing(stage, samples, tmp_path):
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    ask(stage, one, samples, range(12))
    ask(stage, two, samples, range(8, 30)).fold()
    begun = AnswerStore.open(two)
    begun.begin("under-way", sample_digests(samples[:3]))
    merged = merge_stores(both, [one, two])
    assert (merged.samples, merged.requests, merged.new, merged.begun) == (30, 9, 9, 1)
    store, digests = AnswerStore.open(both), sample_digests(samples)
    apart = {name: AnswerStore.open(tmp_path / name) for name in ("one", "two")}
    for tap, values in store.answers(digests).items():
        for name, rows in (("one", range(12)), ("two", range(12, 30))):
            expected = apart[name].answers(digests[rows], [tap])[tap]
            np.testing.assert_array_equal(values[list(rows)].numpy(), expected.numpy())
    entries = sorted(receipt["entry"] for receipt in store.receipts())
    assert entries == sorted(
        receipt["entry"] for folder in (one, two) for receipt in AnswerStore.open(folder).receipts()
    )
    assert Pin.read(both) == Pin.read(one)
    assert merge_stores(both, [one, two]).new == 0
    # The run goes on in the merged store, and finishes what was under way.
    spent = stage.service.spent
    ask(stage, both, samples, range(30))
    assert stage.service.spent == spent


def test_merging_and_checking_leave_a_source_as_it_is(stage, samples, tmp_path, capsys):
    one = tmp_path / "one"
    ask(stage, one, samples, range(8))
    (one / "shards").rmdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in one.rglob("*"))
    assert merge_stores(tmp_path / "both", [one]).new == 2
    check(one)
    assert "2 answered, 0 under way" in capsys.readouterr().out
    assert sorted((path, path.stat().st_mtime_ns) for path in one.rglob("*")) == before


def test_a_store_that_grew_is_merged_again(stage, samples, tmp_path):
    one, both = tmp_path / "one", tmp_path / "both"
    ask(stage, one, samples, range(8))
    assert merge_stores(both, [one]).new == 2
    ask(stage, one, samples, range(16)).fold()
    merged = merge_stores(both, [one])
    assert (merged.new, merged.samples, merged.requests) == (2, 16, 4)


def test_stores_of_other_services_are_kept_apart(stage, samples, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    ask(stage, one, samples, range(4))
    ask(stage, two, samples, range(4, 8))
    with pytest.raises(UserError, match=r"empty holds no answers of a service"):
        merge_stores(tmp_path / "both", [one, tmp_path / "empty"])
    with pytest.raises(UserError, match="at least one"):
        merge_stores(tmp_path / "both", [])
    pin = json.loads((two / "service.json").read_text())
    for change in ({"charge": pin["charge"] + 1}, {"ledger_id": "b" * 32}):
        (two / "service.json").write_text(json.dumps({**pin, **change}))
        with pytest.raises(UserError, match="of different services"):
            merge_stores(tmp_path / "both", [one, two])
    (two / "service.json").write_text(json.dumps(pin))
    manifest = json.loads((two / "manifest.json").read_text())
    manifest["teacher_version"] = "e" * 32
    ask_other = tmp_path / "other"
    ask_other.mkdir()
    (ask_other / "manifest.json").write_text(json.dumps(manifest))
    (ask_other / "service.json").write_text(json.dumps(pin))
    with pytest.raises(UserError, match="eeee"):
        merge_stores(tmp_path / "both", [one, ask_other])
    assert not (tmp_path / "both").exists()


def test_stores_of_a_ledger_that_was_forked_are_not_merged(stage, samples, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    ask(stage, one, samples, range(8))
    stage.service.entry = 0
    ask(stage, two, samples, range(8, 16))
    with pytest.raises(UserError, match=r"receipts of .*two contradict"):
        merge_stores(tmp_path / "both", [one, two])
    assert not (tmp_path / "both").exists()


def test_a_history_in_any_order_is_compared_with_its_neighbours(stage, samples, tmp_path):
    store = ask(stage, tmp_path / "one", samples, range(20))
    known = sorted(map(Receipt.from_json, store.receipts()), key=lambda receipt: receipt.entry)
    for order in (known, known[::-1], known[2:] + known[:2]):
        history = History()
        for receipt in order:
            history.add(receipt)
    history = History(known[:2] + known[3:])
    for wrong in (
        replace(known[2], spent=known[3].spent + 1),
        replace(known[2], spent=known[1].spent - 1),
        replace(known[2], entry=known[3].entry),
    ):
        with pytest.raises(Contradiction):
            history.add(wrong)
    history.add(known[2])
