"""What a service can teach, and what one pays for: describe, methods, and train's own choice."""

import json

import pytest

from ktan.methods import METHODS
from student_client.cost import quote
from student_client.describe import quote_text
from student_client.methods_table import impossible, methods_text, served
from tests.student_client.commands import PRICE, QUERIES, result

OFFERS = (("ktan", ("probabilities", "hint"), 1000), ("soft-logits", ("probabilities",), 900))


def test_describe_lists_what_each_method_costs_and_which_lack_something(command, stage):
    stage.service.offers, stage.service.spent = OFFERS, 2_500_000
    code, out, err = command("describe", stage.address, "--plaintext")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    # 7,500,000 are left: over 900 and over 1,000.
    assert rows["soft-logits"] == ["soft-logits", "900", "8,333", "probabilities"]
    assert rows["ktan"] == ["ktan", "1,000", "7,500", "probabilities,", "hint"]
    together = " ".join(out.split())
    assert "Impossible ab: needs signs (--taps signs=PATH)" in together
    assert "at: needs attention (--taps attention=PATH)" in together
    code, out, _ = command("describe", stage.address, "--plaintext", "--json")
    assert {entry["name"]: entry for entry in json.loads(out)["methods"]}["ktan"] == {
        "name": "ktan",
        "taps": ["probabilities", "hint"],
        "charge_per_sample": 1000,
    }


def test_what_only_this_client_knows_is_priced_by_its_needs(described):
    description = described()
    offers = {offer.name: offer for offer in served(description)}
    assert (offers["ktan"].taps, offers["ktan"].charge) == (("probabilities", "hint"), 1000)
    assert (offers["soft-logits"].taps, offers["soft-logits"].charge) == (("probabilities",), 900)
    asking = {name for name, kind in METHODS.items() if kind().needs}
    assert asking == offers.keys() | impossible(description).keys()
    assert not offers.keys() & impossible(description).keys()
    free = methods_text(described(charges=(0, 0)))
    assert " any " in free


@pytest.mark.parametrize(
    "offer", [("ktan", ("probabilities", "sound"), 900), ("ktan", ("probabilities",), 899)]
)
def test_an_offer_that_the_taps_do_not_give_is_not_believed(command, stage, offer):
    stage.service.offers = (offer,)
    code, _, err = command("describe", stage.address, "--plaintext")
    assert code == 2
    assert "its taps do not give method 'ktan' at that price" in err


def test_methods_lists_papers_needs_and_options(command):
    code, out, err = command("methods")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    for name in METHODS:
        assert f"\n{name} " in f"\n{out}"
    assert "Zagoruyko & Komodakis 2017" in out
    code, out, _ = command("methods", "--json")
    found = json.loads(out)
    assert found.keys() == METHODS.keys()
    assert found["at"]["needs"] == ["attention (--taps attention=PATH)"]
    assert found["at"]["options"]["attention_weight"] == 1000.0


def test_a_student_pays_for_the_taps_of_its_method(train, stage, tmp_path):
    code, out, _ = train("--yes", "--method", "soft-logits")
    assert code == 0
    assert "probabilities: 900 charge units a sample" in out
    assert "24 new answers × at most 900 = 21,600 charge units" in out
    assert stage.service.spent == QUERIES * 900
    assert set(stage.service.asked) == {("probabilities",)}
    found = result(tmp_path / "run")["answers"]
    assert (found["samples"], found["charged"]) == (QUERIES, QUERIES)


def test_another_method_on_the_same_answers_pays_for_what_is_new(train, stage, tmp_path):
    kept = ("--answers", tmp_path / "answers")
    train("--yes", "--method", "soft-logits", *kept, out="first")
    code, out, _ = train("--yes", "--method", "ktan", *kept, out="second")
    assert code == 0
    assert "hint: 100 charge units a sample" in out
    assert "24 new answers × at most 100 = 2,400 charge units" in out
    assert stage.service.spent == QUERIES * PRICE
    assert stage.service.draws == QUERIES
    spent, calls = stage.service.spent, len(stage.service.calls)
    code, out, _ = train("--yes", "--method", "fitnet", *kept, out="third")
    assert code == 0
    assert "all 24 answers are here already" in out
    # More was spent on these samples than soft-logits alone would cost; no sample is two.
    train("--yes", "--method", "soft-logits", *kept, out="fourth")
    assert result(tmp_path / "fourth")["answers"]["charged"] == QUERIES
    assert (stage.service.spent, len(stage.service.calls)) == (spent, calls)


def test_a_quote_of_samples_that_are_here_in_part(described):
    description = described()
    budget = description.budget
    price = quote(description, budget, {("probabilities",): 2, ("hint", "probabilities"): 3})
    assert (price.samples, price.charge, price.each) == (5, 2 * 900 + 3 * 1000, 1000)
    assert price.draws == 2 * 10 + 3 * 18
    text = quote_text(price, description, 7)
    assert "5 new answers (2 are here already), some of them in part: 4,800 charge units" in (
        " ".join(text.split())
    )


def test_all_taps_are_asked_where_they_are_wanted(train, stage):
    code, _, _ = train("--yes", "--method", "soft-logits", "--all-taps")
    assert code == 0
    assert stage.service.spent == QUERIES * PRICE


def test_a_method_that_lacks_a_tap_is_refused_before_anything_is_spent(train, stage):
    for method in ("at", "ab", "fsp", "kd-svd", "soft-logits+at"):
        code, _, err = train("--yes", "--method", method, out=method)
        assert code == 2
        assert err.startswith(f"error: method {method} needs ")
        assert "the teacher answers probabilities (probabilities), hint (hint)" in err
    assert stage.service.calls == []
