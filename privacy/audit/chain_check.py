"""The chain by itself: is every entry there once, in order, and unchanged?"""

from collections.abc import Iterable

from privacy.audit.log import Recorded
from privacy.audit.violations import Findings


def order(recorded: Iterable[Recorded], findings: Findings) -> dict[int, Recorded]:
    """Entries by number, in order; reports what is repeated, out of order or missing."""
    chain: dict[int, Recorded] = {}
    highest, moved = -1, False
    for item in recorded:
        number = item.entry.number
        if number in chain:
            first = chain[number]
            if first.hash == item.hash:
                findings.add("repeated", number, f"entry {number} stands in the log twice")
            else:
                findings.add(
                    "forked",
                    number,
                    f"the log holds two different entries {number} (lines {first.line} and "
                    f"{item.line}): two histories were mixed",
                )
            continue
        chain[number] = item
        if number < highest and not moved:
            moved = True
            findings.add(
                "reordered",
                number,
                f"entry {number} stands after entry {highest}: the log was reordered",
            )
        highest = max(highest, number)
    chain = dict(sorted(chain.items()))
    expected = 0
    for number in chain:
        if number == expected + 1:
            findings.add("dropped", expected, f"entry {expected} is missing: it was dropped")
        elif number > expected:
            findings.add(
                "dropped",
                expected,
                f"entries {expected} to {number - 1} are missing: they were dropped",
            )
        expected = number + 1
    if not chain:
        findings.add("truncated", 0, "the log has no entry at all, not even the opening one")
    return chain


def check_links(chain: dict[int, Recorded], findings: Findings) -> None:
    """Reports every entry that does not fit its own hash or its predecessor's."""
    for number, item in chain.items():
        if item.hash != item.recorded_hash:
            findings.add(
                "edited",
                number,
                f"entry {number} was edited: its content does not hash to what is written "
                "beside it",
            )
        before = chain.get(number - 1)
        if before is None:
            continue
        if item.entry.previous not in (before.hash, before.recorded_hash):
            findings.add(
                "edited",
                number,
                f"entry {number} does not follow entry {number - 1}: one of them was replaced, or "
                "entries between them were dropped and the rest numbered anew",
            )
        elif item.entry.previous != before.hash and not findings.concerns(number - 1):
            findings.add("edited", number - 1, f"entry {number - 1} was edited")
