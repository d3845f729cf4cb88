"""The durable, chained, signed ledger of everything that was ever released from a data set."""

from privacy.ledger.binding import (
    Binding,
    bind,
    binding_path,
    overlapping_binding,
    read_binding,
    require_bound,
    require_unbound,
)
from privacy.ledger.chain import Entry
from privacy.ledger.ledger import Ledger
from privacy.ledger.looking import Look
from privacy.ledger.settlement import BudgetState, PendingAnswer, Settlement

__all__ = [
    "Binding",
    "BudgetState",
    "Entry",
    "Ledger",
    "Look",
    "PendingAnswer",
    "Settlement",
    "bind",
    "binding_path",
    "overlapping_binding",
    "read_binding",
    "require_bound",
    "require_unbound",
]
