"""How a command says that what it checked does not hold."""

import sys
from typing import NoReturn


def fail(why: str) -> NoReturn:
    """One line to stderr, exit code 1."""
    print(f"privacy-audit: {why}", file=sys.stderr)
    sys.exit(1)
