"""What a verification can find."""

from dataclasses import dataclass, field
from typing import Literal

ViolationKind = Literal[
    "unreadable",
    "edited",
    "dropped",
    "repeated",
    "reordered",
    "truncated",
    "forked",
    "unsigned",
    "key",
    "receipt",
    "accounts",
    "plan",
    "tables",
]


@dataclass(frozen=True)
class Violation:
    """One thing that must not be. `entry`: the number of the entry concerned, None for the log."""

    kind: ViolationKind
    entry: int | None
    message: str


@dataclass
class Findings:
    """Collects what is wrong, each thing once."""

    found: list[Violation] = field(default_factory=list)

    def add(self, kind: ViolationKind, entry: int | None, message: str) -> None:
        """Notes a violation."""
        violation = Violation(kind, entry, message)
        if violation not in self.found:
            self.found.append(violation)

    def concerns(self, *entries: int) -> bool:
        """True when something was found about one of these entries."""
        return any(violation.entry in entries for violation in self.found)
