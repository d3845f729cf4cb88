"""k stacked teachers answer as each would alone, and a broken one answers zeros."""

import dataclasses
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.tap_reader import tap_shapes
from ktan.taps import parse_taps
from ktan.teachers import (
    CardTap,
    Frame,
    LocalTeacher,
    Stack,
    TeacherCard,
    TeacherModels,
    write_folder,
)
from ktan.teachers.models import answering_precision
from ktan.teachers.one_by_one import OneByOne
from ktan.teachers.stack import new_states

K, N = 5, 40
TEXTS = ["logits", "probabilities@T=3", "hint=features:4", "hint=features.2"]
NETWORKS = {
    "plain": NetworkSpec("cnn-small", (1, 28, 28), 10, {"width": 16}),
    "batch norm": NetworkSpec("resnet8", (3, 16, 16), 4),
}


def make_teachers(spec, k=K, mode="ensemble", texts=TEXTS):
    if spec.name.startswith("resnet"):
        texts = [text.replace("features.2", "features.layer2") for text in texts]
    network = build(spec)
    parsed = parse_taps(texts)
    shapes = tap_shapes(network, spec.input_shape, [tap.path for tap in parsed if tap.path])
    taps = [tap.with_shape(spec.classes, shapes) for tap in parsed]
    normalise = Normalisation((127.5,) * spec.input_shape[0], (70.0,) * spec.input_shape[0])
    weights = new_states(spec, range(k))
    public = torch.randn(50, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    reduced = [tap for tap in taps if tap.dimensions]
    features = Stack(
        spec, [dataclasses.replace(tap, dimensions=None) for tap in reduced], torch.device("cpu")
    ).read(weights, public)
    alignments = {
        tap.name: Frame.of(features[tap.name][0], tap.dimensions).align(features[tap.name])
        for tap in reduced
    }
    card = TeacherCard(
        mode=mode,
        teachers=k,
        dataset="fake",
        dataset_id="fake/1",
        classes=tuple(map(str, range(spec.classes))),
        input_shape=spec.input_shape,
        input_dtype="uint8",
        normalisation=normalise,
        network=spec,
        taps=tuple(CardTap(tap, 1.0, "test") for tap in taps),
        ledger_id="ab" * 16,
        split={},
        unit="record",
    )
    return card, weights, alignments


def images(spec, count=N):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, *spec.input_shape), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=[True, False], ids=["as one computation", "one after another"])
def _both_ways(request, monkeypatch):
    """A GPU takes the one, a CPU either, as the samples are few or many."""
    monkeypatch.setattr(Stack, "reads_stacked", lambda _self, _samples: request.param)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_stack_says_what_each_network_says_alone(kind):
    spec = NETWORKS[kind]
    card, weights, alignments = make_teachers(spec)
    answers = TeacherModels(card, weights, alignments).answers(images(spec))
    for teacher in range(K):
        network = build(spec).eval()
        network.load_state_dict({name: value[teacher] for name, value in weights.items()})
        with torch.no_grad():
            inputs = card.normalisation(images(spec))
            features = network.features(inputs)
            logits = network.classifier(features)
            inner = network.features[:3](inputs).mean(dim=(2, 3))
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(answers["logits"][teacher], logits, **close)
        soft = torch.softmax(logits / 3, dim=1)
        torch.testing.assert_close(answers["probabilities"][teacher], soft, **close)
        centre, matrix = alignments["hint"].centre[teacher], alignments["hint"].matrix[teacher]
        torch.testing.assert_close(answers["hint"][teacher], (features - centre) @ matrix, **close)
        if kind == "plain":
            torch.testing.assert_close(answers["hint.features.2"][teacher], inner, **close)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_broken_teacher_answers_zeros_and_the_others_stay_bit_for_bit(poison):
    spec = NETWORKS["plain"]
    card, weights, alignments = make_teachers(spec)
    before = TeacherModels(card, weights, alignments).answers(images(spec))
    broken = {name: value.clone() for name, value in weights.items()}
    for value in broken.values():
        value[2] = poison
    after = TeacherModels(card, broken, alignments).answers(images(spec))
    for name, values in after.items():
        assert values.isfinite().all()
        assert torch.equal(values[[0, 1, 3, 4]], before[name][[0, 1, 3, 4]])
        if poison != 1e30:
            assert not values[2].any()
            assert len(values) == K  # it still counts


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_teacher_takes_the_straight_way_to_the_same_answers(kind):
    spec = NETWORKS[kind]
    card, weights, alignments = make_teachers(spec)
    whole = TeacherModels(card, weights, alignments).answers(images(spec))
    single = TeacherModels(
        dataclasses.replace(card, mode="single", teachers=1),
        {name: value[3:4] for name, value in weights.items()},
        {
            name: dataclasses.replace(a, centre=a.centre[3:4], matrix=a.matrix[3:4])
            for name, a in alignments.items()
        },
    ).answers(images(spec))
    for name, values in single.items():
        assert values.shape == (1, *whole[name].shape[1:])
        torch.testing.assert_close(values[0], whole[name][3], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("k", "n"), [(1, 1), (7, 300), (250, 3)])
