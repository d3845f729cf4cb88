"""The three places that a log comes from (an exported file, a ledger's folder, a live service), and
where the keys that it is held against do."""

from pathlib import Path

from privacy.audit.evidence import Evidence
from privacy.audit.log import Log, folder_lines, parse_log
from privacy.audit.wire import Connection, fetch_lines
from privacy.errors import LedgerMissing, PrivacyError
from privacy.key_history import KeyHistory
from privacy.ledger.durable import replace_durably
from privacy.receipts import read_public_key
from protos.channel import ChannelError, host_and_port

UNVERIFIED = ".unverified"


def read_log(where: str, connection: Connection, earlier: Log | None = None) -> Log:
    """The log at `where`: a file that `Ledger.export` wrote, a ledger's folder, or HOST:PORT.

    earlier: a log of the same ledger from an earlier visit. A service is then asked for newer
    entries only; should what it has not continue that log, for all of them, so that the
    verification can say where the two part.

    Raises LedgerMissing when nothing is there, PrivacyError when it is something else or the
    service refuses, LedgerCorrupt for a folder whose database does not even say which ledger it is.
    """
    path = Path(where)
    if path.is_dir():
        return parse_log(where, folder_lines(path))
    if path.exists():
        return parse_log(where, path.read_bytes().splitlines())
    try:
        host_and_port(where)
    except ChannelError:
        raise LedgerMissing(
            f"there is nothing at {where}; name an exported log, a ledger's folder, or a service's "
            "HOST:PORT"
        ) from None
    if earlier is not None and (lines := _continued(where, connection, earlier)) is not None:
        return parse_log(where, lines)
    return parse_log(where, fetch_lines(where, connection))


def read_earlier(path: Path) -> Log:
    """A log that was saved on an earlier visit. Raises PrivacyError unless it is one to the end."""
    try:
        log = parse_log(str(path), path.read_bytes().splitlines())
    except FileNotFoundError:
        raise PrivacyError(
            f"there is no earlier log at {path}; the first visit has none: use --save {path}"
        ) from None
    if log.faults or log.head is None or not log.recorded:
        raise PrivacyError(f"{path} is no whole log; run `privacy-audit ledger {path}` on it")
    return log


def known_keys(
    given: Path | None, evidence: list[Evidence], earlier: Log | None = None
) -> list[tuple[str, KeyHistory]]:
    """Where from and which: the key that was given by hand, or else those that students pinned
    and the one that an earlier visit went by."""
    if given is not None:
        return [(str(given), KeyHistory.starting_with("", given_key(given)))]
    known = [
        (f"{file}, where a student pinned it", pinned)
        for source in evidence
        for file, pinned in source.pins
    ]
    if earlier is not None:
        keys = KeyHistory.starting_with(earlier.ledger_id, earlier.public_key)
        known.append((f"{earlier.source}, the log of an earlier visit", keys))
    return known


def given_key(path: Path) -> bytes:
    """The raw public key in a file. Raises PrivacyError where there is none, ValueError for a file
    that holds something else."""
    try:
        return read_public_key(path)
    except FileNotFoundError:
        raise PrivacyError(
            f"there is no public key at {path}; name a PEM file, such as public-key.pem of a "
            "ledger's folder, or one with 64 hexadecimal digits"
        ) from None


def save(log: Log, path: Path, *, sound: bool) -> Path:
    """Keeps the log as it came, for the next visit; the name that it got.

    One that does not verify is evidence too, and never takes the place of an earlier one.
    """
    if not sound:
        path = path.with_name(path.name + UNVERIFIED)
    replace_durably(path, b"".join(line + b"\n" for line in log.lines))
    return path


def _continued(where: str, connection: Connection, earlier: Log) -> list[bytes] | None:
    """The earlier log with what the service has after it; None when that does not continue it."""
    *known, _ = earlier.lines
    lines = fetch_lines(where, connection, first=earlier.recorded[-1].entry.number)
    # The last entry known is asked for again: that it is the same shows that nothing before it
    # was exchanged either.
    if lines[:1] != known[:1] or lines[1:2] != known[-1:]:
        return None
    return known + lines[2:]
