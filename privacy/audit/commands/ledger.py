"""`privacy-audit ledger`: does a log hold together, and with what others hold of it?"""

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from privacy.audit.commands.options import Flag, Paths
from privacy.audit.evidence import Evidence, read_head, read_receipts
from privacy.audit.ledger_check import LedgerReport, check
from privacy.audit.ledger_screen import ledger_text
from privacy.audit.log import folder_faults, read_log
from privacy.errors import LedgerCorrupt
from privacy.receipts import read_public_key


def ledger(
    path: Path,
    *,
    receipts: Paths = (),
    head: Paths = (),
    public_key: Path | None = None,
    json: Flag = False,
) -> None:
    """Verify a ledger offline: its chain, its signatures, its sums, and what others hold of it.

    Exit code 0 when everything holds, 1 when anything does not.

    Parameters
    ----------
    path
        A ledger's folder, or a log that was exported from one.
    receipts
        A student's answers folder, or a file with receipts; repeat for several.
    head
        A head kept elsewhere: a witness file, or an earlier export; repeat for several.
    public_key
        The ledger's public key as you were given it: PEM, or 64 hexadecimal digits. Without it,
        the one that a student pinned, or else the log's own word.
    json
        Print one JSON object.
    """
    try:
        log = read_log(path)
    except LedgerCorrupt as error:
        print(jsonlib.dumps({"sound": False, "error": str(error)}) if json else str(error))
        _fail("it cannot be read at all")
    evidence = [read_receipts(place) for place in receipts]
    key, source = _known_key(public_key, evidence, log.public_key)
    arguments: dict[str, Any] = {
        "receipts": [item for found in evidence for item in found.receipts],
        "damaged": [item for found in evidence for item in found.damaged],
        "heads": [(place, read_head(place)) for place in head],
        "public_key": key,
        "key_source": source,
    }
    report = check(log, **arguments)
    if report.sound and path.is_dir():
        report = check(log, **arguments, tables=folder_faults(path, log))
    print(jsonlib.dumps(_ledger_json(report)) if json else ledger_text(report))
    if not report.sound:
        count = len(report.violations)
        _fail(f"{count} violation{'' if count == 1 else 's'}")


def _fail(why: str) -> NoReturn:
    print(f"privacy-audit: the ledger does NOT verify: {why}", file=sys.stderr)
    sys.exit(1)


def _known_key(
    given: Path | None, evidence: list[Evidence], log_key: bytes
) -> tuple[bytes | None, str]:
    if given is not None:
        return read_public_key(given), str(given)
    pinned = [item for found in evidence for item in found.pinned_keys]
    # One that differs from the log's first: it is the one that tells something.
    pinned.sort(key=lambda item: item[1] == log_key)
    for file, key in pinned:
        return key, f"{file}, where a student pinned it"
    return None, ""


def _ledger_json(report: LedgerReport) -> dict[str, Any]:
    opening = report.opening
    return {
        "sound": report.sound,
        "violations": [asdict(violation) for violation in report.violations],
        "ledger_id": report.ledger_id,
        "dataset_id": opening.dataset_id if opening else None,
        "public_key": report.public_key.hex(),
        "public_key_from": report.key_source,
        "promise": opening.plan.promise.to_json() if opening else None,
        "entries": report.entries,
        "epsilon_spent": report.epsilon_spent,
        "spent": report.spent,
        "budget": opening.plan.answer_units if opening else None,
        "left": max(0, opening.plan.answer_units - report.spent) if opening else None,
        "draws": report.draws,
        "draws_budget": opening.plan.draws if opening else None,
        "training_used": report.training_used,
        "training_reserved": len(opening.plan.training) if opening else None,
        "clients": [asdict(client) for client in report.clients],
        "receipts": report.receipts,
        "heads": report.heads,
    }