def test_chunks_cover_every_teacher_and_sample_once(k, n):
    stack = Stack(NETWORKS["plain"], (), torch.device("cpu"))
    seen = torch.zeros(k, n)
    for teachers, samples in stack.chunks(k, n):
        seen[teachers, samples] += 1
        assert samples.stop - samples.start <= 256
    assert (seen == 1).all()


@pytest.mark.usefixtures("_both_ways")
def test_threads_may_share_the_teachers():
    spec = NETWORKS["plain"]
    models = TeacherModels(*make_teachers(spec))
    batches = [images(spec)[i::8] for i in range(8)] * 4
    alone = [models.answers(batch)["logits"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: models.answers(batch)["logits"], batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_chunks_are_of_one_size():
    stack = Stack(NetworkSpec("resnet20", (3, 32, 32), 10), (), torch.device("cpu"))
    sizes = {part.stop - part.start for _, part in stack.chunks(1, 160)}
    assert len(sizes) == 1
    assert 1 < sizes.pop() < 160


def test_a_cpu_reads_few_samples_stacked_and_many_one_network_after_another(monkeypatch):
    models = TeacherModels(*make_teachers(NETWORKS["plain"]))
    ways = []
    for kind in (Stack, OneByOne):
        read = kind.read

        def spy(self, *args, read=read, **named):
            ways.append(type(self))
            return read(self, *args, **named)

        monkeypatch.setattr(kind, "read", spy)
    few = models.answers(images(NETWORKS["plain"], 2))
    many = models.answers(images(NETWORKS["plain"], 200))
    assert ways == [Stack, OneByOne]
    for name, values in few.items():
        torch.testing.assert_close(values, many[name][:, :2], rtol=1e-4, atol=1e-4)


def test_networks_hold_the_stacked_weights_themselves():
    spec = NetworkSpec("mlp-small", (20,), 4)
    weights = new_states(spec, range(3))
    networks = OneByOne(spec, parse_taps(["logits"]), weights, torch.device("cpu"), "float32")
    held = {
        value.data_ptr()
        for reader in networks._networks
        for value in reader._reader.network.parameters()
    }
    assert held == {row.data_ptr() for value in weights.values() for row in value}


def test_no_weight_decides_what_is_computed():
    spec = NETWORKS["batch norm"]
    weights = new_states(spec, range(2))
    for value in weights.values():
        if value.is_floating_point():
            value[1] = float("nan")
    networks = OneByOne(spec, parse_taps(["logits"]), weights, torch.device("cpu"), "float32")
    one, broken = (
        [(name, type(part)) for name, part in reader._reader.network.named_modules()]
        for reader in networks._networks
    )
    assert one == broken
    assert not any(kind is torch.nn.BatchNorm2d for _, kind in one)


@pytest.mark.parametrize("k", [1, K])
def test_answers_in_bf16_are_float32_and_nearly_those_of_float32(k):
    spec = NETWORKS["batch norm"]
    card, weights, alignments = make_teachers(spec, k=k, mode="single" if k == 1 else "ensemble")
    exact = TeacherModels(card, weights, alignments).answers(images(spec))
    rough = TeacherModels(card, weights, alignments, "cpu", "bf16").answers(images(spec))
    for name, values in exact.items():
        assert rough[name].dtype == torch.float32
        assert not torch.equal(rough[name], values)
        assert float((rough[name] - values).norm() / values.norm()) < 0.05


def test_auto_is_bf16_for_large_networks_where_the_hardware_has_it(monkeypatch):
    large, small, cpu = (
        NetworkSpec("resnet8", (3, 32, 32), 4),
        NETWORKS["plain"],
        torch.device("cpu"),
    )
    monkeypatch.setattr("ktan.teachers.models.has_bf16", lambda _device: True)
    assert answering_precision(large, cpu, "auto") == "bf16"
    assert answering_precision(small, cpu, "auto") == "float32"
    assert answering_precision(small, cpu, "fp16") == "fp16"
    monkeypatch.setattr("ktan.teachers.models.has_bf16", lambda _device: False)
    assert answering_precision(large, cpu, "auto") == "float32"


def test_many_teachers_are_not_compiled():
    with pytest.raises(UserError, match="5 teachers would be compiled"):
        TeacherModels(*make_teachers(NETWORKS["plain"]), compiled=True)


def test_torchs_compiler_is_imported_by_no_single_teacher_that_is_not_compiled(tmp_path):
    """That takes seconds, in which a first request would wait."""
    write_folder(tmp_path / "teacher", *make_teachers(NETWORKS["batch norm"], k=1, mode="single"))
    script = """
import pathlib, sys, torch
from ktan.teachers import TeacherModels

models = TeacherModels.load(pathlib.Path(sys.argv[1]), "cpu")
models.answers(torch.zeros(3, *models.card.input_shape, dtype=torch.uint8))
assert not {"torch._dynamo", "torch._inductor"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "teacher"], check=True, timeout=120)


def test_what_an_ensemble_computes_is_counted_when_it_is_loaded(monkeypatch):
    """To count has torch import its compiler."""
    models = TeacherModels(*make_teachers(NETWORKS["batch norm"]))
    monkeypatch.setattr("ktan.teachers.stack.multiply_adds", None)
    for count in (1, 40):
        assert len(models.answers(images(NETWORKS["batch norm"], count))["logits"]) == K


@pytest.mark.long
def test_a_compiled_teacher_answers_the_same_to_threads():
    spec = NETWORKS["plain"]
    made = make_teachers(spec, k=1, mode="single")
    plain, fast = TeacherModels(*made), TeacherModels(*made, compiled=True)
    batches = [images(spec, count) for count in (1, 3, 8, 40)] * 4
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(fast.answers, batches))
    for batch, found in zip(batches, answers, strict=True):
        for name, values in plain.answers(batch).items():
            torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4)


def test_the_unprotected_mean_is_centred_and_clipped_as_a_release_is():
    spec = NETWORKS["plain"]
    card, weights, alignments = make_teachers(spec)
    bounds = {"logits": 0.1, "probabilities": 1.0, "hint": 0.5, "hint.features.2": 0.2}
    taps = tuple(dataclasses.replace(e, bound=bounds[e.tap.name]) for e in card.taps)
    teacher = LocalTeacher(
        TeacherModels(dataclasses.replace(card, taps=taps), weights, alignments, "cpu")
    )
    mean = teacher.answer(images(spec))
    rows = teacher.models.answers(images(spec))
    logits = rows["logits"] - rows["logits"].mean(-1, keepdim=True)
    norms = logits.norm(dim=-1, keepdim=True)
    assert (norms > 0.1).any()
    expected = torch.where(norms > 0.1, logits * 0.1 / norms, logits).mean(0)
    torch.testing.assert_close(mean["logits"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean["probabilities"].sum(1), torch.ones(N), rtol=1e-4, atol=1e-4)
    assert float(mean["hint"].norm(dim=1).max()) <= 0.5 + 1e-5
    assert {name: tap.shape for name, tap in teacher.taps.items()} == {
        name: tuple(values.shape[1:]) for name, values in mean.items()
    }
    assert teacher.taps["probabilities"].temperature == 3.0
    assert all(tap.noise_sd == 0 for tap in teacher.taps.values())


def test_wrong_samples_are_named():
    spec = NETWORKS["plain"]
    models = TeacherModels(*make_teachers(spec))
    with pytest.raises(UserError, match=r"takes torch\.uint8"):
        models.answers(images(spec).float())
    with pytest.raises(UserError, match="1, 28, 28"):
        models.answers(images(spec)[:, :, :20])


def test_a_folder_brings_the_same_answers_back_and_is_the_owners_alone(tmp_path):
    spec = NETWORKS["plain"]
    card, weights, alignments = make_teachers(spec)
    folder = tmp_path / "made" / "teacher"
    write_folder(folder, card, weights, alignments, {"extra.mac": b"x"})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.parent.iterdir()} == {"teacher"}
    loaded = TeacherModels.load(folder, "cpu")
    assert loaded.card == card
    direct = TeacherModels(card, weights, alignments).answers(images(spec))
    for name, values in loaded.answers(images(spec)).items():
        assert torch.equal(values, direct[name])


def test_a_teacher_is_never_overwritten(tmp_path):
    made = make_teachers(NETWORKS["plain"])
    write_folder(tmp_path / "teacher", *made)
    before = (tmp_path / "teacher" / "card.json").read_bytes()
    with pytest.raises(UserError, match="not empty"):
        write_folder(tmp_path / "teacher", *make_teachers(NETWORKS["plain"]))
    assert (tmp_path / "teacher" / "card.json").read_bytes() == before


def test_missing_damaged_and_foreign_weights_are_told_apart(tmp_path):
    folder = tmp_path / "teacher"
    card, weights, alignments = make_teachers(NETWORKS["plain"])
    write_folder(folder, card, weights, alignments)
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        TeacherModels.load(folder, "cpu")
    path.write_bytes(content[:50])
    with pytest.raises(UserError, match="damaged"):
        TeacherModels.load(folder, "cpu")
    path.write_bytes(safetensors.torch.save({n: v[:3].clone() for n, v in weights.items()}))
    with pytest.raises(UserError, match="5 teachers"):
        TeacherModels.load(folder, "cpu")
