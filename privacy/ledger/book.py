"""What one writing process goes by: the ledger's opening entry, its keys, its own name."""

from dataclasses import dataclass
from functools import cached_property

from privacy.key_history import KeyHistory
from privacy.ledger.accounts import Opening
from privacy.ledger.keys import LedgerKeys
from privacy.promise import Promise
from privacy.receipts import Receipt, SignedHead, verify


@dataclass(frozen=True)
class Book:
    """The same for every group, until the ledger is handed over to another key.

    keys: of which the signing key is the last of `history`. writer: its name in the table of
    writers. rolled_back: why nothing may be charged.
    """

    opening: Opening
    keys: LedgerKeys
    history: KeyHistory
    writer: str
    rolled_back: str | None

    @cached_property
    def promise(self) -> Promise:
        """The plan's; one object, since every receipt writes it out."""
        return self.opening.plan.promise

    def verify(self, signed: Receipt | SignedHead) -> None:
        """Returns for what this ledger's key of that entry signed; raises SignatureInvalid."""
        verify(signed, self.history.at(signed.entry))
