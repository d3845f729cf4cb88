"""What can go wrong in the privacy core, sorted by what its user can do about it.

Every message is one line that names the limit, what was asked, what is left and what to change.
No message depends on a private record, a teacher or its outputs.
"""

import errno


class PrivacyError(Exception):
    """Base of every error of `privacy/`; the commands print its message and exit with 2."""


# The custodian asked for something that no mechanism can keep: change the plan.


class InvalidPlan(PrivacyError, ValueError):
    """A budget, a share or a release setting contradicts the promise or itself."""


# The budget is spent: ask less, or stop.


class BudgetExhausted(PrivacyError):
    """A charge would pass a limit; nothing was charged and nothing released.

    `asked`, `left`: in the unit of the limit (charge units of μ²·2⁴⁰, or noise draws).
    `scope`: the limit, as a phrase ("the ledger's answering budget", "the cap of client 'a'").
    """

    def __init__(self, asked: int, left: int, scope: str, remedy: str = "") -> None:
        self.asked = asked
        self.left = left
        self.scope = scope
        self.remedy = remedy
        message = f"{scope} does not cover this request: asked {asked}, left {left}"
        super().__init__(f"{message}; {remedy}" if remedy else message)


# The client's request contradicts an earlier one.


class RequestIdReused(PrivacyError):
    """A request id came again with other content; use a fresh id for a fresh request."""


# The ledger at hand cannot be trusted or is not the right one.


class LedgerError(PrivacyError):
    """Base of the ledger's own errors."""


class LedgerExists(LedgerError):
    """The data set already has a ledger; it is never given a second one."""


class LedgerMissing(LedgerError):
    """There is no ledger at this place; opening never creates one."""


class LedgerMismatch(LedgerError):
    """The ledger belongs to another data set, plan or schema."""


class LedgerCorrupt(LedgerError):
    """An entry does not fit its hash, its number or its predecessor."""


class LedgerInUse(LedgerError):
    """Another process has this ledger open for writing; there is exactly one writer."""


class LedgerUnreachable(LedgerError):
    """The server with the ledger's tables does not answer; nothing was charged."""


class LedgerUnreadable(LedgerError):
    """A look at the ledger's tables failed; nothing was charged, and nothing has stopped."""


class LedgerFault(LedgerError):
    """A charge could not be made durable, or it is not known whether it was.

    Nothing was released. The ledger takes no further charge until it is opened again, which looks
    at what is on disk first; the same request id then finds its answer, or is charged once.
    """


class LedgerRolledBack(BudgetExhausted):
    """The ledger is, or may be, an old copy: what is left is unknown, and counts as nothing.

    `scope` is "rollback", `left` is 0.
    """

    def __init__(self, asked: int, why: str) -> None:
        super().__init__(asked, 0, "rollback")
        self.args = (f"the ledger takes no charge: {why}",)


# A signed statement does not hold.


class SignatureInvalid(PrivacyError):
    """A receipt or a head was not signed by this ledger, or was changed since."""


class KeyNotEndorsed(SignatureInvalid):
    """A ledger's key was not signed for by the one before it. `entry`: where it was to begin."""

    def __init__(self, message: str, entry: int | None = None) -> None:
        super().__init__(message)
        self.entry = entry


_PASSING = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.ETIMEDOUT, errno.EAGAIN,
        errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip


def may_pass(error: Exception) -> bool:
    """Whether the system refused for a time: storage that is full or away, say, or the ledger's
    database. Who started the command may start it again as it was."""
    if isinstance(error, LedgerUnreachable):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def plainly(error: Exception) -> str:
    """What a command prints of an error; a file's without the number that the system gives it."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"there is nothing at {error.filename}"
    return f"{error.filename}: {error.strerror}"
