"""The witness's file: two slots in turns, never back, whole after a crash, shared by replicas."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from privacy.errors import LedgerFault, LedgerMismatch
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.rollback import Chain, compare
from privacy.ledger.witness import Witness, read_heads
from privacy.receipts import SignedHead, sign, verify
from tests.privacy.ledger.gathering import Gathering

SLOT = 4096
ONLY_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("place", ["postgresql"], indirect=True)


@pytest.fixture
def grown(place, plan, asker):
    """A closed ledger of four entries; the file as it was after each."""
    contents = []
    with place.create(plan) as ledger:
        contents.append(place.witness.read_bytes())
        for number in (1, 2, 3):
            asker.settle(ledger, f"r{number}", f"s{number}")
            contents.append(place.witness.read_bytes())
    return contents


@ONLY_SQLITE
def test_the_slots_are_written_in_turns(grown) -> None:
    assert {len(content) for content in grown} == {2 * SLOT}
    for number, (before, after) in enumerate(pairwise(grown)):
        changed = [at for at in (0, SLOT) if before[at : at + SLOT] != after[at : at + SLOT]]
        assert changed == [0 if number % 2 else SLOT]
    assert [head.entry for head in read_heads(grown[3])] == [3, 2]


@ONLY_SQLITE
@pytest.mark.parametrize("length", [0, 1, 100, 300])
def test_a_slot_that_a_crash_cut_off_leaves_the_other_one(place, grown, length: int) -> None:
    """The commit is durable by then; what the witness has not seen is the last group."""
    newest = grown[3][SLOT:]
    place.witness.write_bytes(grown[2][:SLOT] + newest[:length] + grown[2][SLOT + length :])
    with place.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.head().entry == 3
    assert read_heads(place.witness.read_bytes())[0].entry == 3


@ONLY_SQLITE
def test_a_mixed_slot_that_reads_well_does_not_count(place, grown) -> None:
    """Entry 3's number on entry 1's hash, say: the signature tells."""
    two, one = read_heads(grown[2])
    mixed = replace(one, entry=3).to_json_bytes().ljust(SLOT)
    place.witness.write_bytes(grown[2][:SLOT] + mixed)
    with place.open() as ledger:
        assert two.entry == 2
        assert ledger.rolled_back is None


def damage(content: bytes, slot: int, how: str) -> bytes:
    """The file with one byte of this slot changed, or without what the slot held."""
    kept = content[slot * SLOT : (slot + 1) * SLOT]
    lost = {
        "a byte": kept.replace(b'"entry":', b'"entry";', 1),
        "a digit of the hash": kept.replace(b'"entry_hash":"', b'"entry_hash":"0', 1)[:SLOT],
        "a block of zeros": bytes(SLOT),
        "a block of spaces": b" " * SLOT,
    }[how]
    return content[: slot * SLOT] + lost + content[(slot + 1) * SLOT :]


@pytest.mark.parametrize("how", ["a byte", "a digit of the hash", "a block of zeros"])
@pytest.mark.parametrize("newest", [0, 1])
def test_a_backup_of_the_group_before_is_none_because_the_newest_head_is_damaged(
    place, plan, asker, newest: int, how: str
) -> None:
    with place.create(plan) as ledger:
        for number in range(1, 2 + newest):
            asker.settle(ledger, f"r{number}", f"s{number}")
    backup = place.copy("backup")
    with place.open() as ledger:
        receipt = asker.settle(ledger, "last", "s").receipt
    content = place.witness.read_bytes()
    assert read_heads(content[newest * SLOT :][:SLOT])[0].entry == receipt.entry
    place.witness.write_bytes(damage(content, newest, how))
    with place.open() as ledger:
        # The ledger itself is ahead of what is left, as after a crash.
        assert ledger.rolled_back is None
    place.witness.write_bytes(damage(content, newest, how))
    place.restore(backup)
    with place.open() as ledger:
        assert "is damaged" in ledger.rolled_back
    with place.open(read_only=True) as ledger:
        assert "is damaged" in ledger.rolled_back
    with place.open(trusted_head=receipt) as ledger:
        assert "restored from an older copy" in ledger.rolled_back


@ONLY_SQLITE
def test_a_first_slot_is_never_empty(place, grown) -> None:
    """Entry 2 was in it; what is left is entry 3, and the ledger ends there."""
    place.witness.write_bytes(damage(grown[3], 0, "a block of spaces"))
    with place.open() as ledger:
        assert "is damaged" in ledger.rolled_back


@ONLY_SQLITE
@pytest.mark.parametrize("slot", [0, 1])
def test_a_trusted_head_mends_a_damaged_slot(place, grown, asker, slot: int) -> None:
    head = read_heads(grown[3])[0]
    place.witness.write_bytes(damage(grown[3], slot, "a byte"))
    with place.open() as ledger:
        # Where entry 3 is damaged the ledger is ahead of the slot that is left.
        assert (ledger.rolled_back is None) == (slot == 1)
    with place.open(trusted_head=head) as ledger:
        assert ledger.rolled_back is None
    assert read_heads(place.witness.read_bytes())[0] == head
    with place.open() as ledger:
        assert ledger.rolled_back is None
        asker.settle(ledger, "r4", "s4")
    assert read_heads(place.witness.read_bytes())[0].entry == 4


@ONLY_SQLITE
def test_the_file_of_an_earlier_version_is_read_and_goes_on(place, grown, asker) -> None:
    head = read_heads(grown[3])[0]
    place.witness.write_bytes(head.to_json_bytes())
    with place.open() as ledger:
        assert ledger.rolled_back is None
        asker.settle(ledger, "r4", "s4")
    assert [kept.entry for kept in read_heads(place.witness.read_bytes())] == [4, 3]
    with place.open() as ledger:
        assert ledger.rolled_back is None


@ONLY_SQLITE
def test_it_never_goes_back_and_never_to_another_branch(place, grown, ledger_key) -> None:
    heads = [read_heads(content)[0] for content in grown]
    witness = Witness(
        place.witness,
        lambda signed: verify(signed, ledger_key.public),
        lambda number: heads[number].entry_hash if number <= 3 else None,
    )
    witness.advance(heads[1])
    witness.advance(heads[3])
    assert place.witness.read_bytes() == grown[3]
    twin = sign(replace(heads[3], entry_hash=bytes(32)), ledger_key.signing)
    with pytest.raises(LedgerMismatch, match="two copies"):
        witness.advance(twin)
    assert place.witness.read_bytes() == grown[3]


@ONLY_SQLITE
@pytest.mark.parametrize("number", [2, 4])
def test_a_ledger_that_lacks_what_it_saw_cannot_advance_it(
    place, grown, ledger_key, number: int
) -> None:
    """The file holds entry 3 of one copy; the other one has not got so far, or has another 3."""
    heads = [read_heads(content)[0] for content in grown]
    other = {3: bytes(32)} if number == 4 else {}
    witness = Witness(place.witness, lambda signed: verify(signed, ledger_key.public), other.get)
    head = sign(replace(heads[3], entry=number, entry_hash=bytes(32)), ledger_key.signing)
    with pytest.raises(LedgerMismatch, match=r"cop(y|ies)"):
        witness.advance(head)
    assert place.witness.read_bytes() == grown[3]


@pytest.fixture
def ledger_key(grown, place):
    return LedgerKeys.read(place.folder)


@ONLY_SQLITE
def test_many_replicas_may_advance_it_at_once(place, grown, ledger_key) -> None:
    ledger_id = read_heads(grown[0])[0].ledger_id
    heads = [
        sign(SignedHead(ledger_id, n, n.to_bytes(32, "big"), n), ledger_key.signing)
        for n in range(4, 124)
    ]
    seen: list[int] = []
    done = threading.Event()

    chain = {head.entry: head.entry_hash for head in [*heads, read_heads(grown[3])[0]]}

    def replica(mine: list[SignedHead]) -> None:
        witness = Witness(
            place.witness, lambda signed: verify(signed, ledger_key.public), chain.get
        )
        for head in mine:
            witness.advance(head)

    def watch() -> None:
        while not done.is_set():
            seen.append(read_heads(place.witness.read_bytes())[0].entry)

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch)
        for replicas in [pool.submit(replica, heads[start::4]) for start in range(4)]:
            replicas.result()
        done.set()
        watching.result()
    assert seen == sorted(seen)
    assert read_heads(place.witness.read_bytes())[0].entry == 123


@ONLY_SQLITE
def test_a_witness_that_is_gone_stops_the_ledger(place, grown, asker) -> None:
    with place.open() as ledger:
        place.witness.unlink()
        with pytest.raises(LedgerFault, match="head"):
            asker.settle(ledger, "r4", "s4")
    assert not place.witness.exists()


# What a crash may leave beyond it


def chain(last: int, *groups: tuple[int, int]) -> Chain:
    return Chain("ab" * 16, last, groups, lambda number: number.to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("known", "groups", "believed"),
    [
        (9, [(5, 9)], True),
        (4, [(5, 9)], True),
        (7, [(5, 9)], True),
        (3, [(5, 9)], False),
        (3, [], False),
        (9, [], True),
        # Three replicas: the witness saw none of their last groups, one, all.
        (3, [(6, 6), (4, 5), (7, 9)], True),
        (5, [(6, 6), (4, 5), (7, 9)], True),
        (2, [(6, 6), (4, 5), (7, 9)], False),
        # Between two last groups lies one that somebody wrote before its last.
        (3, [(4, 5), (8, 9)], False),
        (6, [(4, 5), (8, 9)], False),
        (7, [(4, 5), (8, 9)], True),
        # A group that ends before the chain does.
        (4, [(5, 8)], False),
    ],
)
def test_only_last_groups_may_lie_beyond_the_witness(known, groups, believed) -> None:
    head = SignedHead("ab" * 16, known, known.to_bytes(32, "big"), 0)
    reason = compare(head, chain(9, *groups), "the witness")
    assert (reason is None) == believed
    if reason is not None:
        assert not reason.final
        assert "too old" in reason.text


def test_a_crash_after_a_group_is_no_rollback_and_one_group_earlier_is(
    place, plan, asker, monkeypatch
) -> None:
    with place.create(plan) as ledger:
        contents = [place.witness.read_bytes()]
        ask = partial(partial, asker.settle, ledger)
        Gathering(ledger, monkeypatch).run(
            ask("r0", "s0"),
            *(ask(f"r{n}", f"s{n}") for n in range(1, 6)),
            meanwhile=lambda: contents.append(place.witness.read_bytes()),
        )
        head = ledger.head()
    monkeypatch.undo()
    first_group = sorted(read_heads(place.witness.read_bytes()), key=lambda kept: kept.entry)[0]
    assert (first_group.entry, head.entry) == (1, 6)
    place.witness.write_bytes(first_group.to_json_bytes())
    with place.open() as ledger:
        assert ledger.rolled_back is None
        assert ledger.head() == head
    place.witness.write_bytes(contents[0])
    with place.open() as ledger:
        assert "too old" in ledger.rolled_back


@ONLY_POSTGRESQL
def test_a_replica_witnesses_what_another_one_committed_and_died(
    place, plan, asker, monkeypatch
) -> None:
    with place.create(plan) as one, place.open() as two:
        with monkeypatch.context() as patch:
            patch.setattr(Witness, "advance", lambda *_: (_ for _ in ()).throw(OSError("died")))
            with pytest.raises(LedgerFault, match="died"):
                asker.settle(one, "r1", "a")
        assert read_heads(place.witness.read_bytes())[0].entry == 0
        found = two.find("alice", "r1", asker.content)
        assert found.payloads == [b"noisy a"]
        kept = read_heads(place.witness.read_bytes())[0]
        assert (kept.entry, kept.entry_hash) == (1, found.receipt.entry_hash)
        assert two.head() == kept
        assert asker.settle(two, "r1", "a", payload=b"drawn anew").payloads == [b"noisy a"]
        assert asker.settle(two, "r2", "b").receipt.entry == 2
