"""Reading a ledger's log, from its folder or from an exported file, without believing a word of it.

Nothing here raises for what a tampered log holds: a line that cannot be read becomes a fault of
that line. Only a file that is no log at all is the user's mistake.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from privacy import canonical_json
from privacy.canonical_json import digest, exactly
from privacy.errors import LedgerCorrupt, LedgerMissing, PrivacyError
from privacy.ledger import opening, store
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
    """What could be read of a log. `faults`: (line, why) of what could not."""

    source: Path
    ledger_id: str
    public_key: bytes
    recorded: list[Recorded]
    head: SignedHead | None
    faults: list[tuple[int, str]] = field(default_factory=list)


def read_log(path: Path) -> Log:
    """The log at `path`: a ledger's folder or a file that `Ledger.export` wrote.

    Raises LedgerMissing when nothing is there, PrivacyError when it is something else, and
    LedgerCorrupt for a folder whose database does not even say which ledger it is.
    """
    if path.is_dir():
        return parse_log(path, _folder_lines(path))
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise LedgerMissing(
            f"there is nothing at {path}; name a ledger's folder or an exported log"
        ) from None
    return parse_log(path, lines)


def parse_log(source: Path, lines: list[bytes]) -> Log:
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
    return Log(source, ledger_id, public_key, log.recorded, head, log.faults)


def folder_faults(folder: Path, log: Log) -> list[tuple[int | None, str]]:
    """What only the ledger's own host can check: (entry, why) where the tables contradict the log.

    The totals, requests and caps beside the chain, and every stored answer against the digest
    in the entry that stored it.
    """
    database = Database.of(folder)
    engine = database.readable()
    faults: list[tuple[int | None, str]] = []
    try:
        with engine.connect() as connection:
            opening.read(connection, database)
            for recorded in log.recorded:
                found = answers_digest(store.read_answers_of(connection, recorded.entry.number))
                if found != recorded.entry.answers_digest:
                    faults.append(
                        (recorded.entry.number, "the answers it stored were changed or removed")
                    )
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


def _folder_lines(folder: Path) -> list[bytes]:
    """The lines that an export of this folder would have, from whatever the tables hold now."""
    database = Database.of(folder)
    database.require()
    engine = database.readable()
    try:
        public_key = read_public_key(folder / PUBLIC_KEY)
        with engine.connect() as connection:
            head = store.as_bytes(connection.scalars(select(store.state.c.head)).one())
            lines = [entry_line(body, held) for _, held, body in store.read_entries(connection)]
        ledger_id = canonical_json.decode(head)["ledger_id"]
    except (ValueError, KeyError, SQLAlchemyError) as error:
        raise LedgerCorrupt(f"{folder} cannot be read as a ledger ({error})") from None
    finally:
        engine.dispose()
    return [header_line(ledger_id, public_key), *lines, b'{"head":%b}' % head]
