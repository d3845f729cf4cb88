"""Facts on the custodian's screen, for people or as one JSON object."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from typing import Any


def print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """One line a fact, its name first; or all of them as one line of JSON."""
    if as_json:
        print(jsonlib.dumps(facts, default=str), flush=True)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if isinstance(value, dict):
            lines = [f"{key}: {_plain(item)}" for key, item in value.items()]
        else:
            lines = [_plain(value)]
        for number, line in enumerate(lines or ["none"]):
            label = name.replace("_", " ") if number == 0 else ""
            print(f"{label:<{width}}  {line}", flush=True)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)
