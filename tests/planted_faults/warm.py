"""A process that runs a suite in a fork of itself, as often as it is asked.

What all suites need of others' code is imported once. Our own modules are imported by each fork
anew, so that what is broken in one is whole in the next.

Reads a suite a line, as JSON: `arguments` of pytest, the file that gets its `output`, and the
folder `examples` of hypothesis. Answers with a line, the exit code.
"""

import importlib
import json
import os
import sys
from typing import Any, Final, NoReturn

import pytest

OURS: Final = ("ktan", "privacy", "protos", "student_client", "teacher_server")
_OTHERS: Final = (
    "cryptography.x509", "google.protobuf", "grpc", "opacus", "psycopg", "safetensors.torch",
    "scipy.stats", "sqlalchemy.orm", "torch", "torchvision",
)  # fmt: skip
_NOT_BY_PYTEST: Final = 70


def main() -> None:
    """Runs what standard input asks for until it ends."""
    for name in _OTHERS:
        importlib.import_module(name)
    early = [name for name in sys.modules if name.partition(".")[0] in OURS]
    assert not early, f"imported before anything is planted: {early}"
    for line in sys.stdin:
        suite = json.loads(line)
        child = os.fork()
        if not child:
            _run(suite)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(suite: dict[str, Any]) -> NoReturn:
    code = _NOT_BY_PYTEST
    try:
        output = os.open(suite["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = suite["examples"]
        code = int(pytest.main(suite["arguments"]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Not the way out of the process that it was forked from.
        os._exit(code)


if __name__ == "__main__":
    main()
