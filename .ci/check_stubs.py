"""Fails when the checked-in stubs are not what `make proto` would write."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

STUBS = ("teacher_pb2.py", "teacher_pb2.pyi", "teacher_pb2_grpc.py")


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as fresh:
        outputs = [f"--{kind}_out={fresh}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{root}", *outputs, "protos/teacher.proto"]) != 0:
            return 1
        stale = [
            name
            for name in STUBS
            if (Path(fresh) / "protos" / name).read_bytes() != (root / "protos" / name).read_bytes()
        ]
    if stale:
        print(f"stale stubs: {', '.join(stale)}: run `make proto`", file=sys.stderr)
        return 1
    print("stubs are what make proto writes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
