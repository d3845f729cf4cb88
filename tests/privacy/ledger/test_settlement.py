"""What a request becomes: charged once, answered the same for ever, refused without a trace."""

import hashlib
import hmac

import pytest

from privacy.budget import BudgetPlan
from privacy.errors import BudgetExhausted, RequestIdReused
from privacy.gaussian import epsilon
from privacy.ledger import Ledger, PendingAnswer
from privacy.receipts import verify


def test_a_new_request_is_charged_stored_and_receipted(ledger, asker, plan) -> None:
    settled = asker.settle(ledger, "r1", "a", "b")
    assert settled.payloads == [b"noisy a", b"noisy b"]
    assert (settled.charged, settled.new, settled.repeated) == (200, 2, False)
    receipt = settled.receipt
    verify(receipt, ledger.public_key)
    assert (receipt.client, receipt.request_id, receipt.entry) == ("alice", "r1", 1)
    assert (receipt.charge, receipt.draws, receipt.spent) == (200, 20, 200)
    assert receipt.budget == plan.answer_units
    assert receipt.promise == plan.promise
    entry = list(ledger.entries())[1]
    assert entry.hash() == receipt.entry_hash == ledger.head().entry_hash
    assert (entry.releases, entry.charge, entry.teacher_version) == (2, 200, "v1")


def test_the_same_request_again_returns_the_same_and_costs_nothing(ledger, asker) -> None:
    first = asker.settle(ledger, "r1", "a", "b")
    again = asker.settle(ledger, "r1", "a", "b", payload=b"drawn anew")
    assert again.payloads == first.payloads
    assert again.receipt == first.receipt
    assert again.repeated
    assert ledger.budget().spent == 200
    assert ledger.head().entry == 1
    assert ledger.find("alice", "r1", asker.content) == again


