"""The custodian's commands on a ledger, on both databases: what they print and what they leave."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import make_url

from ktan.errors import UserError
from privacy.errors import LedgerExists, LedgerMismatch
from privacy.ledger.database import Database
from privacy.ledger.witness import read_heads
from teacher_server import cli, serving
from teacher_server.commands.screen import print_facts
from teacher_server.opening import reopen_ledger
from teacher_server.options import ServeOptions

PASSWORD = "a-secret-password"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys) -> Run:
    """Runs a command to its end; the JSON object that it prints."""

    def run(*arguments: object) -> dict[str, Any]:
        words = [*map(str, arguments), "--json"]
        cli.command_line(words)(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        printed = capsys.readouterr()
        assert PASSWORD not in printed.out + printed.err
        facts: dict[str, Any] = json.loads(printed.out)
        return facts

    return run


@pytest.fixture(params=["sqlite", "postgresql"])
def folder(tmp_path: Path, request: pytest.FixtureRequest, run: Run) -> Iterator[Path]:
    """The folder of a ledger that `open-ledger` made for generated data."""
    (tmp_path / "data").mkdir()
    folder = tmp_path / "ledger"
    options = []
    if request.param == "postgresql":
        url = make_url(request.getfixturevalue("postgresql"))
        # A server that asks for none does not mind one.
        url = url if url.password else url.set(password=PASSWORD)
        options = ["--database-url", url.render_as_string(hide_password=False)]
    opened = run(
        "open-ledger", "--dataset", "fake", "--data-root", tmp_path / "data", "--size", 60,
        "--labelled", 10, "--unlabelled", 10, "--test", 10, "--ledger", folder, "--witness",
        tmp_path / "elsewhere" / "head.json", "--epsilon", 4, *options,
    )  # fmt: skip
    assert opened["private_units"] == 30
    yield folder
    server = Database.of(folder).server
    assert (server is None) == (request.param == "sqlite")
    if server is not None:
        server.drop()


def test_a_ledger_is_opened_capped_and_backed_up(folder: Path, run: Run, tmp_path: Path) -> None:
    assert run("cap", "anna", "--epsilon", 2, "--ledger", folder)["client"] == "anna"
    copy = tmp_path / "copy"
    kept = run("backup", "--ledger", folder, "--out", copy)
    assert (kept["backup"], kept["last_entry"]) == (str(copy), 1)
    assert (copy / "split.json").read_bytes() == (folder / "split.json").read_bytes()
    # Its witness is named in it, and believes it as long as the ledger stands still.
    with reopen_ledger(copy, None, read_only=True) as again:
        assert again.rolled_back is None
        assert again.ledger_id == kept["ledger"]
        assert again.budget("anna").cap is not None
    run("cap", "bert", "--epsilon", 1, "--ledger", folder)
    with reopen_ledger(copy, None) as stale:
        assert "restored from an older copy" in stale.rolled_back
    with pytest.raises(LedgerExists, match="new folder"):
        run("backup", "--ledger", folder, "--out", copy)


def test_a_copy_of_the_witness_or_its_head_stands_in_for_a_lost_one(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    run("cap", "anna", "--epsilon", 2, "--ledger", folder)
    witness, copy = tmp_path / "elsewhere" / "head.json", tmp_path / "copy.json"
    kept = witness.read_bytes()
    heads = read_heads(kept)
    assert [head.entry for head in heads] == [1, 0]
    for content in (kept, json.dumps(heads[0].to_json(), indent=2).encode()):
        witness.unlink()
        with reopen_ledger(folder, None, read_only=True) as lost:
            assert "missing" in lost.rolled_back
        copy.write_bytes(content)
        with reopen_ledger(folder, None, trusted=copy) as again:
            assert again.rolled_back is None
        assert read_heads(witness.read_bytes()) == heads[:1]
    copy.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="neither a signed head nor a receipt"):
        reopen_ledger(folder, None, trusted=copy)


def test_a_service_whose_witness_is_lost_says_that_it_answers_nothing_new(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Reached(Exception):
        pass

    def beyond(*arguments: object) -> None:
        raise Reached

    with reopen_ledger(folder, None, read_only=True) as ledger:
        card = SimpleNamespace(
            ledger_id=ledger.ledger_id, mode="ensemble", version="1", to_json=dict
        )
    monkeypatch.setattr(serving, "TeacherCard", SimpleNamespace(read=lambda folder: card))
    monkeypatch.setattr(serving, "verify_folder", lambda folder, mac: None)
    monkeypatch.setattr(serving, "PublicTeacher", SimpleNamespace(of_card=lambda value: None))
    monkeypatch.setattr(serving, "build_menu", beyond)

    def serve() -> str:
        with pytest.raises(Reached):
            serving.run_service(
                tmp_path, folder, None, None, ServeOptions(plaintext=True), "cpu",
                "rounded-gaussian", print,
            )  # fmt: skip
        return capsys.readouterr().err

    witness = tmp_path / "elsewhere" / "head.json"
    kept = witness.read_bytes()
    assert serve() == ""
    for content, why in ((None, "is missing"), (b"nothing of the kind", "cannot be read")):
        witness.unlink(missing_ok=True)
        if content is not None:
            witness.write_bytes(content)
        said = serve()
        assert "nothing new will be answered" in said
        assert f"its witness {witness} {why}" in said
        assert "--trusted-head FILE" in said
        assert "rolled back" not in said
    witness.write_bytes(kept)
    assert serve() == ""


def test_where_the_witness_is_and_where_it_should_not_be_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    opened = run(
        "open-ledger", "--dataset", "fake", "--data-root", tmp_path / "data", "--size", 60,
        "--labelled", 10, "--unlabelled", 10, "--test", 10, "--ledger", tmp_path / "ledger",
        "--epsilon", 4,
    )  # fmt: skip
    assert opened["witness"] == str(tmp_path / "data" / "fake.ledger-head.json")
    assert Path(opened["witness"]).is_file()
    assert str(tmp_path / "ledger" / "witness-path") in opened["witness_storage"]


def test_a_ledger_of_this_version_needs_no_migration(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run("migrate-ledger", "--ledger", folder)
    assert done["version_before"] == done["version"]
    assert done["kept"] is None
    words = ["migrate-ledger", "--ledger", str(folder)]
    cli.command_line(words)(
        words,
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    assert capsys.readouterr().out == f"nothing to do: schema version {done['version']}\n"


def test_a_screen_for_people_groups_counts_and_says_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_facts({"noise_draws": 2**40, "cap": None, "taps": {"hint": {"noise_sd": 1234}}}, False)
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["noise", "draws  1,099,511,627,776"],
        ["cap", "none"],
        ["taps", "hint: noise sd 1,234"],
    ]


def test_a_second_ledger_for_the_same_data_is_refused(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(LedgerExists, match="second budget"):
        run(
            "open-ledger", "--dataset", "fake", "--data-root", tmp_path / "data", "--size", 60,
            "--labelled", 10, "--unlabelled", 10, "--test", 10, "--ledger", tmp_path / "second",
            "--witness", tmp_path / "w", "--epsilon", 4,
        )  # fmt: skip


def test_a_database_of_another_kind_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(LedgerMismatch, match="cannot be kept in mysql") as refusal:
        run(
            "open-ledger", "--dataset", "fake", "--data-root", tmp_path / "data", "--size", 60,
            "--labelled", 10, "--unlabelled", 10, "--test", 10, "--ledger", tmp_path / "ledger",
            "--epsilon", 4, "--database-url", f"mysql://me:{PASSWORD}@db/ktan",
        )  # fmt: skip
    assert PASSWORD not in str(refusal.value)
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize(
    "arguments",
    [["serve", "teacher", "--ledger", "ledger", "--plaintext"], ["--config", "no.toml", "serve"]],
)
def test_a_file_that_is_not_there_is_named_without_a_number(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["teacher-server", *arguments])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Errno" not in said
    assert ("no.toml" in said) == ("no.toml" in arguments)
