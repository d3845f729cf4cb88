"""No byte of a log can change, no line go, no two lines swap, without the log itself telling.

Without receipts or heads from outside: only who holds the signing key could hide it from here on.
"""

from itertools import combinations, permutations

import pytest

from privacy.errors import PrivacyError

STEP = 5


def told(case, lines: list[bytes]) -> bool:
    """It does not verify, or is no log at all."""
    try:
        return not case.check(lines).sound
    except PrivacyError:
        return True


@pytest.mark.parametrize("offset", range(STEP))
def test_every_byte(original, offset) -> None:
    """One bit of every byte, a fifth of them at a time; the lowest bit keeps digits digits."""
    for number, line in enumerate(original.lines):
        for place in range(offset, len(line), STEP):
            changed = bytearray(line)
            changed[place] ^= 1
            lines = [*original.lines[:number], bytes(changed), *original.lines[number + 1 :]]
            assert told(original, lines), (number, place, line[place - 20 : place + 20])


def test_every_set_of_lines_but_the_whole(original) -> None:
    count = len(original.lines)
    for left in range(count):
        for kept in combinations(range(count), left):
            assert told(original, [original.lines[number] for number in kept]), kept
    assert not told(original, original.lines)


def test_every_line_twice_and_every_two_exchanged(original) -> None:
    for first, second in permutations(range(len(original.lines)), 2):
        lines = list(original.lines)
        lines[first] = original.lines[second]
        assert told(original, lines), (first, second)
        lines[second] = original.lines[first]
        assert told(original, lines), (first, second)
        lines = list(original.lines)
        lines.insert(first, original.lines[second])
        assert told(original, lines), (first, second)
