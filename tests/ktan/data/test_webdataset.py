"""Tar archives as a data set: keys, labels, holdout, and what is wrong with an archive."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ktan.data import DataSource, webdataset
from ktan.data.archive_names import archive_folder, archive_paths
from ktan.data.webdataset import load_webdataset
from ktan.errors import UserError
from ktan.locking import exclusive


def pixels(number: int, side: int = 4) -> np.ndarray:
    """uint8 [side, side, 3], different for every number."""
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def ppm(number: int, side: int = 4) -> bytes:
    return f"P6 {side} {side} 255\n".encode() + pixels(number, side).tobytes()


def write(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def sample(number: int, label: str | None = None) -> dict[str, bytes]:
    files = {f"{number:06d}.ppm": ppm(number), f"{number:06d}.json": b"{}"}
    return files if label is None else {**files, f"{number:06d}.cls": label.encode()}


def three(folder: Path) -> None:
    """Six samples in three archives, one of them compressed; the last is the holdout."""
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "classes.txt").write_text("cat\ndog\n")
    write(folder / "shards" / "train-00.tar", {**sample(0, "1"), **sample(1, "cat\n")})
    write(folder / "shards" / "train-01.tgz", {**sample(2), **sample(3, "0")})
    write(folder / "shards" / "val-00.tar", {**sample(5, "1"), **sample(4, "dog")})


@pytest.mark.parametrize("named", ["shards", "shards/*", "shards/{train-0[01],val-*}.t*"])
def test_samples_stand_in_the_archives_order(tmp_path: Path, named: str) -> None:
    three(tmp_path)
    dataset = load_webdataset(str(tmp_path / named), tmp_path / "data")
    numbers = [0, 1, 2, 3, 5, 4]
    assert dataset.name == "webdataset:shards"
    assert dataset.location == tmp_path / "shards"
    assert dataset.classes == ("cat", "dog")
    assert dataset.unit_ids.tolist() == [f"{number:06d}" for number in numbers]
    assert dataset.labels.tolist() == [1, 0, -1, 0, 1, 1]
    assert dataset.holdout.tolist() == [False] * 4 + [True] * 2
    expected = np.stack([pixels(number).transpose(2, 0, 1) for number in numbers])
    np.testing.assert_array_equal(dataset.samples.numpy(), expected)
    assert not dataset.ids_given
    assert not dataset.published


def test_read_once_and_again_when_an_archive_changed(tmp_path: Path) -> None:
    three(tmp_path)
    source = DataSource(f"webdataset:{tmp_path}/shards", data_root=tmp_path / "data", grey=True)
    first = source.load()
    assert first.input_shape == (1, 4, 4)
    cache = next((tmp_path / "data").rglob("samples.npy"))
    assert cache.parent.stat().st_mode & 0o077 == 0
    stamp = cache.stat().st_mtime_ns
    assert torch.equal(source.load().samples, first.samples)
    assert cache.stat().st_mtime_ns == stamp
    write(tmp_path / "shards" / "train-00.tar", sample(9, "0"))
    again = source.load()
    assert again.unit_ids[0] == "000009"
    assert len(again) == 5


def test_ids_are_names_without_folders_unless_asked_for(tmp_path: Path) -> None:
    files = {f"{folder}/1.ppm": ppm(number) for number, folder in enumerate(("cat", "dog"))}
    write(tmp_path / "a.tar", files)
    with pytest.raises(UserError, match=r"1 keys .* one is 1: .* --path-ids"):
        load_webdataset(str(tmp_path), tmp_path / "data")
    dataset = load_webdataset(str(tmp_path), tmp_path / "data", path_ids=True)
    assert dataset.unit_ids.tolist() == ["cat/1", "dog/1"]
    assert dataset.classes == ("0",)
    (tmp_path / "units.csv").write_text("cat/1,ann\ndog/1,ann\n")
    dataset = load_webdataset(str(tmp_path), tmp_path / "data")
    assert (dataset.unit_ids.tolist(), dataset.ids_given) == (["ann", "ann"], True)


def test_an_archive_without_pictures_may_come_first(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.tar", {})
    with pytest.raises(UserError, match=r"there is no picture in .*a\.tar"):
        load_webdataset(str(tmp_path / "s"), tmp_path / "data")
    write(tmp_path / "s" / "b.tar", sample(1))
    dataset = load_webdataset(str(tmp_path / "s"), tmp_path / "data")
    np.testing.assert_array_equal(dataset.samples[0].numpy(), pixels(1).transpose(2, 0, 1))
    assert len(dataset) == 1


def test_whoever_lists_the_samples_is_alone_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s" / "a.tar", sample(1))
    listed = webdataset._list_samples
    alone = []

    def listing(*arguments: object) -> object:
        (cache,) = (tmp_path / "data" / "webdatasets").iterdir()
        with exclusive(cache) as free:
            alone.append(not free)
        return listed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(webdataset, "_list_samples", listing)
    load_webdataset(str(tmp_path / "s"), tmp_path / "data")
    assert alone == [True]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    data, named = tmp_path / "data", str(tmp_path / "s")

    def mistake(files: dict[str, bytes], message: str) -> None:
        write(tmp_path / "s" / "a.tar", files)
        with pytest.raises(UserError, match=message):
            load_webdataset(named, data)

    with pytest.raises(UserError, match="there is no archive"):
        load_webdataset(named, data)
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="names no archive"):
        load_webdataset(named, data)
    mistake(sample(0, "3"), r"000000\.cls is a label, but no classes\.txt")
    (tmp_path / "s" / "classes.txt").write_text("cat\ndog\n")
    mistake(sample(0, "2"), r"says '2', which is no class of the 2 in classes\.txt")
    mistake({**sample(0), "1.json": b"{}"}, "sample 1 has 0 pictures")
    mistake({**sample(0), "1.ppm": ppm(1, side=5)}, r"1\.ppm is 5×5, and another picture is 4×4")
    mistake({**sample(0), "1.ppm": b"nothing"}, r"1\.ppm is not a picture")
    whole = (tmp_path / "s" / "a.tar").read_bytes()
    (tmp_path / "s" / "a.tar").write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"a\.tar cannot be read as a tar archive"):
        load_webdataset(named, data)
    with pytest.raises(UserError, match=r"there is no archive .*b-1\.tar"):
        load_webdataset(f"{named}/b-{{1..2}}.tar", data)


def test_braces_are_expanded_as_a_shell_does(tmp_path: Path) -> None:
    for number in range(8, 12):
        write(tmp_path / f"x-{number:03d}.tar", sample(number))
    found = archive_paths(f"{tmp_path}/x-{{008..011}}.tar")
    assert [path.name for path in found] == [f"x-{number:03d}.tar" for number in range(8, 12)]
    assert archive_folder("/data/a/x-{00..11}.tar") == Path("/data/a")
    assert archive_folder("/data/{a,b}/x.tar") == Path("/data")
