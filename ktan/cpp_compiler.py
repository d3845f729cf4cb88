"""What torch.compile needs beside torch to compile for a CPU."""

import os
import shutil
import sys

from ktan.errors import UserError


def require_compiler(what: str, instead: str) -> None:
    """Raises UserError without the C++ compiler that torch.compile calls.

    That is what CXX names, else g++ (clang++ on a Mac). `what` needs it; `instead` is what to do
    without it.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise UserError(
            f"{what} needs a C++ compiler, and {name} is not here; install one (CXX names it), "
            f"or {instead}"
        )
