"""Handing a ledger over to a new signing key, whole or not at all.

    1  the new key goes to `signing-key.next.pem`, on disk before anything names it
    2  one durable transaction: an entry of kind "key", endorsed by the old key; the head after it
       is signed by the new one (group.py)
    3  the old key is overwritten, the public key replaced, the new file takes its place

A crash before 2 leaves a key that nothing names: it is thrown away. A crash after 2 leaves two key
files, and the chain says which one signs: 3 is done again. Both happen when the ledger is opened.

Overwriting does what a program can do. It reaches no copy: not those of a file system that writes
elsewhere (copy-on-write, flash), not snapshots, not backups, not other replicas' folders. What
makes a copy of an old key harmless is that it signs for no entry after the rotation.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privacy.errors import LedgerInUse, LedgerMismatch
from privacy.ledger.durable import create_durably, replace_durably, sync_folder
from privacy.ledger.keys import PUBLIC_KEY, SIGNING_KEY, LedgerKeys, public_pem

NEXT_KEY: Final = "signing-key.next.pem"
_LOCK: Final = ".rotation.lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps every other process from rotating, or settling a rotation, in this folder."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def unfinished(folder: Path) -> bool:
    """True when a rotation was begun here and not settled."""
    return (folder / NEXT_KEY).exists()


def prepare(folder: Path, keys: LedgerKeys) -> LedgerKeys:
    """Step 1: the ledger's keys with a fresh signing key, which is on disk.

    Raises LedgerInUse when another rotation has got as far.
    """
    fresh = keys.with_fresh_signing_key()
    try:
        create_durably(folder / NEXT_KEY, fresh.signing_pem(), mode=0o600)
    except FileExistsError:
        raise LedgerInUse(
            f"{folder / NEXT_KEY} is there: another rotation is under way, or ended in the middle; "
            "open the ledger for writing once, which finishes it"
        ) from None
    return fresh


def settle(folder: Path, current: bytes) -> None:
    """Step 3, or what is left of it. Can be done again; does nothing where there is no new key.

    current: the raw public key that signs, as the ledger's chain has it while nobody writes it:
    a key that a commit under way is about to name must not be thrown away.
    """
    waiting = folder / NEXT_KEY
    if not waiting.exists():
        return
    if LedgerKeys.read_signing(waiting).public_key().public_bytes_raw() != current:
        # Nothing names it: it never signed anything.
        _overwrite(waiting)
        waiting.unlink()
        sync_folder(folder)
        return
    with contextlib.suppress(FileNotFoundError):
        _overwrite(folder / SIGNING_KEY)
    replace_durably(folder / PUBLIC_KEY, public_pem(current))
    os.replace(waiting, folder / SIGNING_KEY)
    sync_folder(folder)


def read_keys(folder: Path, current: bytes) -> LedgerKeys:
    """The ledger's keys, in the middle of a rotation too: those whose public key is `current`.

    Raises LedgerMismatch when no key file in `folder` is the one that signs now.
    """
    with contextlib.suppress(LedgerMismatch):
        keys = LedgerKeys.read(folder)
        if keys.public == current:
            return keys
    if (folder / NEXT_KEY).exists():
        keys = LedgerKeys.read(folder, NEXT_KEY)
        if keys.public == current:
            return keys
    # Whatever is wrong with the file that should hold it is said by reading it again.
    LedgerKeys.read(folder)
    raise LedgerMismatch(
        f"the key files in {folder} are not those that sign for this ledger now: restore its own; "
        "where its key was rotated on another host, copy signing-key.pem and public-key.pem from "
        "there"
    )


def _overwrite(path: Path) -> None:
    """Zeros in place of the content, on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
