"""Public implementations, run where they lie: nothing of theirs is a part of this project.

`--repositories DIR` holds clones, a folder each by the repository's own name (`RepDistiller`,
`mdistiller`, …); torchdistill is imported as the package that it is. Of a file only the classes
and functions that are asked for are run, so that a repository's own imports, command lines and
file handling stay out.
"""

import ast
import importlib.metadata
import importlib.util
import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ktan.errors import UserError

REPOSITORIES = {
    "RepDistiller": "HobbitLong/RepDistiller",
    "mdistiller": "megvii-research/mdistiller",
    "Knowledge-Distillation-Zoo": "AberHu/Knowledge-Distillation-Zoo",
    "AB_distillation": "bhheo/AB_distillation",
    "pytorch-be-your-own-teacher": "luanyunteng/pytorch-be-your-own-teacher",
    "MEAL": "AaronHeee/MEAL",
}
"""Folder → its name on GitHub."""


@dataclass(frozen=True)
class PublicCode:
    """Where the clones are."""

    repositories: Path

    def take(
        self,
        repository: str,
        file: str,
        *names: str,
        given: Mapping[str, Any] | None = None,
    ) -> Any:
        """The named top-level classes and functions of one file; one alone, or a tuple.

        `given`: what else the file imports, by the name that it has there. Raises UserError when
        the clone or a name is not there.
        """
        path = self.repositories / repository / file
        if not path.is_file():
            raise UserError(
                f"{path} is not there; clone {REPOSITORIES[repository]} into "
                f"{self.repositories}, or name its parent with --repositories"
            )
        # What these files import at their top, under the names that they give it.
        space: dict[str, Any] = {
            "torch": torch, "nn": nn, "F": F, "np": np, "math": math,
            "Function": torch.autograd.Function, **(given or {}),
        }  # fmt: skip
        exec(_only(path, names), space)
        found = tuple(space[name] for name in names)
        return found[0] if len(found) == 1 else found

    def torchdistill(self, module: str) -> Any:
        """A module of torchdistill, by its name below the package.

        Raises UserError when it is not installed.
        """
        try:
            return importlib.import_module(f"torchdistill.{module}")
        except ModuleNotFoundError as error:
            raise UserError(
                f"{error}; install torchdistill, pyyaml and cython into an environment of their "
                "own beside this project's, and run this with its Python"
            ) from error

    def versions(self) -> dict[str, str]:
        """Of torch and of all public code that is there."""
        found = {"torch": torch.__version__.partition("+")[0]}
        if importlib.util.find_spec("torchdistill") is not None:
            found["torchdistill"] = importlib.metadata.version("torchdistill")
        return {**found, **self.commits()}

    def commits(self) -> dict[str, str]:
        """GitHub name → commit of the clone, of those that are there."""
        return {
            name: _commit(self.repositories / folder)
            for folder, name in REPOSITORIES.items()
            if (self.repositories / folder / ".git").exists()
        }


def _only(path: Path, names: tuple[str, ...]) -> CodeType:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names
    ]
    missing = set(names) - {node.name for node in kept}
    if missing:
        raise UserError(f"{path} has no {', '.join(sorted(missing))}; take the commit of the notes")
    return compile(ast.Module(list(kept), []), str(path), "exec")


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
