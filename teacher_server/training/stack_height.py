"""How many teachers are best trained as one stacked computation: a rule, from measurements.

It looks at public settings only, and at nothing that differs between two machines of one kind, so
that an interrupted training goes on with the stacks that it began with. Figures are in
docs/teachers.md; `make bench-ensemble` measures them.
"""

import torch

from ktan.networks import NetworkSpec, multiply_adds
from ktan.teachers.stack import Stack

_CPU_TEACHERS = 25
"""Of a small network: more of them gain nothing, fewer are more stacks for more cores."""
_CPU_WORTH_STACKING = 3e6
"""Multiply-adds of one sample, from which a core is busy enough with one network at a time."""
_GPU_BYTES = 4 * 2**30
"""What a stack's activations may take, forward and kept for backward; GPUs have more."""


def stack_height(spec: NetworkSpec, batch: int, k: int, device: torch.device) -> int:
    """Teachers in a stack, 1 to `k`; 1 trains them one after another.

    `batch`: records in a step of each.
    """
    if device.type == "cpu":
        return min(k, _CPU_TEACHERS) if multiply_adds(spec) < _CPU_WORTH_STACKING else 1
    # On the meta device: what an activation takes is a matter of shapes.
    row = Stack(spec, (), torch.device("cpu")).bytes_a_row
    return max(1, min(k, _GPU_BYTES // (2 * row * batch)))
