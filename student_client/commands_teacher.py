"""`student-client describe` and `budget`: what a service offers, and what is left of its budget."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from student_client.connection_options import WIRE, Flag, Wire
from student_client.describe import budget_json, budget_text, describe_text
from student_client.description import to_json
from student_client.remote import RemoteTeacher


def describe(address: str, *, connection: Wire = WIRE, json: Flag = False) -> None:
    """Show a teacher service: its taps with their noise and price, the methods that they serve,
    promise and budget. Free.

    Parameters
    ----------
    address
        HOST:PORT of the service.
    json
        Print one JSON object.
    """
    with RemoteTeacher(address, connection) as teacher:
        description = teacher.describe()
    if json:
        state = budget_json(description.budget, description.promise)
        _print_json({**to_json(description), "budget": state})
    else:
        print(describe_text(description))


def budget(address: str, *, connection: Wire = WIRE, json: Flag = False) -> None:
    """Show what was spent of a service's privacy budget and what is left. Free.

    Parameters
    ----------
    address
        HOST:PORT of the service.
    json
        Print one JSON object.
    """
    with RemoteTeacher(address, connection) as teacher:
        state, promise = teacher.budget()
    if json:
        _print_json(budget_json(state, promise))
    else:
        print(budget_text(state, promise))


def _print_json(content: dict[str, Any]) -> None:
    print(jsonlib.dumps(content, indent=2, ensure_ascii=False))
