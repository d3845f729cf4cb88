"""Who may read what is written."""

import os
import stat
from pathlib import Path

from ktan.durable import write_durably


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_mode_is_the_files_from_its_first_byte_on(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        secret, plain = tmp_path / "secret", tmp_path / "plain"
        write_durably(plain, b"one")
        write_durably(secret, b"one", mode=0o600)
        assert (mode(plain), mode(secret)) == (0o644, 0o600)
        # Nor does it inherit what was there.
        plain.rename(secret)
        left = tmp_path / f".secret.{os.getpid()}.tmp"
        left.write_bytes(b"of a crash")
        write_durably(secret, b"two", mode=0o600)
        assert mode(secret) == 0o600
    finally:
        os.umask(before)
    assert secret.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [secret]
