"""What a custodian does with a ledger that is open: cap, show, keep and bring it up to date."""

from __future__ import annotations

from pathlib import Path

from privacy.ledger.backup import back_up
from privacy.ledger.migration import migrate
from teacher_server import opening
from teacher_server.caps import cap_units
from teacher_server.commands.options import Flag
from teacher_server.commands.screen import print_facts


def cap(
    client: str,
    *,
    epsilon: float,
    ledger: Path,
    witness: Path | None = None,
    json: Flag = False,
) -> None:
    """Cap what one client may spend, beneath the budget of all; the ledger records it.

    Parameters
    ----------
    client
        The client's name, as its certificate has it.
    epsilon
        What the client alone may reach, at the ledger's own share of δ.
    ledger
        The ledger's folder. Its service must be stopped, unless its tables are in PostgreSQL.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    with opening.reopen_ledger(ledger, witness) as opened:
        opened.set_cap(client, cap_units(opened.plan, epsilon))
        state = opened.budget(client)
        print_facts({"client": client, "cap": state.cap, "left": state.client_left}, json)


def export_log(*, ledger: Path, out: Path, witness: Path | None = None, json: Flag = False) -> None:
    """Write the public log to a file, for auditors: charges and digests, no sample, no answer.

    Parameters
    ----------
    ledger
        The ledger's folder; its service may be running.
    out
        File that gets one JSON object a line.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    with opening.reopen_ledger(ledger, witness, read_only=True) as opened:
        opened.export(out)
        print_facts({"log": str(out), "last_entry": opened.head().entry}, json)


def backup(*, ledger: Path, out: Path, database_url: str | None = None, json: Flag = False) -> None:
    """Copy a whole ledger, answers and keys included, to a new folder; its service may be running.

    A copy is served only while it is current: once the ledger has gone on, it opens exhausted.

    Parameters
    ----------
    ledger
        The ledger's folder.
    out
        New folder that gets the copy; as secret as the ledger itself.
    database_url
        PostgreSQL database for the copy's tables; a SQLite file in OUT when not given.
    json
        Print one JSON object.
    """
    head = back_up(ledger, out, database_url)
    print_facts({"backup": str(out), "ledger": head.ledger_id, "last_entry": head.entry}, json)


def migrate_ledger(*, ledger: Path, json: Flag = False) -> None:
    """Bring a ledger that an older program made up to date, after a copy of its tables.

    Parameters
    ----------
    ledger
        The ledger's folder; its service must be stopped.
    json
        Print one JSON object.
    """
    done = migrate(ledger)
    if done.version_before == done.version and not json:
        print(f"nothing to do: schema version {done.version}")
        return
    print_facts(
        {
            "ledger": str(ledger),
            "version_before": done.version_before,
            "version": done.version,
            "kept": str(done.kept) if done.kept else None,
        },
        json,
    )


def rotate_key(*, ledger: Path, witness: Path | None = None, json: Flag = False) -> None:
    """Hand a ledger over to a new signing key, endorsed by the old one, which is destroyed.

    Clients and auditors follow by themselves; nothing is charged, stored answers stay. Stop every
    service of the ledger first, and copy both key files to the hosts of other replicas.

    Parameters
    ----------
    ledger
        The ledger's folder.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    with opening.reopen_ledger(ledger, witness) as opened:
        key = opened.rotate_key()
        print_facts(
            {
                "ledger": opened.ledger_id,
                "public_key": key.public_key.hex(),
                "signs_from_entry": key.entry,
                "keys_so_far": len(opened.key_history.keys),
            },
            json,
        )
