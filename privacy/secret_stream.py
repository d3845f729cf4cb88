"""Secret uniform words: AES-256 in counter mode with fast key erasure.

Every request has a key of its own: the first 32 bytes of its key stream are the next request's key,
the rest is handed out, and the old key is dropped. Whoever reads the memory learns nothing of what
was handed out before (Bernstein 2017, "Fast-key-erasure random-number generators").
"""

import os
import threading
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privacy.after_fork import renew_after_fork

_KEY = 32

BYTES_PER_KEY = 2**17
"""Longest key stream of one key. Its 2¹³ + 2 cipher blocks differ from random ones with advantage
under 2⁻¹⁰² (no two of them are equal), if AES is a random permutation."""

BYTES_PER_ENTROPY = 2**30
"""Bytes after which a key comes from the operating system again."""

_ZEROS = memoryview(bytes(BYTES_PER_KEY))


class SecretStream:
    """Uniform words from the operating system's entropy. Thread-safe; no two callers share a word.

    There is no seed, and no copy: neither pickling nor copying is possible. A forked child starts
    from fresh entropy.
    """

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start again from fresh entropy, as a forked child does."""
        self._chain = _KeyChain()

    def fill(self, out: npt.NDArray[np.unsignedinteger]) -> None:
        """Overwrite `out`, a contiguous array, with uniform bits."""
        if out.size == 0:
            return
        chain = self._chain
        if chain.process != os.getpid():
            # Whoever comes first, each chain has its own key: two threads may both replace it.
            chain = self._chain = _KeyChain()
        target = out.data.cast("B")
        for start in range(0, len(target), BYTES_PER_KEY):
            part = target[start : start + BYTES_PER_KEY]
            chain.next_cipher(len(part)).update_into(_ZEROS[: len(part)], part)

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """`count` uniform words: uint64 [count]."""
        out = np.empty(count, dtype=np.uint64)
        self.fill(out)
        return out

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret stream is never copied: the copy would repeat its words")


class _KeyChain:
    """The chain of keys of one process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._key = os.urandom(_KEY)
        self._left = BYTES_PER_ENTROPY

    def next_cipher(self, size: int) -> CipherContext:
        """A cipher whose key stream, `size` bytes of it, is for one caller alone."""
        with self._lock:
            if self._left < size:
                self._key = os.urandom(_KEY)
                self._left = BYTES_PER_ENTROPY
            self._left -= size
            cipher = Cipher(algorithms.AES(self._key), modes.CTR(bytes(16))).encryptor()
            self._key = cipher.update(bytes(_KEY))
        return cipher
