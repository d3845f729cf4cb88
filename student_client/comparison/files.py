"""What a comparison leaves behind: the table as Markdown, CSV and JSON, and its picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ktan.durable import write_durably
from student_client.comparison.picture import draw
from student_client.comparison.table import Facts, Row, row_json
from student_client.comparison.text import markdown_text

MARKDOWN: Final = "comparison.md"
CSV: Final = "comparison.csv"
JSON: Final = "comparison.json"
PICTURE: Final = "comparison.png"


def write_table(out: Path, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Writes all four, each whole or not at all; returns the content of the JSON."""
    content = table_json(rows, facts)
    write_durably(out / MARKDOWN, markdown_text(rows, facts).encode())
    write_durably(out / CSV, _csv(content["rows"]).encode())
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_durably(out / JSON, text.encode())
    draw(rows, facts, out / PICTURE)
    return content


def table_json(rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Everything there is to know: the rows with each seed's figures, and what they share."""
    return {
        **asdict(facts),
        "rows": [
            {
                **row_json(row, facts),
                "accuracies": {str(seed): value for seed, value in row.accuracies.items()},
                "differences": {str(seed): value for seed, value in row.differences.items()},
                "provenance": row.privacy.to_json(),
            }
            for row in rows
        ],
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    nested = ("accuracies", "differences", "provenance")
    flat = [{key: value for key, value in row.items() if key not in nested} for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()
