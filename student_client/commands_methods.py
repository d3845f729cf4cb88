"""`student-client methods`: every method, what it needs of a teacher, and its options."""

from __future__ import annotations

import inspect
import json as jsonlib
import sys
import textwrap
from typing import Annotated, Any

from cyclopts import Parameter

from ktan.methods import METHODS
from ktan.methods.combination import method_options
from student_client.describe import WIDTH


def list_methods(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List all distillation methods: the paper, what each needs of a teacher, its options.

    `train --method NAME --method-set OPTION=VALUE` takes them; several are joined by +. Needs are
    those of the default options. `describe` says which of them one service can serve.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    found = {name: _facts(name) for name in METHODS}
    if json:
        print(jsonlib.dumps(found, indent=2, ensure_ascii=False))
        return
    print("\n\n".join(_text(name, facts) for name, facts in found.items()))


def _facts(name: str) -> dict[str, Any]:
    kind = METHODS[name]
    method = kind()
    about = inspect.getdoc(sys.modules[kind.__module__]) or ""
    return {
        "about": " ".join(about.partition("\n\n")[0].split()),
        "needs": [need.text for need in method.needs],
        "options": method_options(method),
    }


def _text(name: str, facts: dict[str, Any]) -> str:
    options = ", ".join(f"{option}={value}" for option, value in facts["options"].items())
    return "\n".join(
        [
            _labelled(name, facts["about"]),
            _labelled("  needs", " and ".join(facts["needs"]) or "no teacher"),
            _labelled("  options", options or "none"),
        ]
    )


def _labelled(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{label:<18}",
        subsequent_indent=" " * 18,
        break_on_hyphens=False,
    )
