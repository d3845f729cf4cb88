"""Training as a whole: what the folder and the card hold, what is charged when, and resume."""

import dataclasses
import json

import pytest
import torch

from ktan.errors import UserError
from ktan.teachers import TeacherCard, TeacherModels
from teacher_server.training import TeacherOptions, progress, train_teacher, verify_folder

FAST = TeacherOptions(
    teachers=6,
    epochs=3,
    reference_steps=60,
    augment="none",
    learning_rate=1e-2,
    taps=("probabilities@T=2", "logits", "hint=features:4"),
    network_set=("channels=[4,8]", "width=16"),
    device="cpu",
)
NOISY = dataclasses.replace(
    FAST, mode="dp-sgd", learning_rate=0.3, taps=("probabilities", "hint=features")
)


def make(world, ledger, out, options=FAST, **more):
    return train_teacher(*world, options, out, ledger.custody(), progress=False, **more)


def interrupt_after(monkeypatch, polls):
    """Ctrl-C during the `polls`-th step."""

    class Interruption:
        def __init__(self):
            self.left = polls

        @property
        def asked(self):
            self.left -= 1
            return self.left <= 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(progress, "Interruption", Interruption)


@pytest.mark.parametrize("mode", ["ensemble", "single", "dp-sgd"])
def test_a_teacher_of_each_mode_knows_its_subject(world, ledger, tmp_path, mode):
    options = dataclasses.replace(NOISY if mode == "dp-sgd" else FAST, mode=mode, taps=FAST.taps)
    card = make(world, ledger, tmp_path / "teacher", options)
    assert (card.mode, card.teachers) == (mode, 6 if mode == "ensemble" else 1)
    dataset, parts = world
    test = torch.from_numpy(parts.test)
    answers = TeacherModels.load(tmp_path / "teacher", "cpu").answers(dataset.samples[test])
    assert answers["hint"].shape == (card.teachers, 100, 4)
    right = answers["probabilities"].mean(0).argmax(1) == dataset.labels[test]
    assert float(right.float().mean()) > 0.5  # ten classes
    assert {path.name for path in tmp_path.iterdir()} == {"teacher"}


@pytest.mark.parametrize(("start", "agreement"), [("reference", 0.95), ("random", 0.8)])
def test_teachers_agree_on_hints_once_aligned(world, ledger, tmp_path, start, agreement):
    options = dataclasses.replace(
        FAST, start=start, epochs=20, learning_rate=1e-3, reference_steps=300, network_set=()
    )
    make(world, ledger, tmp_path / "teacher", options)
    models = TeacherModels.load(tmp_path / "teacher", "cpu")
    dataset, parts = world
    samples = dataset.samples[torch.from_numpy(parts.test)]
    aligned = models.answers(samples)["hint"]
    width = models._alignments["hint"].centre.shape[1]
    models._alignments.clear()
    into = {tap.name: torch.empty(6, len(samples), *tap.shape) for tap in models._taps}
    into["hint"] = torch.empty(6, len(samples), width)
    models._read(slice(0, 6), models.card.normalisation(samples), into)
    raw = into["hint"]
    raw = raw - raw.mean(1, keepdim=True)
    assert pairwise_cosine(aligned) > agreement
    if start == "random":
        # Of different first weights, unaligned: the mean of such hints would say nothing.
        assert abs(pairwise_cosine(raw)) < 0.2


def test_the_card_tells_nothing_that_private_records_could_change(world, ledger, tmp_path):
    """Other private pixels and labels, the same ids: the same card but for the random version."""
    dataset, parts = world
    private = torch.from_numpy(parts.private)
    samples, labels = dataset.samples.clone(), dataset.labels.clone()
    samples[private] = 255 - samples[private]
    labels[private] = 0
    other = dataclasses.replace(dataset, samples=samples, labels=labels)
    for options, name in ((FAST, "ensemble"), (NOISY, "dp-sgd")):
        cards = []
        for number, data in enumerate((dataset, other)):
            out = tmp_path / f"{name}-{number}"
            make((data, parts), ledger, out, options)
            card = json.loads((out / "card.json").read_text())
            assert len(bytes.fromhex(card.pop("version"))) == 16
            cards.append(card)
        assert cards[0] == cards[1]


