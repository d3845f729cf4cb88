"""Digests are found where a plain search finds them first, however they are cut into blocks."""

import numpy as np
import pytest

from ktan.answers import index
from ktan.answers.index import DigestRows, TapIndex, different, joined, keys


def crowded(count: int, seed: int) -> np.ndarray:
    """uint8 [count, 32]: some are equal, and many share their first eight bytes and no more."""
    random = np.random.default_rng(seed)
    pool = random.integers(0, 256, (max(1, count // 2), 32), dtype=np.uint8)
    pool[::3, :8] = pool[0, :8]
    pool[::5, 31] = 0  # numpy takes no notice of the zeros that end a byte string
    return pool[random.integers(0, len(pool), count)]


def first(digest: np.ndarray, among: np.ndarray) -> int:
    places = np.flatnonzero((among == digest).all(axis=1))
    return int(places[0]) if len(places) else -1


@pytest.fixture(params=[1, 7, 1 << 16])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("count", [0, 1, 90])
def test_rows_are_the_first_of_each_digest(count: int) -> None:
    digests = crowded(count, 0)
    wanted = np.concatenate([crowded(30, 1), digests[::-1], crowded(90, 0)])
    wanted[:10, :8] = digests[:1, :8] if count else 0
    found = DigestRows(digests).find(wanted)
    assert found.dtype == np.int64
    assert found.tolist() == [first(digest, digests) for digest in wanted]
    once = [place for place, digest in enumerate(digests) if first(digest, digests) == place]
    np.testing.assert_array_equal(different(digests), digests[once])


@pytest.mark.usefixtures("block")
def test_answers_are_the_first_that_came_of_shards_and_single_requests() -> None:
    files = [crowded(count, seed) for seed, count in enumerate((40, 1, 60, 9, 30))]
    tap = TapIndex()
    for number, digests in enumerate(files):
        if number < 3:
            files[number] = digests[np.argsort(keys(digests), kind="stable")]
            tap.add_shard(number, files[number])
        else:
            tap.add(number, digests)
    wanted = np.concatenate([crowded(20, 9), *files[::-1]])
    numbers, rows = tap.find(wanted)
    for digest, number, row in zip(wanted, numbers.tolist(), rows.tolist(), strict=True):
        hits = [(at, first(digest, file)) for at, file in enumerate(files)]
        assert (number, row) == next((hit for hit in hits if hit[1] >= 0), (-1, -1))
    assert [len(part) for part in tap.find(wanted[:0])] == [0, 0]
    everything = np.unique(np.concatenate([keys(digests) for digests in files]))
    np.testing.assert_array_equal(joined(list(tap.parts())), everything)
