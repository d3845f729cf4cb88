"""Large tensors lie in files without a name, and are what they would be in memory."""

import os
from pathlib import Path

import pytest
import torch

from ktan import spool
from ktan.errors import UserError
from ktan.selection import k_centre, margin_k_centre


@pytest.fixture
def everything_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spool, "LIMIT", 0)
    monkeypatch.setattr(spool, "_BLOCK", 100)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.mark.usefixtures("everything_on_disk")
def test_rows_on_disk_are_the_rows_in_memory(tmp_path: Path) -> None:
    samples = torch.randn(50, 3, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([4, 4, 49, 0, *range(30)])
    found = spool.taken(samples, rows)
    assert torch.equal(found, samples[rows])
    mask = torch.arange(50) % 3 == 0
    assert torch.equal(spool.taken(samples, mask), samples[mask])
    # It has a place on disk, and no name there.
    maps = Path("/proc/self/maps").read_text()
    assert str(tmp_path) in maps
    assert os.listdir(tmp_path) == []


def test_small_tensors_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = Path("/proc/self/maps").read_text().count("(deleted)")
    assert spool.spooled((10, 10), torch.float32).shape == (10, 10)
    assert Path("/proc/self/maps").read_text().count("(deleted)") == before


@pytest.mark.usefixtures("everything_on_disk")
def test_no_room_is_said_before_anything_is_written() -> None:
    with pytest.raises(UserError, match="TMPDIR"):
        spool.spooled((1 << 50,), torch.uint8)


def test_selections_choose_the_same_on_disk(
    request: pytest.FixtureRequest,
) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(400, 16, generator=generator).relu()
    logits = torch.randn(400, 5, generator=generator)

    def chosen() -> list[list[int]]:
        seed = torch.Generator().manual_seed(2)
        return [
            k_centre(features, 60, seed, pool=32).tolist(),
            margin_k_centre(logits, features, 30, seed, already=torch.arange(20)).tolist(),
        ]

    in_memory = chosen()
    request.getfixturevalue("everything_on_disk")
    assert chosen() == in_memory
