"""The inputs of the reference values, and the book that they are written into."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SHAPES = ((2, 4, 4, 4), (2, 5, 4, 4), (2, 6, 2, 2))
STAGES = (6, 5)

Inputs = dict[str, Tensor]
Loss = Callable[[Inputs], Tensor]


@dataclass
class Book:
    """The inputs and the values so far."""

    inputs: Inputs
    entries: list[dict[str, Any]] = field(default_factory=list)

    def write(
        self,
        method: str,
        source: str,
        options: dict[str, Any],
        loss: Loss,
        note: str = "",
        **more: Any,
    ) -> None:
        """One loss, with its gradient's L2 norm with respect to each of the student's inputs."""
        students = {
            name: value.clone().requires_grad_(True)
            for name, value in self.inputs.items()
            if name.startswith("student") and value.is_floating_point()
        }
        value = loss({**self.inputs, **students})
        value.backward()  # type: ignore[no-untyped-call]
        gradients = {
            name: tensor.grad.norm().item()
            for name, tensor in students.items()
            if tensor.grad is not None
        }
        entry = {"method": method, "source": source, "options": options, "value": value.item()}
        self.entries.append(
            {**entry, "gradient_norms": gradients, **({"note": note} if note else {}), **more}
        )


def make_inputs() -> Inputs:
    """Fixed small tensors, of few digits so that JSON holds them exactly enough.

    `*_before_I` are maps before their activation, `*_map_I` the same after a ReLU.
    """
    generator = torch.Generator().manual_seed(20260)

    def normal(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) * 1000).round() / 1000

    inputs: Inputs = {
        "student_logits": normal(4, 5) * 2,
        "teacher_logits": normal(4, 5) * 3,
        "labels": torch.tensor([0, 3, 1, 4]),
    }
    for who in ("student", "teacher"):
        for number, shape in enumerate(SHAPES, start=1):
            before = normal(*shape)
            inputs[f"{who}_before_{number}"] = before
            inputs[f"{who}_map_{number}"] = before.clamp(min=0)
    for number in (1, 2, 3):
        inputs[f"student_exit_logits_{number}"] = normal(4, 5)
        inputs[f"student_exit_feature_{number}"] = normal(4, 6).clamp(min=0)
    for who in ("student", "teacher"):
        for number, size in enumerate(STAGES, start=1):
            inputs[f"{who}_stage_{number}"] = normal(4, size)
    for layer, (after, before_it) in enumerate(((3, 6), (2, 3), (2, 2)), start=1):
        inputs[f"discriminator_weight_{layer}"] = normal(after, before_it)
        inputs[f"discriminator_bias_{layer}"] = normal(after)
    return {name: value.contiguous() for name, value in inputs.items()}


def maps(inputs: Inputs, who: str, what: str = "map") -> list[Tensor]:
    """Those of all stages."""
    return [inputs[f"{who}_{what}_{number}"] for number in range(1, len(SHAPES) + 1)]


def compact(content: dict[str, Any]) -> str:
    """JSON with one input or one value a line."""
    parts = []
    for key, part in content.items():
        if isinstance(part, dict):
            rows = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in part.items()]
            parts.append(f" {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n }")
        elif isinstance(part, list):
            rows = [f"  {json.dumps(value)}" for value in part]
            parts.append(f" {json.dumps(key)}: [\n" + ",\n".join(rows) + "\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(part)}")
    return "{\n" + ",\n".join(parts) + "\n}"
