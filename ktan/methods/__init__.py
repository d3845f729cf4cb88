"""Distillation methods, a file each.

A file that sets `METHOD` to its class is a method; nothing else lists it. `METHODS` finds them.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property

from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.method import Method
from ktan.methods.needs import Need
from ktan.methods.objective import STUDENT, Objective, Stage, Term

__all__ = [
    "METHODS",
    "STUDENT",
    "Batch",
    "Binding",
    "Method",
    "Need",
    "Objective",
    "Stage",
    "Term",
    "View",
]


class _Methods(Mapping[str, type[Method]]):
    """Name → class of every method in this folder; read when it is first asked for."""

    def __getitem__(self, name: str) -> type[Method]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @cached_property
    def _found(self) -> dict[str, type[Method]]:
        modules = [
            importlib.import_module(f"{__name__}.{file.name}")
            for file in pkgutil.iter_modules(__path__)
        ]
        kinds = [module.METHOD for module in modules if hasattr(module, "METHOD")]
        return {kind.name: kind for kind in sorted(kinds, key=lambda kind: str(kind.name))}


METHODS: Mapping[str, type[Method]] = _Methods()
