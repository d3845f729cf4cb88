"""A student's forward pass with what its taps see, compiled when asked for."""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ktan.cpp_compiler import require_compiler
from ktan.errors import UserError
from ktan.tap_reader import read_taps


class CompiledPass:
    """torch.compile of the forward pass and its backward pass; compiles at the first call.

    Called with samples of one shape from then on, or it compiles again.
    """

    def __init__(
        self, student: nn.Module, paths: Sequence[str], *, graphs: bool, backend: str = "inductor"
    ) -> None:
        """`graphs`: CUDA graphs, on a GPU. Raises UserError without the compiler it needs."""
        device = next(student.parameters(), torch.empty(0)).device
        if backend == "inductor" and device.type == "cpu":
            require_compiler("--compile", "leave --compile away")
        # Says which module there is not.
        read_taps(student, paths).close()
        self._paths = tuple(paths)
        seen: dict[str, Tensor] = {}
        self._handles = [_keep(student, path, seen) for path in paths]

        def forward(samples: Tensor) -> tuple[Tensor, ...]:
            logits = student(samples)
            return logits, *[seen[path] for path in self._paths]

        mode = "reduce-overhead" if graphs and device.type == "cuda" else None
        # A code object of its own: dynamo compiles one so often, and then runs it as it stands.
        own = FunctionType(
            forward.__code__.replace(), forward.__globals__, closure=forward.__closure__
        )
        self._run = torch.compile(own, backend=backend, mode=mode, dynamic=False)
        self._compiled = False

    def __call__(self, samples: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TapReader.__call__`. Raises UserError for a student that cannot be compiled."""
        try:
            logits, *features = self._run(samples)
        except Exception as error:
            if self._compiled or not type(error).__module__.startswith("torch."):
                raise
            line = str(error).strip().partition("\n")[0]
            raise UserError(
                f"--compile does not work for this student here ({line}); leave it away"
            ) from error
        self._compiled = True
        return logits, dict(zip(self._paths, features, strict=True))

    def close(self) -> None:
        """Takes the hooks off the student."""
        for handle in self._handles:
            handle.remove()


def _keep(student: nn.Module, path: str, seen: dict[str, Tensor]) -> RemovableHandle:
    """Puts into `seen` what a tap of this path reads."""
    modules = dict(student.named_modules())

    def output(_module: nn.Module, _inputs: Any, value: Tensor) -> None:
        seen[path] = value

    def into(_module: nn.Module, inputs: Any) -> None:
        seen[path] = inputs[0]

    if path in modules:
        handle: RemovableHandle = modules[path].register_forward_hook(output)
    else:
        handle = modules[path.removesuffix(".input")].register_forward_pre_hook(into)
    return handle
