"""The simulation: real teachers on public shards, the service's release, nothing left behind."""

import json
import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ktan.data import DataSource
from ktan.errors import UserError
from privacy.audit import cli
from privacy.audit.planning import calibrate
from privacy.audit.proposal import Proposal, TapProposal
from privacy.audit.simulation import throwaway
from privacy.audit.simulation.measured import PublicAnswers, SimulatedNoise
from privacy.audit.simulation.options import SimulationOptions
from privacy.audit.simulation.run import simulate
from privacy.audit.simulation.stand_in import load_public, stand_in
from privacy.audit.simulation.throwaway import train_public
from privacy.budget import open_plan
from privacy.errors import InvalidPlan, PrivacyError
from privacy.ledger import binding_path
from privacy.ledger.binding import bind

LABELS = TapProposal("probabilities", "probabilities", 10, 0.9)
HINT = TapProposal("hint", "hint", 8, 0.1, path="features")
SMALL = SimulationOptions(dataset="fake", size=700, labelled=50, unlabelled=50, test=100)


@pytest.fixture
def user_folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder; temporary files go to a folder of their own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def left_behind(folder: Path) -> list[Path]:
    # Of the temporary folder ours only: torch keeps an empty cache folder there.
    return [*folder.rglob("*"), *(folder.parent / "temporary").glob("privacy-audit-*")]


def two_class_answers(rows: int = 4000, gap: float = 0.2) -> PublicAnswers:
    """Three teachers that all say (1/2 + gap/2, 1/2 − gap/2); every second label is the other."""
    said = np.tile(np.float32([0.5 + gap / 2, 0.5 - gap / 2]), (3, rows, 1))
    return PublicAnswers(
        teachers=7,
        answers={"probabilities": said},
        labels=np.arange(rows) % 2,
        bounds={"probabilities": 1.0},
        quantile=0.5,
    )


def test_agreement_equals_the_closed_form_for_two_classes() -> None:
    """A gap g survives noise of sd s with probability Φ(g/(s√2)); the generator is seeded."""
    proposal = Proposal(
        8.0, 1e-5, 50, (TapProposal("probabilities", "probabilities", 2),), teachers=7
    )
    (tap,) = two_class_answers().forecast(proposal)
    (release,) = calibrate(proposal)[1]
    assert tap.release == release
    assert tap.noise_sd == release.noise_sd
    exact = 0.5 * math.erfc(-0.2 / (release.noise_sd * math.sqrt(2)) / math.sqrt(2))
    assert 0.52 < exact < 0.99
    assert abs(tap.agreement - exact) < 5 * tap.agreement_error
    # All samples are alike: the 8 draws of each are independent, and the error says so.
    assert tap.agreement_error == pytest.approx(math.sqrt(exact * (1 - exact) / 32_000), rel=0.1)
    assert tap.true_labels.clean == 0.5
    assert tap.true_labels.alone == 0.5
    assert abs(tap.true_labels.noisy - 0.5) < 5 * tap.true_labels.error


def test_a_reduced_hint_is_the_first_dimensions_under_a_smaller_bound() -> None:
    rng = np.random.default_rng(3)
    said = (rng.normal(size=(4, 200, 8)) * np.arange(8, 0, -1)).astype(np.float32)
    answers = PublicAnswers(4, {"hint": said}, np.zeros(200, np.int64), {"hint": 10.0}, 0.5)
    whole = np.median(np.linalg.norm(said.reshape(-1, 8), axis=1))
    part = np.median(np.linalg.norm(said.reshape(-1, 8)[:, :3], axis=1))
    assert answers.bound(HINT) == 10.0
    three = TapProposal("hint", "hint", 3)
    assert answers.bound(three) == pytest.approx(10.0 * part / whole, rel=1e-6)
    (tap,) = answers.forecast(Proposal(4.0, 1e-5, 100, (three,), teachers=4))
    bound = answers.bound(three)
    clipped = said[:, :, :3] * np.minimum(
        1.0, bound / np.linalg.norm(said[:, :, :3], axis=2, keepdims=True)
    )
    signal = np.sqrt(np.mean(np.square(clipped.mean(axis=0)).sum(axis=1))) / bound
    assert tap.signal_norm == pytest.approx(signal, rel=1e-3)
    assert tap.noise_norm == pytest.approx(tap.release.noise_sd / bound * math.sqrt(3))


