"""The whole way through three real processes: teach a student, audit what it cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.deployment import QUERIES, Deployment

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A deployment in which a student was taught once, and the student's own report."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    # So large a budget that the noise, secret and new in each run, decides nothing.
    deployment.prepare("--epsilon", "200")
    with deployment.service() as (server, address):
        client = deployment.train_student(address)
        assert client.end() == 0, client.errors
        budget = deployment.run_json(
            "student-client", "budget", address, "--certs", deployment.folder / "certs/anna"
        )
        assert server.stop() == 0
    return deployment, json.loads(client.output), budget


def test_the_student_is_taught_and_says_under_which_promise(deployed):
    _, result, _ = deployed
    assert result["accuracy"] > 0.3
    assert result["answers"]["charged"] == QUERIES
    assert result["promise"]["adjacency"] == "replace-one"
    assert 0 < result["epsilon_spent"] <= 200


def test_the_budget_lasts_for_exactly_the_planned_answers(deployed):
    deployment, _, budget = deployed
    log = deployment.run_json("privacy-audit", "ledger", deployment.ledger)
    charge = log["spent"] // QUERIES
    assert log["spent"] == QUERIES * charge
    assert 0 <= log["left"] < charge
    assert budget["epsilon_spent"] == pytest.approx(log["epsilon_spent"])


def test_the_auditor_finds_every_receipt_in_the_log(deployed):
    deployment, _, _ = deployed
    done = deployment.run(
        "privacy-audit", "ledger", deployment.ledger, "--receipts", deployment.student / "answers"
    )
    assert "replace-one" in done.stdout


def test_an_auditor_without_the_ledger_verifies_an_export_and_sees_an_edit(deployed, tmp_path):
    deployment, _, _ = deployed
    log = tmp_path / "log.jsonl"
    deployment.run("teacher-server", "export-log", "--ledger", deployment.ledger, "--out", log)
    receipts = ("--receipts", deployment.student / "answers")
    deployment.run("privacy-audit", "ledger", log, *receipts)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2] + lines[3:]))
    done = deployment.run("privacy-audit", "ledger", log, *receipts, check=False)
    assert done.returncode == 1


def test_a_second_ledger_for_the_same_data_is_refused(deployed):
    deployment, _, _ = deployed
    done = deployment.run(
        "teacher-server", "open-ledger", *deployment.data, "--ledger",
        deployment.folder / "another", "--epsilon", "8", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "second budget" in done.stderr
    assert not (deployment.folder / "another").exists()


def test_a_server_without_a_ledger_or_with_changed_weights_does_not_start(deployed, tmp_path):
    deployment, _, _ = deployed
    serve = (
        "teacher-server",
        "serve",
        deployment.teacher,
        "--plaintext",
        "--listen",
        "127.0.0.1:0",
    )
    missing = deployment.run(*serve, "--ledger", tmp_path / "none", check=False)
    assert missing.returncode == 2
    assert not (tmp_path / "none").exists()
    weights = deployment.teacher / "weights.safetensors"
    original = weights.read_bytes()
    try:
        weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        changed = deployment.run(*serve, "--ledger", deployment.ledger, check=False)
    finally:
        weights.write_bytes(original)
    assert changed.returncode == 2
    assert "changed" in changed.stderr


def test_the_teachers_card_and_folder_hold_nothing_private_and_no_pickle(deployed):
    deployment, _, _ = deployed
    card = (deployment.teacher / "card.json").read_text()
    for word in ("accuracy", "loss", "sha256", "digest"):
        assert word not in card.lower()
    for path in deployment.teacher.iterdir():
        assert path.suffix in {".json", ".safetensors", ".mac"}, path


def test_a_mistake_is_one_line_and_exit_code_2(deployed):
    deployment, _, _ = deployed
    for wrong in (
        ("teacher-server", "serve", deployment.teacher, "--ledger", deployment.ledger),
        ("teacher-server", "train", "--epohcs", "3"),
        ("student-client", "describe", "localhost:1", "--certs", deployment.folder / "nowhere"),
        ("privacy-audit", "ledger", deployment.folder / "nowhere"),
    ):
        done = deployment.run(*wrong, check=False)
        assert done.returncode == 2, wrong
        assert_one_line(done.stderr)


@pytest.mark.parametrize(
    "wrong",
    [
        ("teacher-server", "cap", "anna", "--epsilon", "1", "--ledger", "nowhere"),
        ("student-client", "budget", "localhost:1", "--certs", "nowhere"),
        ("privacy-audit", "ledger", "nowhere"),
    ],
)
def test_so_it_is_for_the_commands_as_they_are_installed(wrong, tmp_path):
    """The others are forked (tests/end_to_end/commands.py)."""
    command = [str(BIN / wrong[0]), *wrong[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stderr
    assert_one_line(done.stderr)


def assert_one_line(errors):
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("error:")
