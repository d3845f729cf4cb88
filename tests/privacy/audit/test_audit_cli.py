"""`privacy-audit` as a person and as a machine meet it."""

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest


def test_a_sound_ledger_says_so_with_units_and_exits_with_0(run, original, answers) -> None:
    code, out, err = run(
        "ledger", original.folder, "--receipts", answers, "--head", original.witness
    )
    assert (code, err) == (0, "")
    assert "VERIFIED" in out
    assert "NOT VERIFIED" not in out
    assert "of 2 at δ = 1e-05, replace-one" in out
    assert "600,000 of 10,000,000 units" in out
    assert "5 receipts and 1 head" in out
    alice = next(line for line in out.splitlines() if line.startswith("alice"))
    assert {"400,000", "9,400,000"} <= set(alice.split())
    assert "of 2 at δ = 1e-05, replace-one" in alice


def test_without_evidence_it_says_what_that_means(run, original) -> None:
    code, out, _ = run("ledger", original.folder)
    assert code == 0
    assert "Nothing from outside was compared" in out
    assert "known from the log itself" in out


def test_an_edited_export_fails_loudly_with_1(run, original, tmp_path) -> None:
    export = tmp_path / "log.jsonl"
    export.write_bytes(b"\n".join(original.edited(3, client="alice")))
    code, out, err = run("ledger", export)
    assert code == 1
    assert "NOT VERIFIED" in out
    assert "EDITED" in out
    assert "entry 3 was edited" in out
    assert "VERIFIED: chain" not in out
    assert "does NOT verify" in err


def test_a_truncated_export_is_told_by_receipts(run, original, answers, tmp_path) -> None:
    export = tmp_path / "log.jsonl"
    export.write_bytes(b"\n".join([*original.lines[:4], original.lines[-1]]))
    code, out, _ = run("ledger", export, "--receipts", answers, "--json")
    report = json.loads(out)
    assert (code, report["sound"]) == (1, False)
    kinds = {(item["kind"], item["entry"]) for item in report["violations"]}
    assert {("truncated", 3), ("truncated", 5), ("truncated", 6), ("truncated", 7)} <= kinds


def test_machines_get_everything(run, original, answers) -> None:
    code, out, _ = run("ledger", original.folder, "--receipts", answers, "--json")
    report = json.loads(out)
    assert (code, report["sound"], report["violations"]) == (0, True, [])
    assert (report["spent"], report["budget"], report["left"]) == (600_000, 10**7, 9_400_000)
    assert report["promise"]["adjacency"] == "replace-one"
    assert [client["client"] for client in report["clients"]] == ["alice", "bob"]
    assert (report["training_used"], report["training_reserved"]) == (1, 1)


def test_a_changed_stored_answer_is_found_on_the_host(run, original, tmp_path) -> None:
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("UPDATE answers SET payload = x'00' WHERE entry = 3")
    connection.commit()
    connection.close()
    code, out, _ = run("ledger", folder)
    assert code == 1
    assert "entry 3: the answers it stored were changed or removed" in out


def test_a_database_without_a_state_fails_loudly(run, original, tmp_path) -> None:
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("DELETE FROM state")
    connection.commit()
    connection.close()
    code, out, err = run("ledger", folder, "--json")
    assert code == 1
    assert json.loads(out)["sound"] is False
    assert "does NOT verify" in err


