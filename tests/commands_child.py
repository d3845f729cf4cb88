"""Runs the commands that need no models, then imports the others; what came with them, as JSON.

A process of its own, since torch is in that of the tests already. Its one argument is a folder.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import privacy.audit.cli
import student_client.cli
import teacher_server.cli

LISTS = {
    "teacher-server": teacher_server.cli,
    "student-client": student_client.cli,
    "privacy-audit": privacy.audit.cli,
}
FREE_OF_TORCH = {
    "teacher-server": (
        "certs", "cap", "export-log", "backup", "migrate-ledger", "rotate-key", "rehearse",
    ),
    "student-client": ("budget",),
    "privacy-audit": ("plan", "ledger", "mechanism", "membership", "canaries", "receipts"),
}  # fmt: skip
HEAVY = ("torch", "torchvision", "opacus", "matplotlib", "opendp", "sqlalchemy", "scipy", "grpc")


def main(folder: Path) -> None:
    ran: dict[str, Any] = {}
    for name, module in LISTS.items():
        _run(module, "--help")
        ran[f"{name} --help"] = _loaded()
    for name, commands in FREE_OF_TORCH.items():
        for command in commands:
            _run(LISTS[name], command, "--help")
            ran[f"{name} {command}"] = _loaded()
    for words in _use_of_a_ledger(folder):
        name, *rest = words.split()
        _run(LISTS[name], *rest)
        ran[words] = _loaded()
    pages = {
        f"{name} {command}": (line, module.command_line((command,))[command].help)
        for name, module in LISTS.items()
        for command, (_, line) in module.COMMANDS.items()
    }
    print(json.dumps({"ran": ran, "all": _loaded(), "pages": pages}))


def _use_of_a_ledger(folder: Path) -> list[str]:
    """Calls of commands, in this order; makes the ledger."""
    # The lists of commands were shown without these.
    from privacy.budget import open_plan
    from teacher_server.rehearsal.throw_away import open_throw_away

    ledger, log = folder / "ledger", folder / "log.jsonl"
    open_throw_away(ledger, open_plan(4.0, 1e-5), None).close()
    return [
        f"teacher-server certs --out {folder / 'certs'} --client somebody",
        f"teacher-server cap somebody --epsilon 1 --ledger {ledger}",
        f"teacher-server rotate-key --ledger {ledger}",
        f"teacher-server export-log --ledger {ledger} --out {log}",
        f"teacher-server backup --ledger {ledger} --out {folder / 'copy'}",
        f"teacher-server migrate-ledger --ledger {ledger}",
        f"privacy-audit ledger {log}",
        f"privacy-audit ledger {ledger}",
        "privacy-audit plan --epsilon 4",
    ]


def _run(module: Any, *tokens: str) -> None:
    sys.argv = ["command", *tokens]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            module.main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{tokens}: {said.getvalue()}") from end


def _loaded() -> list[str]:
    return [name for name in HEAVY if name in sys.modules]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
