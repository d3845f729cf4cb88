"""Data are never run: nothing is unpickled, evaluated or imported by what a file or a message says.

Read from the syntax tree, so that an alias or a line break hides nothing.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "deploy", "examples", "ktan", "privacy", "protos", "student_client",
           "teacher_server")  # fmt: skip
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
ALLOWED = {
    # Runs public code beside ours, to compare with it, from a copy that its caller names.
    "benchmarks/peers/public_code.py": {"compile", "exec"},
}

MODULES = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
    "torch.package",
}
BUILT_IN = {"__import__", "compile", "eval", "exec"}
UNPICKLING = {
    "all_gather_object", "broadcast_object_list", "gather_object", "jit.load", "hub.load",
    "read_pickle", "scatter_object_list", "to_pickle", "torch.save", "unsafe_load", "yaml.load",
}  # fmt: skip


def _dotted(node):
    """`a.b.c` of an expression; what it is an attribute of may be anything."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _constant(call, name):
    values = [word.value for word in call.keywords if word.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def _unpickles(name, call):
    if name == "torch.load":
        return _constant(call, "weights_only") is not True
    ours = name.startswith("safetensors.")
    return not ours and any(f".{name}".endswith(f".{risky}") for risky in UNPICKLING)


def _imported(tree):
    """Local name → what it is, for everything that is imported by name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _found(code):
    """What in `code` would run data."""
    tree = ast.parse(code)
    imported = _imported(tree)
    for module in imported.values():
        parts = module.split(".")
        heads = {".".join(parts[: length + 1]) for length in range(len(parts))}
        yield from sorted(heads & MODULES)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        local = _dotted(call.func)
        head, dot, rest = local.partition(".")
        name = imported.get(head, head) + dot + rest
        if (local in BUILT_IN and local not in imported) or _unpickles(name, call):
            yield name
        allowed = [word for word in call.keywords if word.arg == "allow_pickle"]
        if allowed and _constant(call, "allow_pickle") is not False:
            yield "allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_are_run(path):
    found = set(_found(path.read_text(encoding="utf-8")))
    assert found == ALLOWED.get(str(path.relative_to(ROOT)), set())


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from multiprocessing.reduction import x; import _pickle",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch\ntorch.load(\n    path,\n    weights_only=sure)",
        "import torch.package",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=allowed)",
        "import torch.distributed as dist\ndist.all_gather_object(a, b)",
        "from yaml import load\nload(text)",
        "import pandas\npandas.read_pickle(path)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
    ],
)
def test_what_would_run_data_is_found(code):
    assert list(_found(code))


def test_what_only_looks_like_it_is_not():
    code = (
        "import re, numpy as np, safetensors.torch, torch\nnetwork.eval()\nre.compile(x)\n"
        "torch.compile(x)\nnp.load(path, allow_pickle=False)\nsafetensors.torch.load(content)\n"
        "torch.load(path, weights_only=True)\n"
    )
    assert list(_found(code)) == []