def test_the_known_key_is_held_against_the_log(run, original, answers, tmp_path) -> None:
    right = original.folder / "public-key.pem"
    assert run("ledger", original.folder, "--public-key", right)[0] == 0
    wrong = tmp_path / "wrong.key"
    wrong.write_text("11" * 32)
    code, out, _ = run("ledger", original.folder, "--public-key", wrong)
    assert code == 1
    assert "another ledger's log" in out
    # A student pinned a key on first use: as good as one given by hand.
    (answers / "service.json").write_text(json.dumps({"public_key": "11" * 32}))
    code, out, _ = run("ledger", original.folder, "--receipts", answers)
    assert code == 1
    assert "service.json" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("ledger", "no-such-place"),
        ("ledger",),
        ("ledger", "no-such-place", "--receipts", "nowhere"),
        ("plan",),
        ("plan", "--epsilon", "-1"),
        ("plan", "--epsilon", "4", "--delta", "2"),
        ("plan", "--epsilon", "4", "--mode", "magic"),
        ("plan", "--epsilon", "4", "--taps", "hint"),
        ("plan", "--epsilon", "4", "--share", "logits=1"),
        ("plan", "--epsilon", "4", "--mode", "dp-sgd"),
        ("plan", "--epsilon", "4", "--measured", "nowhere.npy"),
        ("nonsense",),
        ("--config", "nowhere.toml", "plan", "--epsilon", "4"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(run, arguments) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


def test_a_plan_prints_noise_agreement_and_verdict(run) -> None:
    code, out, _ = run(
        "plan",
        "--epsilon",
        4,
        "--taps",
        "probabilities",
        "--taps",
        "hint=features:8",
        "--share",
        "probabilities=0.9",
        "--share",
        "hint=0.1",
    )
    assert code == 0
    assert "ε = 4 at δ = 1e-5, replace-one" in out
    assert "200 teachers" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["probabilities"][1] == "10"
    assert "%" in out
    assert rows["hint"][1] == "8"
    assert rows["verdict"][1:5] == ["good", "for", "labels", "only:"]


def test_a_plan_that_is_useless_says_so_and_why(run) -> None:
    _, out, _ = run("plan", "--epsilon", 1, "--mode", "single")
    assert "useless, because" in " ".join(out.split())


def test_a_plan_as_json_has_the_figures_of_the_design(run) -> None:
    """μ = 0.9249 at ε = 4, δ = 1e-5; the noise on the mean is √2/(k·μ) · √queries for shares."""
    code, out, _ = run("plan", "--epsilon", 4, "--queries", 300, "--teachers", 200, "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["mu"] == pytest.approx(0.9249, abs=5e-4)
    expected = np.sqrt(2.0) * np.sqrt(300) / (200 * plan["mu"])
    assert plan["taps"][0]["noise_sd"] == pytest.approx(expected, rel=1e-3)


def test_options_may_come_from_a_file(run, tmp_path) -> None:
    config = tmp_path / "audit.toml"
    config.write_text("[plan]\nepsilon = 4.0\nteachers = 50\n")
    code, out, _ = run("--config", config, "plan", "--json")
    assert code == 0
    assert json.loads(out)["taps"][0]["teachers"] == 50


def test_measured_answers_replace_the_model(run, tmp_path) -> None:
    clear = np.full((50, 10), 0.001)
    clear[:, 3] = 0.991
    np.save(tmp_path / "clear.npy", clear)
    _, out, _ = run("plan", "--epsilon", 4, "--measured", tmp_path / "clear.npy", "--json")
    assert json.loads(out)["taps"][0]["agreement"] > 0.99
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    code, _, err = run("plan", "--epsilon", 4, "--measured", tmp_path / "objects.npy")
    assert code == 2
    assert "holds no array of numbers" in err


def test_the_published_figure_stands_beside_the_sound_one(run) -> None:
    _, out, _ = run("plan", "--epsilon", 4, "--published-rate", 0.1)
    assert "as published, not a guarantee" in out
    assert out.index("sound") < out.index("published")


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "--help"), ("ledger", "--help")])
def test_help_is_there(run, arguments) -> None:
    code, out, _ = run(*arguments)
    assert code == 0
    assert "Usage: privacy-audit" in out


def test_receipts_of_another_ledger_are_one_violation(run, original, answers) -> None:
    for receipt in original.receipts:
        other = replace(receipt, ledger_id="00" * 16)
        (answers / f"{receipt.request_id}.json").write_bytes(other.to_json_bytes())
    code, out, _ = run("ledger", original.folder, "--receipts", answers, "--json")
    assert code == 1
    [violation] = json.loads(out)["violations"]
    expected = f"5 receipts of those given are of ledger {'00' * 16}, not of this one"
    assert violation["message"].startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ledger", "LEDGER", "--public-key", "nowhere"), "name a PEM file"),
        (("plan", "--epsilon", 8, "--measured", "nowhere"), "--measured names an .npy"),
        (("plan", "--epsilon", 8, "--config", "nowhere"), "nowhere"),
        (("plan", "--epsilon", 8, "--mode", "dp-sgd"), "--sample-rate"),
    ],
)
def test_what_is_missing_is_named_by_what_was_expected(run, original, arguments, words) -> None:
    named = [original.folder if word == "LEDGER" else word for word in arguments]
    code, out, err = run(*named)
    assert (code, out) == (2, "")
    assert words in err
    assert "Errno" not in err


def test_a_simulation_that_is_stopped_says_what_became_of_it(run, monkeypatch) -> None:
    def stopped(*_arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("privacy.audit.simulation.run.simulate", stopped)
    code, out, err = run("plan", "--epsilon", 8, "--simulate")
    assert (code, out) == (130, "")
    assert err == "stopped; training was ended, its throw-away teachers and ledgers removed\n"
