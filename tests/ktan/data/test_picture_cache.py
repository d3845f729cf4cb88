"""Pictures are decoded once, and a kill loses at most the part under way."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ktan.data.picture_cache import Part, cached_pictures
from ktan.data.pictures import Picture, Shape
from ktan.errors import UserError

SHAPE = Shape(1, 2, 2, resized=False)
ROWS = [np.array([0, 3]), np.array([1, 4]), np.array([2])]


def picture(row: int) -> Picture:
    return Picture(f"picture {row}", b"P5 2 2 255\n" + bytes([row, 10, 20, 30]))


class Reader:
    """Counts what is decoded; `broken` is no picture."""

    def __init__(self, broken: int = -1) -> None:
        self.read: list[int] = []
        self.broken = broken

    def parts(self) -> list[Part]:
        return [Part(rows, lambda rows=rows: self._pictures(rows.tolist())) for rows in ROWS]

    def _pictures(self, rows: list[int]) -> Iterator[Picture]:
        for row in rows:
            self.read.append(row)
            yield Picture(f"picture {row}", b"?") if row == self.broken else picture(row)


def check(folder: Path, reader: Reader) -> None:
    samples = cached_pictures(folder, SHAPE, reader.parts())
    assert samples.shape == (5, 1, 2, 2)
    assert samples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert samples[:, 0, 1, 1].unique().tolist() == [30]


def test_each_part_is_decoded_once(tmp_path: Path) -> None:
    reader = Reader()
    check(tmp_path / "cache", reader)
    check(tmp_path / "cache", reader)
    assert reader.read == [0, 3, 1, 4, 2]


def test_what_is_decoded_before_an_error_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="picture 4 is not a picture"):
        cached_pictures(tmp_path / "cache", SHAPE, Reader(broken=4).parts())
    assert not (tmp_path / "cache" / "samples.npy").exists()
    reader = Reader()
    check(tmp_path / "cache", reader)
    assert reader.read == [1, 4, 2]


@pytest.mark.parametrize("damage", ["pixels", "journal", "file"])
def test_what_is_damaged_before_the_end_is_decoded_again(tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UserError):
        cached_pictures(cache, SHAPE, Reader(broken=2).parts())
    partial, journal = cache / ".samples.partial", cache / "parts.jsonl"
    if damage == "pixels":
        content = bytearray(partial.read_bytes())
        content[-4 * 2] ^= 1  # of row 3, which the first part wrote
        partial.write_bytes(bytes(content))
        expected = [0, 3, 2]
    elif damage == "journal":
        journal.write_text(journal.read_text()[:-20])
        expected = [1, 4, 2]
    else:
        partial.write_bytes(b"")
        expected = [0, 3, 1, 4, 2]
    reader = Reader()
    check(cache, reader)
    assert reader.read == expected
