"""A log over the wire: real mTLS, the real guard, and the auditor's certificate."""

import shutil
from pathlib import Path

import grpc
import pytest

from privacy.audit import sources
from privacy.ledger import Ledger
from tests.teacher_server.running_service import (
    FACE,
    Service,
    images,
    query,
    running,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory, certificates):
    yield from running(tmp_path_factory.mktemp("service"), certificates, FACE)


def ask(service: Service, seed: int) -> None:
    """One paid request of client anna."""
    service.stub("anna").Query(query(images(2, seed)), timeout=60)


@pytest.fixture(scope="module")
def first(service, tmp_path_factory) -> Path:
    """The log as the auditor saved it on a first visit, two requests long."""
    ask(service, 1)
    ask(service, 2)
    path = tmp_path_factory.mktemp("visits") / "first.jsonl"
    service.ledger.export(path)
    return path


def otto(service: Service) -> tuple[object, ...]:
    return (service.address, "--certs", service.certificates / "otto")


def test_an_auditor_verifies_and_keeps_what_came(run, service, first, tmp_path) -> None:
    saved = tmp_path / "saved.jsonl"
    code, out, err = run("ledger", *otto(service), "--save", saved)
    assert (code, err) == (0, "")
    assert "VERIFIED" in out
    assert f"saved to {saved}" in out
    assert saved.read_bytes().splitlines() == list(service.ledger.log_lines())
    # What was saved is a log, and a head, like any other.
    code, out, _ = run("ledger", saved, "--head", saved)
    assert code == 0
    assert "1 head kept elsewhere" in out


def test_the_next_visit_asks_for_newer_entries_only(
    run, service, first, tmp_path, monkeypatch
) -> None:
    ask(service, 3)
    asked = []

    def spy(address, connection, first=0):
        lines = fetch(address, connection, first)
        asked.append((first, len(lines)))
        return lines

    fetch = sources.fetch_lines
    monkeypatch.setattr(sources, "fetch_lines", spy)
    saved = tmp_path / "second.jsonl"
    code, out, _ = run("ledger", *otto(service), "--since", first, "--save", saved)
    assert code == 0
    last = service.ledger.head().entry
    # Header, the last known entry once more, what is new, and the head.
    assert asked == [(2, 3 + last - 2)]
    assert "1 head kept elsewhere" in out
    assert saved.read_bytes().splitlines() == list(service.ledger.log_lines())


def test_a_service_that_went_another_way_is_told_from_the_last_visit(
    run, service, first, tmp_path
) -> None:
    """The auditor saw a copy of the ledger that was served apart, and kept its log."""
    copy, witness = tmp_path / "copy", tmp_path / "head.json"
    with Ledger.open(service.ledger.folder, witness=tmp_path / "no", read_only=True) as ledger:
        settled = ledger.head()
    shutil.copytree(service.ledger.folder, copy)
    witness.write_bytes(settled.to_json_bytes())
    with Ledger.open(copy, witness=witness) as ledger:
        ledger.set_cap("anna", 10**9)
        ledger.export(tmp_path / "forked.jsonl")
    saved = tmp_path / "log.jsonl"
    where = ("--since", tmp_path / "forked.jsonl", "--save", saved)
    code, out, _ = run("ledger", *otto(service), *where)
    assert code == 1
    assert "TRUNCATED" in out
    assert not saved.exists()
    assert (tmp_path / "log.jsonl.unverified").exists()
    ask(service, 4)
    code, out, _ = run("ledger", *otto(service), *where)
    assert code == 1
    assert "FORKED" in out
    assert "the head kept in" in " ".join(out.split())


def test_receipts_are_checked_over_the_wire(run, service, first, tmp_path) -> None:
    response = service.stub("anna").Query(query(images(1, 9)), timeout=60)
    (tmp_path / "receipt.json").write_bytes(response.receipt)
    code, out, _ = run(
        "receipts", tmp_path, "--log", service.address, "--certs", service.certificates / "otto"
    )
    assert code == 0
    assert "1 receipt of 'anna' fit" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--certs", "anna"), "certs --auditor NAME"),
        (("--certs", "stranger"), "ca.pem"),
        ((), "--certs DIR"),
        (("--plaintext",), "expects TLS"),
        (("--certs", "nobody"), "no such folder"),
        (("--certs", "otto", "--deadline", "0"), "above 0"),
    ],
)
def test_who_may_not_read_it_is_told_why(run, service, first, options, words) -> None:
    options = [
        service.certificates / word if word.isalpha() and word != "0" else word for word in options
    ]
    code, out, err = run("ledger", service.address, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_nobody_there(run, service) -> None:
    code, _, err = run("ledger", "localhost:1", "--certs", service.certificates / "otto")
    assert code == 2
    assert "no service answers at localhost:1 (Connection refused)" in err


def test_a_server_of_something_else(run) -> None:
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        code, _, err = run("ledger", f"127.0.0.1:{port}", "--plaintext")
    finally:
        server.stop(None)
    assert code == 2
    assert "none that keeps a ledger" in err


def test_neither_a_place_nor_an_address(run) -> None:
    code, _, err = run("ledger", "nowhere")
    assert code == 2
    assert "HOST:PORT" in err


def test_a_first_visit_has_nothing_to_continue(run, service, tmp_path) -> None:
    code, _, err = run("ledger", *otto(service), "--since", tmp_path / "none.jsonl")
    assert code == 2
    assert "--save" in err