def test_the_simulated_noise_has_the_law_and_no_plan_covers_it() -> None:
    noise = SimulatedNoise()
    drawn = noise.sample(200_000)
    assert drawn.dtype == np.int64
    assert drawn.std() == pytest.approx(2**20, rel=0.01)
    assert not np.array_equal(drawn, noise.sample(200_000))
    assert not open_plan(4.0, 1e-5).covers(noise)


def test_shards_have_the_size_of_the_private_ones() -> None:
    dataset = DataSource("fake", size=700).load()
    every = stand_in(dataset, SMALL, 5, None)
    assert (every.trained, every.shard, len(every.parts.private)) == (5, 100.0, 500)
    assert "on 17,480 public units each" in replace(every, shard=17_480.0).sentence
    fewer = stand_in(dataset, SMALL, 20, 2000)
    assert (fewer.trained, fewer.shard, len(fewer.parts.private)) == (5, 100.0, 500)
    assert "5 teachers on 100 public units each; their answers stand for all 20" in fewer.sentence
    limited = stand_in(
        dataset, SimulationOptions("fake", test=100, trained=2, unlabelled=50), 5, 60
    )
    assert (limited.trained, len(limited.parts.private)) == (2, 24)
    held_out = set(fewer.parts.test)
    assert len(held_out) == 100
    assert held_out.isdisjoint({*fewer.parts.private, *fewer.parts.labelled})


@pytest.mark.parametrize(
    ("teachers", "units", "message"),
    [
        (501, None, "501 units at least, but there are 500 public units to train on"),
        (50, 40, "40 private ones"),
        (4, 2000, "500 public units to train on, and 2 of 4 shards of 2000 .* need 1000"),
        (1, 1001, "1 of 1 shards of 1001 private units need 1001"),
    ],
)
def test_too_few_units_are_named_before_anything_is_trained(teachers, units, message) -> None:
    with pytest.raises(InvalidPlan, match=message):
        stand_in(DataSource("fake", size=700).load(), SMALL, teachers, units)


