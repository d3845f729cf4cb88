"""`privacy-audit receipts`: do a client's receipts fit the log, and which is the first not to?"""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from privacy.audit.commands.failing import fail
from privacy.audit.commands.options import Flag, Wire
from privacy.audit.evidence import Evidence, read_receipts
from privacy.audit.ledger_check import verify
from privacy.audit.receipts_check import (
    ReceiptsReport,
    check_against_log,
    check_among_themselves,
)
from privacy.audit.receipts_screen import receipts_text
from privacy.audit.sources import given_key, known_keys, read_log
from privacy.audit.wire import Connection
from privacy.errors import PrivacyError
from privacy.key_history import KeyHistory

_WIRE = Connection()


def receipts(
    answers: Path,
    *,
    log: str | None = None,
    public_key: Path | None = None,
    connection: Wire = _WIRE,
    json: Flag = False,
) -> None:
    """Check a client's receipts against a log, and name the first that does not fit.

    Signature, entry, request, charge and total of each. Exit code 0 when all fit, 1 when one does
    not or the log itself does not verify.

    Parameters
    ----------
    answers
        A student's answers folder, or a file with receipts.
    log
        An exported log, a ledger's folder, or a service's HOST:PORT (with --certs). Without it the
        receipts are compared with one another only.
    public_key
        A key of the ledger as you were given it: PEM, or 64 hexadecimal digits. Without it, the
        one that the student pinned, or else the log's own word.
    json
        Print one JSON object.
    """
    evidence = read_receipts(answers)
    for source, why in evidence.damaged[:1]:
        line = f"DOES NOT FIT: the receipt in {source} cannot be read: {why}"
        print(jsonlib.dumps({"fits": False, "misfit": line}) if json else line)
        fail("the receipts do NOT fit")
    if log is None:
        report = check_among_themselves(_keys(public_key, evidence), evidence.receipts)
    else:
        verified = verify(read_log(log, connection), known_keys(public_key, [evidence]))
        report = check_against_log(verified, evidence.receipts)
        if report.misfit is None and verified.findings.found:
            line = f"the log does not verify: {verified.findings.found[0].message}"
            print(jsonlib.dumps({"fits": False, "misfit": line}) if json else line)
            fail("the log does NOT verify: run `privacy-audit ledger` on it")
    print(jsonlib.dumps(_json(report)) if json else receipts_text(report))
    if report.misfit is not None:
        fail("the receipts do NOT fit")


def _keys(given: Path | None, evidence: Evidence) -> KeyHistory:
    ledger_id = evidence.receipts[0][1].ledger_id
    if given is not None:
        return KeyHistory.starting_with(ledger_id, given_key(given))
    for _, pinned in evidence.pins:
        return pinned.of(ledger_id).since(pinned.keys[0].public_key)
    raise PrivacyError(
        "no key is known to verify these signatures with; give --public-key, or --log"
    )


def _json(report: ReceiptsReport) -> dict[str, Any]:
    return {
        "fits": report.misfit is None,
        "misfit": None if report.misfit is None else asdict(report.misfit),
        "ledger_id": report.ledger_id,
        "promise": report.promise.to_json(),
        "clients": list(report.clients),
        "receipts": report.receipts,
        "entries": report.entries,
        "first_entry": report.first,
        "last_entry": report.last,
        "charge": report.charge,
        "epsilon": report.epsilon,
        "epsilon_spent_by_all": report.epsilon_spent,
        "head": None if report.head is None else report.head.to_json(),
    }
