"""Which key has to have signed what: the ledger's keys, followed from the one that is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from privacy.audit.log import Log
from privacy.audit.violations import Findings, ViolationKind
from privacy.errors import KeyNotEndorsed, SignatureInvalid
from privacy.key_history import KeyHistory
from privacy.ledger.accounts import Accounts
from privacy.receipts import Receipt, SignedHead, verify

OLDER: Final = (
    "the log is probably older than that, export it again; one that was cut off, or that is of a "
    "ledger restored from an older copy, looks the same"
)
"""What to make of a log that ends before something that others hold."""


@dataclass(frozen=True)
class Keys:
    """What verifies a log.

    own: as the log itself has them. of_head: of its own head. of_evidence: of receipts and heads
    that others hold. Both go on where `own` ends, by what others know.
    """

    own: KeyHistory
    of_head: KeyHistory
    of_evidence: KeyHistory


def settle_keys(
    log: Log,
    accounts: Accounts | None,
    known: Sequence[tuple[str, KeyHistory]],
    findings: Findings,
) -> Keys:
    """The keys to verify with; reports where the log's are not those that others know.

    known: (where from, keys) that somebody holds to be this ledger's: the first one trusted, the
    others followed from there. One that the log does not reach is taken over, so that what it
    signed can be told from what nobody signed.
    """
    claimed = accounts.keys if accounts else KeyHistory.starting_with(log.ledger_id, log.public_key)
    try:
        claimed.verify(claimed.keys[0].public_key)
    except KeyNotEndorsed as error:
        findings.add(
            "key",
            error.entry,
            f"entry {error.entry} hands over to a signing key that the one before it did not "
            "endorse: whoever wrote it did not hold the ledger's key",
        )
    last = max((item.entry.number for item in log.recorded), default=-1)
    own, foreign = claimed, None
    for source, keys in known:
        if keys.keys[0].public_key in claimed or _endorses(claimed, keys):
            claimed = _followed(claimed, keys, source, last, findings)
            continue
        if keys.ledger_id not in ("", log.ledger_id):
            findings.add(
                "key",
                None,
                f"{source}, is the key of ledger {keys.ledger_id}, this is the log of "
                f"{log.ledger_id}",
            )
            continue
        foreign = foreign or keys.keys[0].public_key
        findings.add(
            "key",
            None,
            f"the log names the public key {claimed.current.hex()[:16]}…, {source} holds "
            f"{keys.keys[0].public_key.hex()[:16]}…: this is another ledger's log, one signed by "
            "somebody else, or one that ends before the ledger had that key (then export it again)",
        )
    if foreign is None:
        return Keys(own, claimed, claimed)
    return Keys(own, claimed, KeyHistory.starting_with(log.ledger_id, foreign))


def _endorses(claimed: KeyHistory, keys: KeyHistory) -> bool:
    """Whether the log's newest key handed over to the first of `keys`: somebody began to trust the
    ledger after a rotation that the log does not reach."""
    try:
        claimed.followed_by(keys.keys[0]).verify(claimed.current)
    except KeyNotEndorsed:
        return False
    return True


def _followed(
    claimed: KeyHistory, keys: KeyHistory, source: str, last: int, findings: Findings
) -> KeyHistory:
    """`claimed`, and what `keys` have after it. Reports keys that the log should have and lacks."""
    try:
        keys = KeyHistory(claimed.ledger_id, keys.keys).since(keys.keys[0].public_key)
    except KeyNotEndorsed as error:
        findings.add("key", error.entry, f"{source}: {error}")
        return claimed
    for key in keys.keys:
        if key.public_key in claimed:
            continue
        name = f"{source}, knows a signing key that was endorsed for entry {key.entry}"
        if key.entry <= last:
            findings.add(
                "forked",
                key.entry,
                f"{name}, the log has another entry there: it was rewritten, or forked at or "
                "before this entry",
            )
            return claimed
        findings.add(
            "truncated",
            key.entry,
            f"the log ends at entry {last}, {name}: {OLDER}",
        )
        claimed = claimed.followed_by(key)
    return claimed


def is_signed(
    signed: Receipt | SignedHead,
    ledger_id: str,
    keys: KeyHistory,
    name: str,
    findings: Findings,
    *,
    beyond: bool = False,
) -> bool:
    """True when it is of this ledger and signed with the key of its entry; else reports it.

    beyond: its entry lies after the log's last one, whose keys may not be all.
    """
    kind: ViolationKind = "receipt" if isinstance(signed, Receipt) else "unsigned"
    if signed.ledger_id != ledger_id:
        findings.add(
            kind,
            signed.entry,
            f"{name} is of ledger {signed.ledger_id}, this is the log of {ledger_id}",
        )
        return False
    if _fits(signed, keys.at(signed.entry)):
        return True
    others = [key for key in keys if key.public_key != keys.at(signed.entry)]
    for key in others:
        if _fits(signed, key.public_key):
            findings.add(
                "key",
                signed.entry,
                f"{name} is signed with the ledger's key of entry {key.entry}, which was not its "
                f"key at entry {signed.entry}: somebody signs with a key that was rotated out",
            )
            return False
    path = signed.path if isinstance(signed, Receipt) else None
    what = "it, or its path to the signed root," if path else "it"
    findings.add(
        kind,
        signed.entry,
        f"{name} carries no valid signature for entry {signed.entry}: {what} was changed, or it "
        "was signed with another key"
        + (", or the log ends before the ledger had the key that signed it" if beyond else ""),
    )
    return False


def _fits(signed: Receipt | SignedHead, key: bytes) -> bool:
    try:
        verify(signed, key)
    except (SignatureInvalid, ValueError):
        return False
    return True
