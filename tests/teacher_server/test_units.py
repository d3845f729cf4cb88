"""How many records stand behind one private unit reaches its own teacher, and nothing else."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ktan.data import DataSource, SplitRecipe, shards, split
from ktan.errors import UserError
from teacher_server import cli

K, PERSONS, VISITS = 4, 30, 6
RECIPE = SplitRecipe(labelled=4, unlabelled=8, test=4)
DATA = ["--dataset", "arrays:people.npz", "--labelled", 4, "--unlabelled", 8, "--test", 4]
FAST = [
    "--teachers", K, "--epochs", 20, "--batch", 8, "--reference-steps", 20, "--device", "cpu",
    "--precision", "float32", "--taps", "probabilities", "--taps", "hint=features:4",
]  # fmt: skip


@dataclass(frozen=True)
class World:
    """A data set, its ledger and teachers of two modes, and all that was printed on the way."""

    folder: Path
    printed: list[str]

    def card(self, mode: str) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.folder / mode / "card.json").read_text())
        # Random: of the teacher, and of the ledger.
        del card["version"], card["ledger_id"]
        return card

    def tensors(self, mode: str) -> dict[str, np.ndarray]:
        """Everything that teachers have of their own: name → [k, ...]."""
        folder = self.folder / mode
        return load_file(folder / "weights.safetensors") | load_file(
            folder / "alignment.safetensors"
        )


def write_people(path: Path, person: int, visits: int) -> None:
    """Six visits of each person; `visits` of `person`, in their place among the others'."""
    generator = np.random.default_rng(5)
    count = np.full(PERSONS, VISITS)
    samples = generator.normal(size=(PERSONS, 100, 8)).astype(np.float32)
    labels = generator.integers(0, 3, (PERSONS, 100))
    count[person] = visits
    np.savez(
        path,
        samples=np.concatenate([samples[i, :n] for i, n in enumerate(count)]),
        labels=np.concatenate([labels[i, :n] for i, n in enumerate(count)]),
        unit_ids=np.repeat(np.arange(PERSONS), count),
        classes=np.array(["a", "b", "c"]),
    )


def made(
    folder: Path, person: int, visits: int, capsys: pytest.CaptureFixture[str], *unit: str
) -> World:
    """The custodian's commands, in a new folder."""
    folder.mkdir()
    printed: list[str] = []

    def command(*arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        cli.command_line(words)(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        out, err = capsys.readouterr()
        # Of the bar its totals: how often it is drawn is a matter of time.
        bars = " ".join(sorted(set(re.findall(r"/(\S+) \[", err))))
        bare = re.sub(r"\b[0-9a-f]{32}\b", "ID", out.replace(str(folder), "FOLDER"))
        printed.append(re.sub(r"(accuracy\S*) .*", r"\1", f"{bare}{bars}"))

    before = Path.cwd()
    os.chdir(folder)
    try:
        write_people(folder / "people.npz", person, visits)
        command("open-ledger", *DATA, "--ledger", "ledger", "--epsilon", 1, *unit)
        for mode in ("ensemble", "single"):
            command(
                "train", *DATA, "--ledger", "ledger", "--out", mode, "--mode", mode, *FAST,
            )  # fmt: skip
        command("evaluate", "ensemble", *DATA)
    finally:
        os.chdir(before)
    return World(folder, printed)


@pytest.fixture
def owner(tmp_path: Path) -> tuple[int, int]:
    """A private person, and the number of the teacher who gets them."""
    write_people(tmp_path / "people.npz", 0, VISITS)
    dataset = DataSource(f"arrays:{tmp_path / 'people.npz'}").load()
    ids = dataset.unit_ids[split(dataset, RECIPE).private]
    person = int(ids[0])
    (teacher,) = [i for i, part in enumerate(shards(ids, K)) if person in ids[part]]
    return person, teacher


@pytest.mark.parametrize("visits", [1, 90])
def test_the_number_of_ones_records_reaches_ones_own_teacher_only(
    tmp_path: Path, owner: tuple[int, int], visits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    person, teacher = owner
    unit = ("--unit", "person")
    one = made(tmp_path / "one", person, VISITS, capsys, *unit)
    other = made(tmp_path / "other", person, visits, capsys, *unit)
    ours, theirs = one.tensors("ensemble"), other.tensors("ensemble")
    moved = [
        i
        for i in range(K)
        if any(not np.array_equal(ours[name][i], theirs[name][i]) for name in ours)
    ]
    assert moved == [teacher]
    for mode in ("ensemble", "single"):
        assert one.card(mode) == other.card(mode)
        assert one.card(mode)["unit"] == "person"
    counts = one.card("ensemble")["split"]["counts"]
    assert counts == {"private": 14, "labelled": 4, "unlabelled": 8, "test": 4}
    assert one.printed == other.printed
    # 20 passes over 14 units; 14 / 4 of them a teacher in the ensemble, in batches of 8.
    assert one.printed[1].endswith("36.0")
    assert one.printed[2].endswith("35.0")
    kept = [json.loads((world.folder / "ledger/split.json").read_text()) for world in (one, other)]
    assert kept[0]["recipe"] == kept[1]["recipe"]
    assert kept[0]["counts"] == kept[1]["counts"] == counts


def open_ledger(folder: Path, name: str, *unit: str) -> None:
    """For the people in `NAME.npz`, all of them private."""
    words = [
        "open-ledger", "--dataset", f"arrays:{folder / name}.npz", "--labelled", "0",
        "--unlabelled", "0", "--test", "0", "--ledger", str(folder / f"ledger-{name}"),
        "--epsilon", "1", "--json", *unit,
    ]  # fmt: skip
    cli.command_line(words)(
        words,
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )  # fmt: skip


@pytest.mark.parametrize("ids", [np.arange(40), np.minimum(np.arange(41), 39)])
def test_what_ids_name_must_be_said_before_anything_is_made(
    tmp_path: Path, ids: np.ndarray
) -> None:
    np.savez(tmp_path / "people.npz", samples=np.zeros((len(ids), 2)), unit_ids=ids)
    with pytest.raises(UserError, match="say with --unit what they name"):
        open_ledger(tmp_path, "people")
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz"]


def test_a_second_record_of_one_person_does_not_rename_the_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promises = []
    for name, ids in (("one", np.arange(40)), ("two", np.minimum(np.arange(41), 39))):
        np.savez(tmp_path / f"{name}.npz", samples=np.zeros((len(ids), 2)), unit_ids=ids)
        open_ledger(tmp_path, name, "--unit", "person")
        opened = json.loads(capsys.readouterr().out)
        promises.append((opened["promise"], opened["private_units"], opened["public_units"]))
    assert promises[0] == promises[1]
    assert promises[0][1:] == (40, 0)
    assert "one person" in promises[0][0]
