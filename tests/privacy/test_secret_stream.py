"""Every word once, under keys that are erased; nothing shared with a child, a copy or a thread."""

import copy
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy import secret_stream
from privacy.secret_stream import BYTES_PER_KEY, SecretStream


def key_stream(key: bytes, size: int) -> bytes:
    """AES-256 of the counters 0, 1, 2, ..., block by block."""
    blocks = b"".join(number.to_bytes(16, "big") for number in range(-(-size // 16)))
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)[:size]


def test_each_request_has_the_next_key_of_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(size)))
    stream = SecretStream()
    key = bytes(range(32))
    for size in (1, 5, 1000):
        expected = key_stream(key, 32 + 8 * size)
        assert stream.words(size).tobytes() == expected[32:]
        key = expected[:32]
    # A long request takes as many keys as it needs.
    first = key_stream(key, 32 + BYTES_PER_KEY)
    second = key_stream(first[:32], 32 + 8)
    assert stream.words(BYTES_PER_KEY // 8 + 1).tobytes() == first[32:] + second[32:]


def test_memory_holds_nothing_of_what_was_handed_out() -> None:
    stream = SecretStream()
    before = stream._chain._key
    words = stream.words(4)
    assert stream._chain._key != before
    held = [value for value in vars(stream._chain).values() if isinstance(value, bytes)]
    assert held == [stream._chain._key]
    assert words.tobytes()[:16] not in stream._chain._key


def test_the_key_comes_from_the_operating_system_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = os.urandom

    def counted(size: int) -> bytes:
        asked.append(size)
        return real(size)

    monkeypatch.setattr(os, "urandom", counted)
    monkeypatch.setattr(secret_stream, "BYTES_PER_ENTROPY", 1024)
    stream = SecretStream()
    for _ in range(10):
        stream.words(64)
    assert asked == [32] * 5


def test_words_are_uniform_and_fill_every_kind_of_array() -> None:
    """Each of the 64 bits within 6.5 standard deviations of half: 64 tests at 8e-11."""
    words = SecretStream().words(100_000)
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).sum(axis=0, dtype=np.int64)
    assert np.abs(bits - 50_000).max() < 6.5 * 0.5 * 100_000**0.5
    small = np.zeros(3, dtype=np.uint32)
    SecretStream().fill(small)
    assert small.any()
    SecretStream().fill(small[:0])
    with pytest.raises((TypeError, ValueError)):
        SecretStream().fill(np.zeros(8, dtype=np.uint32)[::2])


def test_no_two_streams_and_no_two_threads_share_a_word() -> None:
    """Two of 160,000 words of 64 bits are equal by chance with probability 7e-10."""
    stream, found = SecretStream(), []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [
        threading.Thread(target=lambda: found.extend(stream.words(50).tolist() for _ in range(200)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    found.extend(SecretStream().words(10_000).tolist() for _ in range(8))
    words = [word for part in found for word in part]
    assert len(words) == len(set(words)) == 160_000


def test_a_process_that_forked_unseen_gets_a_key_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """os.getpid alone gives it away, where no fork handler ran."""
    stream = SecretStream()
    stream.words(1)
    key = stream._chain._key
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert stream.words(4).tobytes() != key_stream(key, 64)[32:]
    assert stream._chain._key != key_stream(key, 32)


FORK = """
import os, sys, time
from privacy.secret_stream import BYTES_PER_ENTROPY, SecretStream
from privacy.noise import RoundedGaussian
from privacy.noise_reservoir import NoiseReservoir
reservoir, stream = NoiseReservoir(RoundedGaussian(), 2**12), SecretStream()
sources = {
    "stream": stream.words,
    "sampler": RoundedGaussian().sample,
    "reservoir": reservoir.sample,
}
for draw in sources.values():
    draw(8)
while reservoir._stock._held < 2**12 - 8:
    time.sleep(0.001)
read, write = os.pipe()
child = os.fork() == 0
if child:
    # Before anything is drawn: the parent's key and noise are not in this process's memory.
    assert reservoir._stock is None
    assert stream._chain.process == os.getpid() != os.getppid()
    assert stream._chain._left == BYTES_PER_ENTROPY
for name, draw in sources.items():
    os.write(write, f"{name} {child} {draw(32).tolist()}\\n".encode())
if child:
    os._exit(0)
assert os.wait()[1] == 0
os.close(write)
sys.stdout.write(os.fdopen(read).read())
"""


def test_a_child_and_its_parent_draw_differently() -> None:
    """Equal words by chance: under 2⁻⁴⁰ even for four equal draws of σ = 2²⁰ in one place."""
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=240, check=True
    )
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == 6, done.stdout + done.stderr
    for child, parent in zip(lines[::2], lines[1::2], strict=True):
        name = child.split(" ")[0]
        assert parent.startswith(name)
        draws = [
            [int(x) for x in line.split("[")[1].rstrip("]").split(",")] for line in (child, parent)
        ]
        assert len(draws[0]) == len(draws[1]) == 32
        alike = sum(a == b for a, b in zip(*draws, strict=True))
        assert alike < 4, name
        assert len(set(map(tuple, draws))) == 2


def test_a_stream_is_never_copied_and_shows_nothing() -> None:
    stream = SecretStream()
    key = stream._chain._key
    assert key.hex() not in repr(stream)
    assert repr(key) not in repr(stream)
    for attempt in (copy.copy, copy.deepcopy, lambda x: x.__reduce_ex__(2)):
        with pytest.raises(TypeError, match="never copied"):
            attempt(stream)
