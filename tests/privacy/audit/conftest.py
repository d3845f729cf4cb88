"""One audited ledger for all tests, and the command as a person and as a machine call it.

Tests tamper with copies of the ledger's lines, never with its files.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.audit import cli
from tests.privacy.audit.audited import Case, audited
from tests.teacher_server.running_service import certificates

__all__ = ["answers", "certificates", "original", "run"]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return audited(tmp_path_factory.mktemp("audited"))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command; returns exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["privacy-audit", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def answers(original: Case, tmp_path: Path) -> Path:
    """A student's answers folder with all receipts, whoever's they are."""
    folder = tmp_path / "answers"
    folder.mkdir()
    for receipt in original.receipts:
        (folder / f"{receipt.request_id}.json").write_bytes(receipt.to_json_bytes())
    return folder
