"""A clock of the servers' own, which a scenario may turn."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Seconds by which servers are ahead of the system's time of day.

    They are told by a file that they map, and by a library that is loaded before any other.
    """

    def __init__(self, folder: Path) -> None:
        """Compiles the library. Raises FileNotFoundError where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise FileNotFoundError("turning a process's clock takes a C compiler, cc")
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        self.turn(0)
        line = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE)]
        subprocess.run(line, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with, to have this clock."""
        return {"LD_PRELOAD": str(self._library), "KTAN_CLOCK": str(self._file)}

    def turn(self, forward: int) -> None:
        """Sets it so many seconds forward of the system's, at once and from then on."""
        # In place and in one write: whoever maps the file sees either number.
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", forward))
