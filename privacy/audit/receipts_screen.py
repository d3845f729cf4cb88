"""What a check of receipts looks like on a screen: one line when all fit, and one when not."""

from privacy.audit.layout import counted
from privacy.audit.receipts_check import ReceiptsReport


def receipts_text(report: ReceiptsReport) -> str:
    """The report of `privacy-audit receipts`."""
    if report.misfit is not None:
        entry = "" if report.misfit.entry is None else f"entry {report.misfit.entry}: "
        return f"DOES NOT FIT: {entry}{report.misfit.message}"
    promise = report.promise
    limit = f"of {promise.epsilon:g} at δ = {promise.delta:g}, {promise.adjacency.value}"
    whose = ", ".join(repr(client) for client in report.clients)
    entries = f"entries {report.first} to {report.last}"
    if report.first == report.last:
        entries = f"entry {report.first}"
    fit = f"{counted(report.receipts, 'receipt')} of {whose}"
    charged = f"{report.charge:,} units charged"
    if report.head is None:
        return (
            f"CONSISTENT: {fit} fit one another ({entries} of ledger {report.ledger_id}): "
            f"{charged}; ε = {report.epsilon_spent:.3f} {limit} spent by all clients by then. "
            "Held against no log: give --log"
        )
    own = (
        ""
        if report.epsilon is None
        else f", ε = {report.epsilon:.3f} {limit}, for these receipts alone (all clients together "
        f"had spent ε = {report.epsilon_spent:.3f} by entry {report.last})"
    )
    head = report.head
    return (
        f"VERIFIED: {fit} fit the log ({entries} of ledger {report.ledger_id}): {charged}{own}; "
        f"head: entry {head.entry}, {head.entry_hash.hex()}"
    )
