"""Tables and paragraphs on a screen of fixed width."""

import textwrap
from collections.abc import Sequence

WIDTH = 100


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], left_aligned: Sequence[int] = (0,)
) -> list[str]:
    """A line a row under `head`; columns to the right but for the `left_aligned` ones."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            f"{cell:<{width}}" if column in left_aligned else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def paragraph(label: str, text: str) -> str:
    """`text` beside a label, wrapped at WIDTH."""
    indent = " " * 13
    return textwrap.fill(
        f"{label:<13}{text}",
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def counted(number: int, what: str) -> str:
    """`1 head`, `2 heads`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
