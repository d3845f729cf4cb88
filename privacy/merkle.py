"""A hash tree over statements, so that one signature of its root covers each (RFC 6962, 2.1).

    leaf(bytes) = SHA-256(0x00 ‖ bytes)      node(left, right) = SHA-256(0x01 ‖ left ‖ right)

The prefixes keep a node from being passed off as a leaf. With an odd number of nodes the last one
of a level moves up as it is. A path leads from one leaf to the root: per level the sibling's hash,
and the side that it stands on.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

Side = Literal["left", "right"]
InclusionPath = tuple[tuple[Side, bytes], ...]


def leaf(content: bytes) -> bytes:
    """Hash of one statement, 32 bytes."""
    return hashlib.sha256(b"\x00" + content).digest()


def grow(leaves: Sequence[bytes]) -> tuple[bytes, list[InclusionPath]]:
    """The root over at least one leaf, and the path of each; a single leaf is the root itself."""
    paths: list[list[tuple[Side, bytes]]] = [[] for _ in leaves]
    places, level = list(range(len(leaves))), list(leaves)
    while len(level) > 1:
        for number, place in enumerate(places):
            if place & 1:
                paths[number].append(("left", level[place - 1]))
            elif place + 1 < len(level):
                paths[number].append(("right", level[place + 1]))
            places[number] = place >> 1
        moved_up = level[-1:] if len(level) & 1 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_node(left, right) for left, right in pairs] + moved_up
    return level[0], [tuple(path) for path in paths]


def root(start: bytes, path: Iterable[tuple[Side, bytes]]) -> bytes:
    """The root that `path` leads to from the leaf `start`."""
    for side, sibling in path:
        start = _node(sibling, start) if side == "left" else _node(start, sibling)
    return start


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
