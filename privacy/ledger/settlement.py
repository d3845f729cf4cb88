"""The values that go into and come out of a ledger."""

from dataclasses import dataclass

from privacy.promise import Promise
from privacy.receipts import Receipt


@dataclass(frozen=True)
class PendingAnswer:
    """One noisy release, drawn in memory and not yet paid for.

    key: 32 bytes of `Ledger.sample_key`; two releases of one key share the first's payload.
    charge: units of μ²·2⁴⁰. draws: noise draws that went into the payload.
    payload: what is stored and sent, opaque to the ledger.
    stored: True where `Ledger.stored` gave the payload. A hint that saves a second look: what is
    charged is decided by what the ledger holds.
    """

    key: bytes
    charge: int
    draws: int
    payload: bytes
    stored: bool = False

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise ValueError(f"the key of an answer has 32 bytes, not {len(self.key)}")
        # Written out: it is made once per sample and tap.
        if type(self.charge) is not int or self.charge < 0:
            raise ValueError(f"charge must be an integer of at least 0, not {self.charge!r}")
        if type(self.draws) is not int or self.draws < 0:
            raise ValueError(f"draws must be an integer of at least 0, not {self.draws!r}")


@dataclass(frozen=True)
class Settlement:
    """What a request became. Once it exists it is durable, and may be sent.

    payloads: in the order of the request; where an answer was stored before, the stored one.
    charged: units of μ²·2⁴⁰ that the request cost when it was accepted.
    new: answers that the request stored, of `len(payloads)`.
    repeated: True when the request had been settled before: nothing was charged this time.
    """

    payloads: list[bytes]
    receipt: Receipt
    charged: int
    new: int
    repeated: bool = False


@dataclass(frozen=True)
class BudgetState:
    """Where a ledger stands, for one client or for none.

    All charges in units of μ²·2⁴⁰, of all clients together unless named `client_*`.
    client_left: what the client may still spend, the smaller of its cap's rest and `left`.
    cap: the client's cap, None where only the global budget limits.
    epsilon_spent: ε at the promise's δ, an upper bound; all of it in a rolled-back ledger.
    rolled_back: why the ledger takes no charge; None when it does.
    """

    spent: int
    left: int
    budget: int
    cap: int | None
    client_spent: int
    client_left: int
    epsilon_spent: float
    draws_left: int
    promise: Promise
    rolled_back: str | None = None
