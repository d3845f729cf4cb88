"""`status` and `health`: what they say of a service that is ready, and of one that is not there."""

import json
import sys

import pytest

from teacher_server.cli import main
from teacher_server.observing.operations import operations
from teacher_server.options import ServeOptions
from tests.teacher_server.running_service import CHARGE, FACE, images, query


@pytest.fixture
def run(monkeypatch, capsys):
    """A command's exit code, and what it printed."""

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["teacher-server", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def test_a_service_says_over_the_wire_what_is_spent_and_when_its_certificate_ends(service, run):
    service.stub().Query(query(images(3)), timeout=60)
    certs = service.certificates / "otto"
    code, out, _ = run("status", service.address, "--certs", certs, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["ready"] is True
    assert facts["mode"] == "ensemble"
    assert facts["units_spent"] == 3 * CHARGE == service.spent
    assert facts["units_left"] == facts["units_budget"] - facts["units_spent"]
    assert 0 < facts["epsilon_spent"] < facts["epsilon_budget"] == 4.0
    assert facts["certificate_expires"] > "2026"
    assert facts["promise"].startswith("ε = 4 at δ = 1e-5, replace-one")


def test_a_person_gets_one_screen_with_units(service, run):
    code, out, _ = run("status", service.address, "--certs", service.certificates / "anna")
    assert code == 0
    assert len(out.splitlines()) < 20
    assert out.splitlines()[0].split() == ["ready", "yes"]
    assert "ε = 0 of 4, 4 left" in out
    assert "units (μ²·2⁴⁰) charged (0.0%)" in out
    assert "ends 20" in out


def test_on_the_host_the_ledgers_folder_says_what_each_client_spent(service, tmp_path, run):
    service.stub("anna").Query(query(images(2)), timeout=60)
    service.stub("bert").Query(query(images(1, seed=9)), timeout=60)
    service.ledger.set_cap("bert", 5 * CHARGE)
    place = ["--ledger", tmp_path / "ledger", "--witness", tmp_path / "elsewhere" / "head.json"]
    code, out, _ = run("status", *place, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["clients"] == {
        "anna": {"units_spent": 2 * CHARGE, "units_cap": None},
        "bert": {"units_spent": CHARGE, "units_cap": 5 * CHARGE},
    }
    assert facts["ledger_takes_charges"] is True
    _, out, _ = run("status", *place)
    assert f"bert: {CHARGE:,} units of a cap of {5 * CHARGE:,}" in out


def test_a_ledger_that_nothing_vouches_for_is_not_ready(service, tmp_path, run):
    lost = tmp_path / "lost.json"
    code, out, _ = run("status", "--ledger", tmp_path / "ledger", "--witness", lost)
    assert code == 1
    assert out.splitlines()[0].split() == ["ready", "NO"]


def test_the_metrics_port_says_why_it_is_not_ready_and_what_waits(service, run):
    options = ServeOptions(plaintext=True, metrics="127.0.0.1:0")
    with operations(
        options, service.ledger, teacher_version=FACE.teacher_version, mode=FACE.mode
    ) as running:
        running.observer.waiting(3, 40)
        code, out, _ = run("status", "--metrics", running.metrics, "--json")
        facts = json.loads(out)
        assert code == 1
        assert facts["service"] == "not ready: starting"
        assert (facts["waiting_requests"], facts["waiting_samples"]) == (3, 40)
        assert facts["uptime_seconds"] > 0
        assert facts["teacher_version"] == FACE.teacher_version
        running.health._say(())
        code, out, _ = run("status", "--metrics", running.metrics)
        assert code == 0
        assert "3 requests of 40 samples" in out
    code, out, _ = run("status", "--metrics", running.metrics)
    assert code == 1
    assert "not reachable" in out


def test_health_is_an_exit_code(service, run):
    certs = service.certificates / "otto"
    assert run("health", service.address, "--certs", certs)[:2] == (0, "serving\n")
    assert run("health", service.address, "--certs", certs, "--live")[:2] == (0, "serving\n")


def test_a_service_that_is_not_there_is_not_ready(certificates, run):
    certs = certificates / "anna"
    assert run("health", "localhost:1", "--certs", certs)[:2] == (1, "not reachable\n")
    code, out, _ = run("status", "localhost:1", "--certs", certs, "--json")
    assert (code, json.loads(out)) == (1, {"ready": False, "service": "not reachable"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], "--metrics HOST:PORT"),
        (["status", "localhost:1"], "--certs"),
        (["status", "--metrics", "here"], "HOST:PORT"),
        (["health", "nowhere", "--plaintext"], "HOST:PORT"),
        (["health", "192.0.2.1:1", "--plaintext"], "on this machine"),
    ],
)
def test_a_mistake_in_the_call_is_one_line(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