def test_bounds_come_from_the_public_reference(world, ledger, tmp_path):
    card = make(world, ledger, tmp_path / "teacher")
    bounds = {entry.tap.name: entry for entry in card.taps}
    assert bounds["probabilities"].bound == 1.0
    for name in ("logits", "hint"):
        assert bounds[name].bound > 0
        assert "60 public labels" in bounds[name].bound_source
    whole = make(world, ledger, tmp_path / "wide", dataclasses.replace(FAST, bound_quantile=1.0))
    assert all(entry.bound >= bounds[entry.tap.name].bound for entry in whole.taps)
    assert make(world, ledger, tmp_path / "noisy", NOISY).taps[0].bound == 0


@pytest.mark.parametrize("views", [1, 3])
def test_a_dp_sgd_card_states_both_adjacencies(world, ledger, tmp_path, views):
    """Reference values: dp-accounting's PLD (q = 0.1, σ = 1, 20 steps), Opacus's PRV."""
    options = dataclasses.replace(NOISY, views=views, augment="none" if views == 1 else "shift")
    card = make(world, ledger, tmp_path / "teacher", options)
    assert card.training.get("views", 1) == views
    privacy = card.training_privacy
    assert privacy.epsilon == pytest.approx(4.590, abs=2e-3)
    assert privacy.epsilon_add_remove == pytest.approx(3.60, abs=0.02)
    assert privacy.adjacency == "replace-one"
    assert (privacy.sample_rate, privacy.noise_multiplier, privacy.steps) == (0.1, 1.0, 20)
    assert "gdp" not in privacy.accountant_add_remove.lower()


def test_only_dp_sgd_is_charged_and_before_anything_is_written(world, ledger, tmp_path):
    make(world, ledger, tmp_path / "ensemble")
    assert ledger.charged == []
    custody = ledger.custody()
    seen = []

    def charge(version, weights):
        seen.append((version, (tmp_path / "noisy").exists()))
        custody.charge(version, weights)

    card = train_teacher(
        *world, NOISY, tmp_path / "noisy", dataclasses.replace(custody, charge=charge),
        progress=False,
    )  # fmt: skip
    assert seen == [(card.version, False)]
    assert ledger.charged == [card.version]


def test_a_refused_charge_leaves_no_teacher(world, ledger, tmp_path):
    def refuse(version, weights):
        raise RuntimeError("budget exhausted")

    custody = dataclasses.replace(ledger.custody(), charge=refuse)
    with pytest.raises(RuntimeError, match="exhausted"):
        train_teacher(*world, NOISY, tmp_path / "noisy", custody, progress=False)
    assert not (tmp_path / "noisy").exists()


