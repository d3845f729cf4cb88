"""What public implementations make of small fixed inputs: values to compare ours with.

`reference_values.json` is written by `python -m benchmarks.peers.reference_values`, which needs the
public code; this needs the file alone.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_FILE = Path(__file__).with_name("reference_values.json")


class Reference(NamedTuple):
    """One value of one public implementation."""

    value: float
    gradient_norms: dict[str, float]
    """Name of a student's input → L2 norm of the loss's gradient with respect to it."""
    more: dict[str, Any]
    """Options, notes, and what else stands there (`entropy_of_target`, `teacher_signs`)."""


def reference(method: str, source: str, **options: object) -> Reference:
    """The one entry of a method whose source contains `source` and whose options are these."""
    found = [
        entry
        for entry in _content()["values"]
        if entry["method"] == method
        and source in entry["source"]
        and options.items() <= entry["options"].items()
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} values of {method}, {source}, {options}")
    (entry,) = found
    return Reference(entry["value"], entry["gradient_norms"], entry)


def inputs() -> dict[str, Tensor]:
    """Name → a new tensor: `student_logits` and `teacher_logits` [4, 5], `labels` [4],
    `student_map_I`, `teacher_map_I` (after a ReLU) and `…_before_I` (before it) of stages 1 to 3,
    [2, 4, 4, 4], [2, 5, 4, 4] and [2, 6, 2, 2]; BYOT's exits, MEAL's stages and discriminator."""
    content = _content()
    found = {
        name: torch.tensor(values).reshape(content["shapes"][name])
        for name, values in content["inputs"].items()
    }
    return {**found, "labels": found["labels"].long()}


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content