def test_a_request_that_was_never_settled_is_not_found(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    assert ledger.find("alice", "r2", asker.content) is None
    assert ledger.find("bob", "r1", asker.content) is None


def test_a_request_id_with_other_content_is_refused(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    with pytest.raises(RequestIdReused, match="r1"):
        ledger.find("alice", "r1", b"other")
    with pytest.raises(RequestIdReused, match="r1"):
        ledger.settle("alice", "r1", b"other", [asker.pending(ledger, "z")], "v1")
    assert ledger.budget().spent == 100
    assert ledger.stored([asker.pending(ledger, "z").key]) == {}


def test_two_clients_may_use_the_same_request_id(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    other = asker.settle(ledger, "r1", "b", client="bob")
    assert other.charged == 100


def test_a_stored_answer_wins_over_a_new_draw_and_is_free_for_everybody(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    settled = asker.settle(ledger, "r2", "a", "b", client="bob", payload=b"second draw")
    assert settled.payloads == [b"noisy a", b"second draw"]
    assert (settled.charged, settled.new) == (100, 1)
    assert ledger.budget("bob").client_spent == 100


def test_duplicates_within_a_request_share_the_first_draw(ledger, asker) -> None:
    key = asker.pending(ledger, "a").key
    pending = [PendingAnswer(key, 100, 10, b"first"), PendingAnswer(key, 100, 10, b"second")]
    settled = ledger.settle("alice", "r1", asker.content, pending, "v1")
    assert settled.payloads == [b"first", b"first"]
    assert (settled.charged, settled.new) == (100, 1)
    assert ledger.stored([key, key]) == {key: b"first"}


def test_every_accepted_request_makes_one_entry_even_a_free_one(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    free = asker.settle(ledger, "r2", "a")
    assert (free.charged, free.new, free.receipt.entry) == (0, 0, 2)
    assert free.receipt.charge == 0
    assert [entry.kind for entry in ledger.entries()] == ["open", "answers", "answers"]


def test_answers_of_a_private_training_are_free_and_stored_all_the_same(
    place, training_plan, asker
) -> None:
    with place.create(BudgetPlan(2.0, 1e-5, "record", 0, 0, training_plan.training)) as ledger:
        settled = asker.settle(ledger, "r1", "a", charge=0, draws=0)
        again = asker.settle(ledger, "r2", "a", charge=0, draws=0, payload=b"other")
        assert settled.payloads == again.payloads == [b"noisy a"]
        assert (settled.charged, settled.new, again.new) == (0, 1, 0)


def test_the_budget_is_spent_to_the_last_unit_and_never_beyond(small_ledger, asker) -> None:
    with small_ledger(units=250) as ledger:
        asker.settle(ledger, "r1", "a", "b")
        with pytest.raises(BudgetExhausted) as refusal:
            asker.settle(ledger, "r2", "c")
        assert (refusal.value.asked, refusal.value.left) == (100, 50)
        assert "answering budget" in refusal.value.scope
        asker.settle(ledger, "r3", "d", charge=50)
        assert ledger.budget().left == 0
        with pytest.raises(BudgetExhausted):
            asker.settle(ledger, "r4", "e", charge=1)
        assert asker.settle(ledger, "r5", "a", "d").charged == 0


def test_a_refusal_leaves_nothing_behind(small_ledger, asker) -> None:
    with small_ledger(units=250) as ledger:
        asker.settle(ledger, "r1", "a")
        before = (ledger.head(), ledger.budget("alice"), list(ledger.log_lines()))
        with pytest.raises(BudgetExhausted):
            asker.settle(ledger, "r2", "b", "c")
        assert (ledger.head(), ledger.budget("alice"), list(ledger.log_lines())) == before
        assert ledger.find("alice", "r2", asker.content) is None
        assert ledger.stored([asker.pending(ledger, name).key for name in "bc"]) == {}
        # The id of a refused request was not used up: a smaller one may take it.
        assert asker.settle(ledger, "r2", "b").charged == 100


def test_noise_draws_are_a_budget_of_their_own(small_ledger, asker) -> None:
    with small_ledger(units=10_000, draws=25) as ledger:
        asker.settle(ledger, "r1", "a", "b")
        with pytest.raises(BudgetExhausted, match="noise draws") as refusal:
            asker.settle(ledger, "r2", "c")
        assert (refusal.value.asked, refusal.value.left) == (10, 5)
        assert ledger.budget().draws_left == 5


def test_check_foretells_what_settle_decides(small_ledger, asker) -> None:
    with small_ledger(units=250, default_cap=150) as ledger:
        ledger.check("alice", charge=150, draws=10)
        with pytest.raises(BudgetExhausted, match="cap of client 'alice'"):
            ledger.check("alice", charge=151, draws=10)
        with pytest.raises(BudgetExhausted, match="answering budget"):
            ledger.check("alice", charge=251, draws=10)
        asker.settle(ledger, "r1", "a")
        ledger.check("alice", charge=50, draws=10)
        with pytest.raises(BudgetExhausted) as refusal:
            ledger.check("alice", charge=51, draws=10)
        assert (refusal.value.asked, refusal.value.left) == (51, 50)
        assert ledger.head().entry == 1


def test_caps_hold_beneath_the_budget_and_are_entries_of_the_log(small_ledger, asker) -> None:
    with small_ledger(units=1000, default_cap=200) as ledger:
        asker.settle(ledger, "r1", "a", "b")
        with pytest.raises(BudgetExhausted, match="cap of client 'alice'"):
            asker.settle(ledger, "r2", "c")
        assert asker.settle(ledger, "r3", "c", client="bob").charged == 100
        ledger.set_cap("alice", 300)
        assert asker.settle(ledger, "r2", "d").charged == 100
        state = ledger.budget("alice")
        assert (state.cap, state.client_spent, state.client_left) == (300, 300, 0)
        ledger.set_cap("alice", 250)
        assert ledger.budget("alice").client_left == 0
        ledger.set_cap("alice", None)
        assert ledger.budget("alice").cap == 200
        ledger.set_cap("carol", 10_000)
        assert ledger.budget("carol").client_left == ledger.budget().left == 600
        assert [entry.kind for entry in ledger.entries()].count("cap") == 4


def test_a_cap_survives_reopening(small_ledger, place, asker) -> None:
    with small_ledger(units=1000) as ledger:
        ledger.set_cap("alice", 100)
    with place.open() as ledger, pytest.raises(BudgetExhausted, match="cap"):
        asker.settle(ledger, "r1", "a", "b")


def test_the_budget_state_speaks_epsilon_at_the_promised_delta(ledger, asker, plan) -> None:
    half = plan.answer_units // 2
    settled = asker.settle(ledger, "r1", "a", charge=half)
    state = ledger.budget("alice")
    ideal = epsilon(plan.delta, (half / 2**40) ** 0.5)
    assert ideal <= state.epsilon_spent <= ideal * 1.01
    assert settled.receipt.epsilon_spent == state.epsilon_spent
    assert state.promise.epsilon == 4.0
    assert state.left == plan.answer_units - half
    assert ledger.budget().epsilon_spent == state.epsilon_spent


def test_the_key_of_an_answer_depends_on_every_part_and_on_the_secret(
    ledger, tmp_path, plan
) -> None:
    keys = {
        ledger.sample_key(b"sample", "v1", b"settings"),
        ledger.sample_key(b"other", "v1", b"settings"),
        ledger.sample_key(b"sample", "v2", b"settings"),
        ledger.sample_key(b"sample", "v1", b"others"),
        # No shifting of bytes between the parts:
        ledger.sample_key(b"samplev", "1", b"settings"),
    }
    with Ledger.create(
        tmp_path / "second", dataset_id="x", plan=plan, witness=tmp_path / "w"
    ) as second:
        keys.add(second.sample_key(b"sample", "v1", b"settings"))
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)
    assert hashlib.sha256(b"sample").digest() not in keys


def test_the_keys_of_answers_are_what_they_always_were(ledger) -> None:
    """With other keys an opened ledger would find nothing, and charge every answer again."""
    secret = (ledger.folder / "secret.key").read_bytes()
    own = hmac.digest(secret, b"ktan.ledger.sample", "sha256")
    parts = [(sample, b"v1", settings) for sample in (b"a", b"b") for settings in (b"x", b"y")]
    assert ledger.sample_keys([b"a", b"b"], "v1", [b"x", b"y"]) == [
        hmac.digest(own, b"".join(hashlib.sha256(part).digest() for part in triple), "sha256")
        for triple in parts
    ]


def test_the_mac_of_files_does_not_depend_on_how_they_were_read(ledger) -> None:
    assert ledger.mac([b"ab", b"c"]) == ledger.mac([b"abc"]) != ledger.mac([b"abd"])
    assert ledger.mac([b"abc"]) != hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("client", "request_id"),
    [("", "r"), ("a\n", "r"), ("a", ""), ("a", "r" * 300), ("\ud800", "r")],
)
def test_names_that_no_client_may_have_are_refused_without_harm(
    ledger, asker, client, request_id
) -> None:
    with pytest.raises(ValueError, match="printable"):
        asker.settle(ledger, request_id, "a", client=client)
    assert asker.settle(ledger, "r1", "a").charged == 100


@pytest.mark.parametrize(("charge", "draws"), [(-1, 0), (0, -1), (1.5, 0), (True, 0)])
def test_an_answer_cannot_cost_less_than_nothing(charge, draws) -> None:
    with pytest.raises(ValueError, match="integer of at least 0"):
        PendingAnswer(bytes(32), charge, draws, b"")


def test_a_request_for_nothing_is_refused(ledger, asker) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ledger.settle("alice", "r1", asker.content, [], "v1")


def test_a_large_request_is_settled_whole(ledger, asker) -> None:
    names = [f"s{number}" for number in range(1300)]
    settled = asker.settle(ledger, "r1", *names)
    assert settled.new == 1300
    found = ledger.find("alice", "r1", asker.content)
    assert found.payloads == [f"noisy {name}".encode() for name in names]