def test_the_seal_breaks_with_any_file_and_under_any_other_ledger(world, ledger, tmp_path):
    folder = tmp_path / "teacher"
    mac = ledger.custody().mac
    make(world, ledger, folder)
    verify_folder(folder, mac)
    for name in ("card.json", "weights.safetensors", "alignment.safetensors", "files.mac"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with pytest.raises(UserError, match="changed"):
            verify_folder(folder, mac)
        (folder / name).write_bytes(content)
    verify_folder(folder, mac)
    with pytest.raises(UserError, match="another ledger"):
        verify_folder(folder, lambda chunks: mac([*chunks, b"other"]))


@pytest.mark.parametrize("polls", [1, 4])
def test_ctrl_c_and_resume_make_the_same_ensemble(world, ledger, tmp_path, monkeypatch, polls):
    options = dataclasses.replace(FAST, stack=2)
    make(world, ledger, tmp_path / "whole", options)
    with monkeypatch.context() as patch:
        interrupt_after(patch, polls)
        with pytest.raises(KeyboardInterrupt):
            make(world, ledger, tmp_path / "resumed", options)
    assert not (tmp_path / "resumed").exists()
    with pytest.raises(UserError, match="--resume"):
        make(world, ledger, tmp_path / "resumed", options)
    changed = dataclasses.replace(options, epochs=4)
    with pytest.raises(UserError, match=r"other settings \(epochs\)"):
        make(world, ledger, tmp_path / "resumed", changed, resume=True)
    make(world, ledger, tmp_path / "resumed", options, resume=True)
    for name in ("weights.safetensors", "alignment.safetensors"):
        whole, resumed = ((tmp_path / n / name).read_bytes() for n in ("whole", "resumed"))
        assert whole == resumed
    assert not (tmp_path / "resumed.partial").exists()


def test_a_resumed_dp_sgd_teacher_keeps_its_version_and_is_charged_once(
    world, ledger, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            make(world, ledger, tmp_path / "noisy", NOISY)
    assert ledger.charged == []
    version = json.loads((tmp_path / "noisy.partial" / "run.json").read_text())["version"]
    card = make(world, ledger, tmp_path / "noisy", NOISY, resume=True)
    assert ledger.charged == [card.version] == [version]


def test_nothing_is_overwritten_and_there_must_be_something_to_resume(world, ledger, tmp_path):
    make(world, ledger, tmp_path / "teacher")
    with pytest.raises(UserError, match="not empty"):
        make(world, ledger, tmp_path / "teacher")
    with pytest.raises(UserError, match="no interrupted training"):
        make(world, ledger, tmp_path / "none", resume=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"teachers": 0}, "--teachers"),
        ({"epochs": 0.0}, "--epochs"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"bound_quantile": 1.5}, "--bound-quantile"),
        ({"taps": ("hint=features.0:map",)}, "whole maps"),
        ({"taps": ("hint=features:100",)}, "16 dimensions"),
        ({"taps": ("hint=nowhere",)}, "nowhere"),
        ({"network": "cnn-medium"}, "cnn-medium"),
        ({"stack": 0}, "--stack"),
        ({"views": 0}, "--views"),
        ({"views": 4}, "--views is for dp-sgd"),
        ({"mode": "dp-sgd", "views": 4, "taps": ("logits",)}, "--augment is none"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(world, ledger, tmp_path, wrong, says):
    with pytest.raises(UserError, match=says):
        make(world, ledger, tmp_path / "teacher", dataclasses.replace(FAST, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_without_public_samples_only_taps_that_need_none_are_made(world, ledger, tmp_path):
    dataset, parts = world
    none = parts.unlabelled[:0]
    apart = dataclasses.replace(parts, labelled=none, unlabelled=none)
    for options, name in ((FAST, "ensemble"), (NOISY, "dp-sgd")):
        only = dataclasses.replace(options, taps=("probabilities",))
        card = make((dataset, apart), ledger, tmp_path / name, only)
        assert [entry.tap.name for entry in card.taps] == ["probabilities"]
    for text in ("logits", "hint=features:4"):
        options = dataclasses.replace(FAST, taps=("probabilities", text))
        with pytest.raises(UserError, match="--unlabelled"):
            make((dataset, apart), ledger, tmp_path / "refused", options)
    assert make((dataset, apart), ledger, tmp_path / "raw", NOISY).taps[1].tap.shape == (16,)


def test_dp_sgd_refuses_to_protect_a_person_with_several_records(world, ledger, tmp_path):
    dataset, parts = world
    people = dataclasses.replace(dataset, unit_ids=dataset.unit_ids // 4)
    ledger.plan = dataclasses.replace(ledger.plan, unit="person")
    with pytest.raises(UserError, match="protects one record"):
        make((people, parts), ledger, tmp_path / "teacher", NOISY)
    assert list(tmp_path.iterdir()) == []


def test_more_teachers_than_records_leave_some_with_nothing_to_say(world, ledger, tmp_path):
    dataset, parts = world
    few = dataclasses.replace(parts, private=parts.private[:4])
    make((dataset, few), ledger, tmp_path / "teacher")
    assert TeacherCard.read(tmp_path / "teacher").teachers == 6
    answers = TeacherModels.load(tmp_path / "teacher", "cpu").answers(dataset.samples[:20])
    for values in answers.values():
        silent = [not one.any() for one in values]
        assert values.isfinite().all()
        assert sum(silent) == 2


def pairwise_cosine(vectors):
    """Mean cosine of different teachers' vectors [k, n, m] for the same sample."""
    unit = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-9)
    k = len(unit)
    total = unit.sum(0).square().sum(-1)
    return float(((total - k) / (k * (k - 1))).mean())


def test_the_bar_is_over_before_ctrl_c_says_where_the_state_is(tmp_path, capsys):
    def train():
        with progress.training_bar("teachers", 10, tmp_path, True) as (_, on_step):
            on_step(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    bar, message = capsys.readouterr().err.rstrip("\n").rsplit("\n", 1)
    assert "3.00/10.0" in bar
    assert message == f"the state is kept in {tmp_path}; go on with --resume"