def command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["privacy-audit", "plan", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name them with --dataset"),
        (("--dataset", "nothing"), "no data set is called 'nothing'"),
        (("--dataset", "fake", "--taps", "hint:8"), "hint=features:8"),
        (("--dataset", "fake", "--mode", "dp-sgd"), "ensemble or single"),
        (("--dataset", "fake", "--measured", "x.npy"), "--measured"),
        (("--dataset", "fake", "--labelled", "5000"), "--labelled"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, user_folder, arguments, message) -> None:
    code, out, err = command(monkeypatch, capsys, "--simulate", "--epsilon", 4, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert left_behind(user_folder) == []


@pytest.mark.parametrize("place", ["itself", "within", "around"])
def test_data_that_belong_to_a_ledger_are_refused_before_they_are_read(
    monkeypatch, capsys, tmp_path, user_folder, place
) -> None:
    """What is printed is learnt without noise: of private records it would be a free release."""
    folder = tmp_path / "records"
    (folder / "part").mkdir(parents=True)
    bound = {"itself": folder / "mine.npz", "within": folder, "around": folder / "part"}[place]
    named = f"imagefolder:{folder}" if place == "around" else f"arrays:{folder / 'mine.npz'}"
    # It could not be read: only what stands beside it can be what is complained about.
    (folder / "mine.npz").write_bytes(b"")
    bind(bound, "ab" * 16, "arrays/mine", bytes(32))
    code, out, err = command(
        monkeypatch, capsys, "--simulate", "--epsilon", 4, "--dataset", named, "--test", 60
    )
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert str(binding_path(bound)) in err
    assert "no budget pays for" in err
    assert "--dataset" in err
    assert left_behind(user_folder) == []


def test_a_bound_benchmark_under_the_data_root_is_refused_too(
    monkeypatch, capsys, user_folder
) -> None:
    bind(user_folder / "fake", "ab" * 16, "fake/1", bytes(32))
    asked = ("--simulate", "--epsilon", 4, "--dataset", "fake", "--data-root", user_folder)
    code, _, err = command(monkeypatch, capsys, *asked)
    assert code == 2
    assert "fake.ledger.json" in err
    assert "--data-root" in err


def test_pictures_of_one_name_in_two_class_folders_are_told_apart_by_their_paths(tmp_path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        Image.new("L", (4, 4), 9).save(tmp_path / "pets" / label / "0.png")
    options = SimulationOptions(dataset=f"imagefolder:{tmp_path / 'pets'}", data_root=tmp_path)
    with pytest.raises(UserError, match="--path-ids"):
        load_public(options)
    found = load_public(replace(options, path_ids=True))
    assert sorted(found.unit_ids) == ["cat/0.png", "dog/0.png"]


def test_an_unknown_training_option_and_a_failing_command_are_named(tmp_path, monkeypatch) -> None:
    public = stand_in(DataSource("fake", size=700).load(), SMALL, 5, None)
    with pytest.raises(InvalidPlan, match="--training ledger=x"):
        train_public(tmp_path / "a", public, "ensemble", ["probabilities"], ["ledger=x"])
    program = tmp_path / "fails"
    program.write_text("#!/bin/sh\necho 'error: the disk is full' >&2\nexit 2\n")
    program.chmod(0o700)
    monkeypatch.setattr(throwaway, "_program", lambda: str(program))
    with pytest.raises(PrivacyError, match="open-ledger, on the public data: the disk is full"):
        train_public(tmp_path / "b", public, "ensemble", ["probabilities"], [])


def test_ctrl_c_ends_the_command_and_leaves_nothing(tmp_path, monkeypatch, user_folder) -> None:
    program = tmp_path / "interrupts"
    # Presses ctrl-C for the user as soon as it runs.
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nkill -INT $PPID\nexec sleep 100\n")
    program.chmod(0o700)
    monkeypatch.setattr(throwaway, "_program", lambda: str(program))
    asked = Proposal(4.0, 1e-5, 100, (LABELS,), teachers=5)
    with pytest.raises(KeyboardInterrupt):
        simulate(lambda _classes: [asked], SMALL, None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert left_behind(user_folder) == []


def test_public_teachers_are_trained_and_released_from_end_to_end(
    monkeypatch, capsys, user_folder
) -> None:
    code, out, err = command(
        *(monkeypatch, capsys, "--simulate", "--dataset", "fake", "--size", 700),
        *("--labelled", 50, "--unlabelled", 50, "--test", 100, "--records", 1000),
        *("--teachers", 10, "--queries", "5,100", "--epsilon", "1,200"),
        *("--taps", "probabilities", "--taps", "hint=features:0,2,4"),
        *("--share", "probabilities=0.9", "--share", "hint=0.1"),
        *("--training", "epochs=3", "--training", "reference-steps=150"),
        *("--training", "precision=float32", "--training", "device=cpu", "--json"),
    )
    assert code == 0, err
    assert "PUBLIC data (fake) under throw-away ledgers" in err
    assert "k = 10: 5 teachers on 100 public units each; their answers stand for all 10" in err
    found = json.loads(out)
    assert "public-only teachers on fake, 100 held-out samples" in found["source"][0]
    assert len(found["rows"]) == 12
    for row in found["rows"]:
        labels, *hints = row["taps"]
        truth = labels["true_labels"]
        # Trained, not guessing: ten classes.
        assert truth["alone"] > 0.5
        assert truth["clean"] > 0.5
        assert [hint["dimension"] for hint in hints] in ([], [2], [4])
        assert all(hint["bound"] > 0 for hint in hints)
        if (row["queries"], row["epsilon"]) == (5, 200):
            assert labels["agreement"] > 0.9
            assert abs(truth["noisy"] - truth["clean"]) < 0.1
        if (row["queries"], row["epsilon"]) == (100, 1):
            assert labels["agreement"] < 0.3
    chosen = found["rows"][found["recommended"]]
    assert chosen["epsilon"] == 200
    assert left_behind(user_folder) == []
