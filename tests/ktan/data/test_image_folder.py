"""Folders of pictures, against the pixels and labels that were written."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ktan.data import DataSource
from ktan.data.image_folder import load_image_folder
from ktan.data.split import SplitRecipe, split
from ktan.errors import UserError


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_train_and_test_with_colours(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    written = {}
    for number in range(12):
        part, name = ("train", "test")[number % 3 == 0], ("cat", "dog")[number % 2]
        path = source / part / name / f"{number // 2}.png"
        written[path.relative_to(source).as_posix()] = picture(number, 6, 5, 3)
        write(path, picture(number, 6, 5, 3))
    dataset = load_image_folder(source, tmp_path / "cache", path_ids=True)
    assert dataset.name == "imagefolder:pets"
    assert dataset.location == source
    assert dataset.classes == ("cat", "dog")
    assert dataset.input_shape == (3, 6, 5)
    assert sorted(dataset.unit_ids) == sorted(written)
    for position, path in enumerate(dataset.unit_ids.tolist()):
        assert torch.equal(
            dataset.samples[position].permute(1, 2, 0), torch.from_numpy(written[path])
        )
        assert dataset.classes[int(dataset.labels[position])] == path.split("/")[1]
        assert bool(dataset.holdout[position]) == path.startswith("test/")
    # The training part stands first, and neither part stands class after class.
    assert dataset.holdout.int().diff().tolist().count(1) == 1
    assert dataset.labels.diff().ne(0).sum() > 3


def test_official_test_part_is_mixed(tmp_path: Path) -> None:
    for number in range(120):
        part = "train" if number < 20 else "test"
        name = ("a", "b")[number % 2]
        write(tmp_path / "set" / part / name / f"{number}.png", picture(number, 4, 4))
    dataset = load_image_folder(tmp_path / "set", tmp_path / "cache")
    result = split(dataset, SplitRecipe(0, "official", None, 10, 20, 40))
    counts = torch.bincount(dataset.labels[torch.from_numpy(result.test)], minlength=2)
    assert counts.min() >= 8  # of 40; class after class it would be 0


def test_plain_folder_with_unique_names(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "plain" / f"class-{number % 2}" / f"{number}.png", picture(number, 7, 7))
    dataset = load_image_folder(tmp_path / "plain", tmp_path / "cache")
    assert not dataset.holdout.any()
    # The name alone is the unit, so that another label is a change of content, not of identity.
    assert sorted(dataset.unit_ids) == ["0.png", "1.png", "2.png", "3.png"]


def test_colour_is_an_option_not_content(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    for number in range(3):
        write(source / "a" / f"{number}.png", picture(number, 7, 5))
    colour = load_image_folder(source, tmp_path / "cache")
    grey = load_image_folder(source, tmp_path / "cache", grey=True)
    assert (colour.input_shape, grey.input_shape) == ((3, 7, 5), (1, 7, 5))
    assert torch.equal(colour.samples, grey.samples.expand(-1, 3, -1, -1))
    # One picture in colour changes itself and nobody's shape.
    write(source / "a" / "0.png", picture(9, 7, 5, 3))
    assert load_image_folder(source, tmp_path / "cache", grey=True).input_shape == (1, 7, 5)


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 6)).astype(np.uint16)
    write(tmp_path / "scans" / "a" / "0.png", pixels)
    dataset = load_image_folder(tmp_path / "scans", tmp_path / "cache", grey=True)
    assert torch.equal(dataset.samples[0, 0], torch.from_numpy((pixels // 256).astype(np.uint8)))


def test_another_label_moves_nobody(tmp_path: Path) -> None:
    """The promise replaces a picture and its label; ids, order and the part by --size stay."""
    sources = []
    for labels in (lambda number: number % 2, lambda number: (number // 3) % 2):
        sources.append(tmp_path / f"world-{len(sources)}")
        for number in range(40):
            name = ("cat", "dog")[labels(number)]
            write(sources[-1] / name / f"{number}.png", picture(number, 4, 4))
    for size in (None, 15):
        one, other = (
            DataSource(f"imagefolder:{source}", tmp_path / "cache", size=size).load()
            for source in sources
        )
        assert one.unit_ids.tolist() == other.unit_ids.tolist()
        assert torch.equal(one.samples, other.samples)
        assert not torch.equal(one.labels, other.labels)


def test_repeated_names_need_a_word_on_identity(tmp_path: Path) -> None:
    source = tmp_path / "pets"
    for name in ("cat", "dog"):
        write(source / name / "0001.png", picture(0, 4, 4))
    with pytest.raises(UserError, match=r"one is 0001\.png: .*units\.csv .*--path-ids .*benchmark"):
        load_image_folder(source, tmp_path / "cache")
    paths = load_image_folder(source, tmp_path / "cache", path_ids=True)
    assert sorted(paths.unit_ids) == ["cat/0001.png", "dog/0001.png"]
    (source / "units.csv").write_text("cat/0001.png,ann\ndog/0001.png,bob\n", encoding="utf-8")
    assert sorted(load_image_folder(source, tmp_path / "cache").unit_ids) == ["ann", "bob"]
    with pytest.raises(UserError, match="leave out --path-ids"):
        load_image_folder(source, tmp_path / "cache", path_ids=True)


def test_units_file(tmp_path: Path) -> None:
    source = tmp_path / "people"
    for number in range(4):
        write(source / "a" / f"{number}.png", picture(number, 4, 4))
    listed = source / "units.csv"
    listed.write_text("a/0.png,ann\na/1.png,bob\na/2.png,ann\na/3.png,cy\n", encoding="utf-8")
    dataset = load_image_folder(source, tmp_path / "cache")
    assert sorted(dataset.unit_ids) == ["ann", "ann", "bob", "cy"]
    # Of two lines for one picture the last counts; what names no picture, or no unit, is passed by.
    listed.write_text("a/3.png,eve\nelsewhere,x\na/2.png\n" + listed.read_text(encoding="utf-8"))
    assert sorted(load_image_folder(source, tmp_path / "cache").unit_ids) == sorted(
        dataset.unit_ids
    )
    listed.write_text("a/0.png,ann\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no unit for 3 pictures, the first a/\d\.png"):
        load_image_folder(source, tmp_path / "cache")


def test_sizes_differ(tmp_path: Path) -> None:
    source = tmp_path / "sizes"
    write(source / "a" / "even.png", np.full((10, 10, 3), 200, dtype=np.uint8))
    write(source / "a" / "wide.png", np.full((20, 40, 3), 100, dtype=np.uint8))
    with pytest.raises(UserError, match="one size for all with --image-size"):
        load_image_folder(source, tmp_path / "cache")
    assert load_image_folder(source, tmp_path / "cache", image_size=10).input_shape == (3, 10, 10)
    # What was resized once is not taken for pictures that have one size.
    with pytest.raises(UserError, match="--image-size"):
        load_image_folder(source, tmp_path / "cache")
    dataset = load_image_folder(source, tmp_path / "cache", image_size=8)
    assert dataset.input_shape == (3, 8, 8)
    values = dict(zip(dataset.unit_ids.tolist(), dataset.samples, strict=True))
    assert values["even.png"].unique().tolist() == [200]
    assert values["wide.png"].unique().tolist() == [100]


def test_decoded_once_and_again_when_changed(tmp_path: Path) -> None:
    source, cache = tmp_path / "set", tmp_path / "cache"
    write(source / "a" / "0.png", picture(0, 4, 4))
    first = load_image_folder(source, cache).samples.clone()
    stored = next(cache.rglob("samples.npy"))
    stamp = stored.stat().st_mtime_ns
    assert stored.parent.stat().st_mode & 0o077 == 0
    load_image_folder(source, cache)
    assert stored.stat().st_mtime_ns == stamp
    write(source / "a" / "0.png", picture(1, 4, 4))
    os.utime(source / "a" / "0.png", ns=(1, 1))
    second = load_image_folder(source, cache).samples
    assert not torch.equal(first, second)
    assert torch.equal(second[0, 0], torch.from_numpy(picture(1, 4, 4)))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        load_image_folder(tmp_path / "nowhere", tmp_path)
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="no picture under"):
        load_image_folder(empty, tmp_path)
    write(empty / "a" / "good.png", picture(0, 4, 4))
    (empty / "a" / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"bad\.png"):
        load_image_folder(empty, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("samples.npy"))
    with pytest.raises(UserError, match="--image-size"):
        load_image_folder(empty, tmp_path / "cache", image_size=0)
