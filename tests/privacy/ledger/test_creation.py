"""A data set gets one ledger, once, wholly; nothing else ever makes one."""

import os
import stat
from pathlib import Path

import pytest

from privacy.budget import BudgetPlan
from privacy.errors import InvalidPlan, LedgerExists, LedgerMismatch, LedgerMissing
from privacy.ledger import (
    Ledger,
    bind,
    binding_path,
    creation,
    read_binding,
    require_bound,
    require_unbound,
)
from privacy.ledger.witness import read_heads
from privacy.receipts import read_public_key, verify


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    return folder


def test_a_new_ledger_has_its_files_and_only_its_owner_reads_the_secret_ones(
    ledger, place, plan
) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(place.folder) == 0o700
    assert mode(place.folder / "signing-key.pem") == 0o600
    assert mode(place.folder / "secret.key") == 0o600
    if place.database_url is None:
        assert (place.folder / "ledger.sqlite").is_file()
    else:
        assert mode(place.folder / "database-url") == 0o600
        assert not (place.folder / "ledger.sqlite").exists()
    assert read_public_key(place.folder / "public-key.pem") == ledger.public_key
    assert ledger.plan == plan
    assert ledger.dataset_id == "glyphs"
    head = read_heads(place.witness.read_bytes())[0]
    verify(head, ledger.public_key)
    assert head == ledger.head()
    assert [path.name for path in place.folder.parent.iterdir()] == ["ledger"]


def test_secrets_are_readable_by_the_owner_alone_whatever_the_umask(place, plan) -> None:
    before = os.umask(0)
    try:
        place.create(plan).close()
    finally:
        os.umask(before)
    for name in ("signing-key.pem", "secret.key", *(["database-url"] if place.schemas else [])):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600


def test_a_ledger_is_never_overwritten(ledger, place, plan) -> None:
    with pytest.raises(LedgerExists, match="never overwritten"):
        Ledger.create(place.folder, dataset_id="x", plan=plan, witness=place.witness)
    (place.folder.parent / "used").mkdir()
    (place.folder.parent / "used" / "something").write_text("of somebody")
    with pytest.raises(LedgerExists):
        Ledger.create(
            place.folder.parent / "used",
            dataset_id="x",
            plan=plan,
            witness=place.folder.parent / "w",
        )


def test_an_empty_folder_may_become_a_ledger(place, plan) -> None:
    place.folder.mkdir(parents=True)
    with place.create(plan) as ledger:
        assert ledger.head().entry == 0


def test_another_ledgers_witness_is_never_taken_over(ledger, place, plan, tmp_path) -> None:
    before = place.witness.read_bytes()
    with pytest.raises(LedgerExists, match="already the witness"):
        Ledger.create(tmp_path / "second", dataset_id="x", plan=plan, witness=place.witness)
    assert place.witness.read_bytes() == before
    assert not (tmp_path / "second").exists()


def test_opening_never_creates(tmp_path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(LedgerMissing, match="there is no ledger"):
            Ledger.open(folder, witness=tmp_path / "elsewhere" / "w")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_does_not_keep_its_promise_opens_nothing(place, plan) -> None:
    too_much = BudgetPlan(4.0, 1e-5, "record", plan.answer_units * 2, 1000)
    with pytest.raises(InvalidPlan):
        place.create(too_much)
    with pytest.raises(InvalidPlan, match="cap"):
        place.create(plan, default_cap=-1)
    assert not place.folder.exists()
    assert not place.witness.exists()


def test_the_ledgers_id_is_written_beside_the_data(place, plan, data) -> None:
    with place.create(plan, data=data) as ledger:
        found = read_binding(data)
        assert binding_path(data) == data / "ktan.ledger.json"
        assert (found.ledger_id, found.dataset_id) == (ledger.ledger_id, "glyphs")
        assert found.public_key == ledger.public_key
        require_bound(data, ledger.ledger_id)
        with pytest.raises(LedgerMismatch, match="belongs to ledger"):
            require_bound(data, "ff" * 16)


def test_a_second_ledger_for_the_same_data_is_refused(place, plan, data, tmp_path) -> None:
    place.create(plan, data=data).close()
    link = tmp_path / "another-name"
    link.symlink_to(data)
    for same in (data, link):
        with pytest.raises(LedgerExists, match="second budget for the same records"):
            Ledger.create(
                tmp_path / "second",
                dataset_id="glyphs",
                plan=plan,
                witness=tmp_path / "second-head",
                data=same,
            )
        with pytest.raises(LedgerExists):
            require_unbound(same)
    assert not (tmp_path / "second").exists()
    assert not (tmp_path / "second-head").exists()


def test_a_part_of_bound_data_or_a_folder_around_them_is_bound_too(place, plan, data) -> None:
    (data / "train").mkdir()
    place.create(plan, data=data).close()
    for overlapping in (data / "train", data.parent):
        with pytest.raises(LedgerExists, match="shares records"):
            require_unbound(overlapping)
    moved = data.rename(data.with_name("moved"))
    with pytest.raises(LedgerExists, match="second budget for the same records"):
        require_unbound(moved)


def test_of_two_ledgers_made_at_once_for_the_same_data_one_is_refused(
    place, plan, data, tmp_path, monkeypatch
) -> None:
    """The other one binds the data after this one has looked and before it binds them itself."""
    look = creation.require_unbound

    def late(path: Path) -> None:
        look(path)
        bind(path, "ab" * 16, "glyphs", bytes(32))

    monkeypatch.setattr(creation, "require_unbound", late)
    with pytest.raises(LedgerExists, match="ab" * 16):
        place.create(plan, data=data)
    assert not place.folder.exists()
    assert not place.witness.exists()
    assert read_binding(data).ledger_id == "ab" * 16


def test_a_failure_at_the_last_step_leaves_nothing(place, plan, data, monkeypatch) -> None:
    def fails(old: object, new: object) -> None:
        raise OSError("the last step failed")

    with monkeypatch.context() as patch:
        patch.setattr(creation.os, "rename", fails)
        with pytest.raises(OSError, match="last step"):
            place.create(plan, data=data)
    assert list(place.folder.parent.iterdir()) == []
    assert not place.witness.exists()
    assert read_binding(data) is None
    place.create(plan, data=data).close()


def test_binding_again_to_the_same_ledger_changes_nothing(data) -> None:
    for _ in range(2):
        bind(data, "ab" * 16, "glyphs", bytes(32))
    with pytest.raises(LedgerExists):
        bind(data, "cd" * 16, "glyphs", bytes(32))


def test_data_without_or_with_a_damaged_binding_are_not_served(data) -> None:
    with pytest.raises(LedgerMissing, match="bound to no ledger"):
        require_bound(data, "ab" * 16)
    binding_path(data).write_text("{")
    for use in (
        lambda: require_bound(data, "ab" * 16),
        lambda: require_unbound(data),
        lambda: bind(data, "ab" * 16, "glyphs", bytes(32)),
    ):
        with pytest.raises(LedgerMismatch, match="cannot be read"):
            use()


def test_a_file_of_data_is_bound_like_a_folder(tmp_path) -> None:
    (tmp_path / "table.npz").write_bytes(b"")
    bind(tmp_path / "table.npz", "ab" * 16, "arrays", bytes(32))
    assert (tmp_path / "table.npz.ledger.json").is_file()


def test_data_that_are_still_to_be_made_are_bound_where_they_will_be(tmp_path) -> None:
    """As a data set that is generated, its folder with its first file."""
    data = tmp_path / "data" / "glyphs"
    bind(data, "an id", "glyphs", bytes(32))
    require_bound(data, "an id")
