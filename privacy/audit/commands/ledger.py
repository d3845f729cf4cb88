"""`privacy-audit ledger`: does a log hold together, and with what others hold of it?"""

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privacy.audit.commands.failing import fail
from privacy.audit.commands.options import Flag, Paths, Wire
from privacy.audit.evidence import read_head, read_receipts
from privacy.audit.ledger_check import check
from privacy.audit.ledger_report import LedgerReport
from privacy.audit.ledger_screen import ledger_text
from privacy.audit.log import folder_faults
from privacy.audit.sources import known_keys, read_earlier, read_log, save
from privacy.audit.wire import Connection
from privacy.errors import LedgerCorrupt

_WIRE = Connection()


def ledger(
    log: str,
    *,
    receipts: Paths = (),
    head: Paths = (),
    public_key: Path | None = None,
    since: Path | None = None,
    save_to: Annotated[Path | None, Parameter(name="--save")] = None,
    connection: Wire = _WIRE,
    json: Flag = False,
) -> None:
    """Verify a ledger: its chain, its signatures, its sums, and what others hold of it.

    Offline from an exported log or from the ledger's folder, or over the wire with an auditor's
    certificate. Exit code 0 when everything holds, 1 when anything does not.

    Parameters
    ----------
    log
        An exported log, a ledger's folder, or a service's HOST:PORT (with --certs).
    receipts
        A student's answers folder, or a file with receipts; repeat for several.
    head
        A head kept elsewhere: a witness file, or a log that was saved or exported earlier; repeat
        for several.
    public_key
        A key of the ledger as you were given it: PEM, or 64 hexadecimal digits. Without it, the
        ones that students pinned, or that of --since, or else the log's own word.
    since
        The log of your last visit (--save): it must be continued, and a service is asked for
        newer entries only.
    save_to
        File that gets the log as it came, for the next visit's --since; one that does not verify
        goes to FILE.unverified.
    json
        Print one JSON object.
    """
    earlier = None if since is None else read_earlier(since)
    try:
        found = read_log(log, connection, earlier)
    except LedgerCorrupt as error:
        print(jsonlib.dumps({"sound": False, "error": str(error)}) if json else str(error))
        fail("the ledger does NOT verify: it cannot be read at all")
    evidence = [read_receipts(place) for place in receipts]
    heads = [(place, read_head(place)) for place in head]
    if since is not None and earlier is not None and earlier.head is not None:
        heads.append((since, earlier.head))
    arguments: dict[str, Any] = {
        "receipts": [item for source in evidence for item in source.receipts],
        "damaged": [item for source in evidence for item in source.damaged],
        "heads": heads,
        "known": known_keys(public_key, evidence, earlier),
    }
    report = check(found, **arguments)
    if report.sound and Path(log).is_dir():
        report = check(found, **arguments, tables=folder_faults(Path(log), found))
    saved = None if save_to is None else save(found, save_to, sound=report.sound)
    print(jsonlib.dumps(_json(report, saved)) if json else ledger_text(report, saved))
    if not report.sound:
        count = len(report.violations)
        fail(f"the ledger does NOT verify: {count} violation{'' if count == 1 else 's'}")


def _json(report: LedgerReport, saved: Path | None) -> dict[str, Any]:
    opening = report.opening
    return {
        "sound": report.sound,
        "violations": [asdict(violation) for violation in report.violations],
        "ledger_id": report.ledger_id,
        "dataset_id": opening.dataset_id if opening else None,
        "rehearsal": report.rehearsal,
        "public_key": report.keys.current.hex(),
        "public_key_from": report.key_source,
        "keys": [key.to_json() for key in report.keys],
        "promise": opening.plan.promise.to_json() if opening else None,
        "entries": report.entries,
        "head": None if report.head is None else report.head.to_json(),
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
        "saved": None if saved is None else str(saved),
    }
