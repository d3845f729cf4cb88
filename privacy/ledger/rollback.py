"""Is a ledger the newest that there is? Its chain, compared with a head that somebody else kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privacy.receipts import Receipt, SignedHead


@dataclass(frozen=True)
class Chain:
    """What must be known of a ledger to compare a head with it.

    last: number of its last entry. last_groups: (first, last) entry of the group that each of its
    writers committed last. hash_of: the recorded hash of entry n, None when it has no entry n.
    """

    ledger_id: str
    last: int
    last_groups: Sequence[tuple[int, int]]
    hash_of: Callable[[int], bytes | None]


@dataclass(frozen=True)
class Reason:
    """Why a ledger is not believed. final: entries are known to be missing, and no other head can
    mend that."""

    text: str
    final: bool


def compare(known: SignedHead | Receipt, chain: Chain, name: str) -> Reason | None:
    """Why `known` does not show the chain to be the newest; None when it does.

    A writer begins a group only when the witness has seen its last one. So what a crash leaves
    beyond the witness lies in last groups, and everything else beyond it shows that the witness
    is from another day.
    """
    held = chain.hash_of(known.entry)
    if held is None:
        return Reason(
            f"{name} saw entry {known.entry}, the ledger ends at entry {chain.last}: it was "
            "restored from an older copy",
            final=True,
        )
    if held != known.entry_hash:
        return Reason(
            f"{name} saw another entry {known.entry} than the ledger has: one of the two is from "
            "a copy that was served separately",
            final=True,
        )
    seen = known.entry
    for first, last in sorted(chain.last_groups):
        if first <= seen + 1 <= last:
            seen = last
    if seen < chain.last:
        return Reason(
            f"{name} saw entry {known.entry} last, the ledger ends at entry {chain.last}: it is "
            "too old to show that nothing after that is missing",
            final=False,
        )
    return None
