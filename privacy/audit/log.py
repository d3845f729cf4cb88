"""Reading a ledger's log, line by line or from its folder, without believing a word of it.

Nothing here raises for what a tampered log holds: a line that cannot be read becomes a fault of
that line. Only a file that is no log at all is the user's mistake.
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from privacy import canonical_json
from privacy.canonical_json import digest, exactly
from privacy.errors import LedgerCorrupt, PrivacyError
from privacy.ledger import opening, store
from privacy.ledger.accounts import Opening
from privacy.ledger.chain import (
    LOG_FORMAT,
    Entry,
    answers_digest,
    entry_hash,
    entry_line,
    header_line,
)
from privacy.ledger.database import Database
from privacy.ledger.keys import PUBLIC_KEY
from privacy.receipts import SignedHead, read_public_key


@dataclass(frozen=True)
class Recorded:
    """One entry as the log has it: its content, the hash of it, and the hash written beside it."""

    line: int
    entry: Entry
    hash: bytes
    recorded_hash: bytes


@dataclass(frozen=True)
class Log:
    """What could be read of a log. `faults`: (line, why) of what could not; `lines`: as it came."""

    source: str
    ledger_id: str
    public_key: bytes
    recorded: list[Recorded]
    head: SignedHead | None
    faults: list[tuple[int, str]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


def parse_log(source: str, lines: list[bytes]) -> Log:
    """Reads the lines of a log: header, entries, signed head. Raises PrivacyError for no log."""
    try:
        header = exactly(
            canonical_json.decode(lines[0] if lines else b""),
            frozenset({"format", "ledger_id", "public_key"}),
        )
        if header["format"] != LOG_FORMAT:
            raise ValueError(f"format {header['format']!r}")
        ledger_id, public_key = str(header["ledger_id"]), digest(header["public_key"])
    except ValueError as error:
        raise PrivacyError(
            f"{source} is not the log of a ledger ({error}); export one, or name a ledger's folder"
        ) from None
    log = Log(source, ledger_id, public_key, [], None)
    head: SignedHead | None = None
    for number, line in enumerate(lines[1:], start=2):
        try:
            value = canonical_json.decode(line)
            if head is not None:
                raise ValueError("it stands after the signed head")
            if "head" in value:
                head = SignedHead.from_json(exactly(value, frozenset({"head"}))["head"])
            else:
                log.recorded.append(_recorded(number, value))
        except (ValueError, TypeError, RecursionError) as error:
            log.faults.append((number, str(error)))
    return Log(source, ledger_id, public_key, log.recorded, head, log.faults, lines)


def folder_faults(folder: Path, log: Log) -> list[tuple[int | None, str]]:
    """What only the ledger's own host can check: (entry, why) where the tables contradict the log.

    The totals, requests and caps beside the chain, every stored answer against the digest in the
    entry that stored it, and the key file that is handed to others.
    """
    database = Database.of(folder)
    engine = database.readable()
    faults: list[tuple[int | None, str]] = []
    try:
        with engine.connect() as connection:
            contents = opening.read(connection, database)
            for recorded in log.recorded:
                found = answers_digest(store.read_answers_of(connection, recorded.entry.number))
                if found != recorded.entry.answers_digest:
                    faults.append(
                        (recorded.entry.number, "the answers it stored were changed or removed")
                    )
        if read_public_key(folder / PUBLIC_KEY) != contents.accounts.keys.current:
            faults.append((None, f"{PUBLIC_KEY} in {folder} is not the key that signs now"))
    except (ValueError, OSError) as error:
        faults.append((None, str(error)))
    except LedgerCorrupt as error:
        faults.append((None, str(error).split(";")[0]))
    finally:
        engine.dispose()
    return faults


def _recorded(line: int, value: dict[str, Any]) -> Recorded:
    fields = exactly(value, frozenset({"entry", "hash"}))
    entry = Entry.from_json(fields["entry"])
    body = canonical_json.encode(fields["entry"])
    return Recorded(line, entry, entry_hash(body), digest(fields["hash"]))


def folder_lines(folder: Path) -> list[bytes]:
    """The lines that an export of this folder would have, from whatever the tables hold now.

    Raises LedgerMissing when there is none, LedgerCorrupt when its database does not even say
    which ledger it is.
    """
    database = Database.of(folder)
    database.require()
    engine = database.readable()
    try:
        with engine.connect() as connection:
            head = store.as_bytes(connection.scalars(select(store.state.c.head)).one())
            entries = list(store.read_entries(connection))
        ledger_id = canonical_json.decode(head)["ledger_id"]
        public_key = _opening_key(entries) or read_public_key(folder / PUBLIC_KEY)
    except (ValueError, KeyError, SQLAlchemyError) as error:
        raise LedgerCorrupt(f"{folder} cannot be read as a ledger ({error})") from None
    finally:
        engine.dispose()
    lines = [entry_line(body, held) for _, held, body in entries]
    return [header_line(ledger_id, public_key), *lines, b'{"head":%b}' % head]


def _opening_key(entries: list[tuple[int, bytes, bytes]]) -> bytes | None:
    """The key that the ledger was opened with; None where no entry says so."""
    for number, _, body in entries[:1]:
        if number == 0:
            with contextlib.suppress(ValueError):
                return Opening.of(Entry.from_json(canonical_json.decode(body))).public_key
    return None
