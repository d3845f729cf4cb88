"""Sizes and speeds of a pair: figures by hand, a table that fits, a line for what cannot be."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from ktan import cpp_compiler, precision
from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.networks.deployed import Deployed
from ktan.networks.exits import ExitHead, ExitSpec, cut_at
from student_client import benchmark_networks
from student_client.benchmark_networks import load_measured, prepared
from student_client.provenance import alone
from student_client.student_card import StudentCard, write_student

SHAPE, CLASSES = (3, 8, 8), ("a", "b", "c")
NORMALISE = Normalisation((120.0, 110.0, 100.0), (60.0, 61.0, 62.0))


def write(folder, name="resnet8", shape=SHAPE, dtype="uint8", head=None, **options):
    """A student that nobody has trained."""
    torch.manual_seed(0)
    spec = NetworkSpec(name, shape, len(CLASSES), options)
    normalise = NORMALISE if len(shape) == 3 else Normalisation((0.5,) * 6, (2.0,) * 6)
    network = build(spec)
    card = StudentCard(
        dataset="public", classes=CLASSES, input_dtype=dtype, network=spec,
        normalisation=normalise, method="local", method_options={}, seed=0, steps=0,
        test_accuracy=0.875, test_samples=8, privacy=alone(), weights_sha256="",
        cut_at=None if head is None else head.spec,
    )  # fmt: skip
    write_student(folder, network if head is None else cut_at(spec, network, head), card)
    return folder


def test_a_pair_in_figures(command, tmp_path):
    teacher = write(tmp_path / "teacher", widths=[8, 8, 12, 16])
    student = write(tmp_path / "student", widths=[4, 4, 6, 8])
    threads = torch.get_num_threads()
    code, out, err = command(
        "benchmark", student, "--teacher", teacher, "--batch", "1,3", "--threads", "1",
        "--device", "cpu", "--turns", "2", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert torch.get_num_threads() == threads
    found = json.loads(out)
    ours, its = found["student"], found["teacher"]
    for facts, folder in ((ours, student), (its, teacher)):
        weights = load_file(folder / "weights.safetensors")
        assert facts["parameters"] == sum(
            value.numel() for name, value in weights.items() if not re.search("running|num_", name)
        )
    assert ours["bytes"] == (student / "weights.safetensors").stat().st_size
    assert found["ratios"]["parameters"] == its["parameters"] / ours["parameters"]
    assert found["ratios"]["bytes"] == its["bytes"] / ours["bytes"]
    assert ours["test_accuracy"] == 0.875
    assert [(one["runtime"], one["batch"]) for one in found["speed"]] == [
        ("eager", 1),
        ("eager", 3),
    ]
    for one in found["speed"]:
        for timing in (one["teacher"], one["student"]):
            assert 0 < timing["median"] <= timing["p95"]
            assert timing["throughput"] > 0
        assert one["teacher"]["ratio"] == 1
        assert one["student"]["ratio"] > 0
    assert found["measured_on"]["threads"] == 1
    assert (found["measured_on"]["device"], found["measured_on"]["precision"]) == ("cpu", "float32")


@pytest.mark.parametrize("named", ["fp16", "bf16", "float32"])
def test_the_precision_is_named_as_it_is(named, command, tmp_path, monkeypatch):
    student = write(tmp_path / "student", "mlp-small", (6,), "float32", hidden=[5])
    used = []

    def autocast(device, chosen):
        used.append(chosen)
        return precision.autocast(device, chosen)

    monkeypatch.setattr(benchmark_networks, "autocast", autocast)
    code, out, _ = command(
        "benchmark", student, "--batch", "2", "--turns", "1", "--device", "cpu", "--threads", "1",
        "--precision", named, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["measured_on"]["precision"] == named
    assert set(used) == {named}


@pytest.mark.parametrize("runtime", ["onnx", "int8", "compile"])
def test_a_network_that_a_runtime_does_not_take_says_so_in_a_line(runtime, tmp_path, monkeypatch):
    def broken(*_):
        raise torch._dynamo.exc.Unsupported("data-dependent\nand pages more")

    measured = load_measured(write(tmp_path, "mlp-small", (6,), "float32", hidden=[5]))
    monkeypatch.setattr(
        benchmark_networks, "write_onnx", broken if runtime == "onnx" else lambda *_: None
    )
    monkeypatch.setattr(benchmark_networks, "quantise", broken)
    monkeypatch.setattr(benchmark_networks.torch, "compile", lambda *_, **__: broken)

    def run():
        forward, _ = prepared(
            measured, runtime, device=torch.device("cpu"), precision="float32", threads=1,
            scratch=tmp_path / "scratch",
        )  # fmt: skip
        forward(measured.samples(2))

    with pytest.raises(UserError, match=f"cannot be run by {runtime}: .*: data-dependent$"):
        run()


def test_a_table_of_80_columns(command, tmp_path):
    teacher = write(tmp_path / "teacher", widths=[8, 8, 12, 16])
    student = write(tmp_path / "student", widths=[4, 4, 6, 8])
    code, out, _ = command(
        "benchmark",
        student,
        "--teacher",
        teacher,
        "--turns",
        "1",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for words in (
        "teacher",
        "student",
        "ratio",
        "median",
        "p95",
        "samples/s",
        "87.50 %",
        "1 thread,",
    ):
        assert words in out


def test_a_student_alone_in_onnx_and_int8(command, tmp_path):
    student = write(tmp_path / "student", "mlp-small", (6,), "float32", hidden=[5])
    code, out, err = command(
        "benchmark", student, "--runtime", "onnx,int8", "--batch", "2", "--turns", "1", "--json",
        "--device", "cpu", "--threads", "1",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["teacher"], found["ratios"]) == (None, None)
    assert [(one["runtime"], one["teacher"]) for one in found["speed"]] == [
        ("onnx", None), ("int8", None),
    ]  # fmt: skip
    assert "onnxruntime" in found["measured_on"]


def test_a_cut_student_costs_what_is_left_of_it(tmp_path):
    head = ExitHead(ExitSpec("features.layer1", 4, 8, 3, 4))
    folder = write(tmp_path / "cut", head=head, widths=[4, 4, 6, 8])
    whole = write(tmp_path / "whole", widths=[4, 4, 6, 8])
    cut, uncut = load_measured(folder), load_measured(whole)
    assert cut.size.parameters == sum(p.numel() for p in cut.deployed.parameters())
    assert cut.size.multiply_adds < uncut.size.multiply_adds


def test_what_is_measured_is_what_the_student_answers(tmp_path):
    measured = load_measured(write(tmp_path / "student", widths=[4, 4, 6, 8]))
    forward, _ = prepared(
        measured, "eager", device=torch.device("cpu"), precision="float32", threads=1,
        scratch=tmp_path,
    )  # fmt: skip
    samples = measured.samples(5)
    assert samples.dtype == torch.uint8
    assert len(samples.unique()) > 200
    (network,) = measured.deployed.networks
    with torch.inference_mode():
        torch.testing.assert_close(forward(samples), network(NORMALISE(samples)))


def test_several_networks_answer_by_the_mean_of_their_logits():
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(build(NetworkSpec("mlp-small", (6,), 3)).eval())
    rows = torch.randn(4, 6)
    normalise = Normalisation((0.5,) * 6, (2.0,) * 6)
    with torch.no_grad():
        found = Deployed(networks, normalise, (6,))(rows)
        expected = (networks[0]((rows - 0.5) / 2) + networks[1]((rows - 0.5) / 2)) / 2
    torch.testing.assert_close(found, expected)


def test_mistakes(command, tmp_path, monkeypatch):
    student = write(tmp_path / "student", widths=[4, 4, 6, 8])
    table = write(tmp_path / "table", "mlp-small", (6,), "float32", hidden=[5])
    monkeypatch.setattr(cpp_compiler.shutil, "which", lambda _: None)
    for options, message in [
        (("--runtime", "tpu"), "--runtime is tpu; give of eager, compile, onnx, int8"),
        (("--batch", "one"), "give numbers with commas between"),
        (("--batch", "0"), "whole numbers from 1"),
        (("--threads", "0"), "whole numbers from 1"),
        (("--teacher", table), "their speeds cannot be compared"),
        (("--teacher", tmp_path / "nothing"), "holds no student"),
        (("--runtime", "compile", "--device", "cpu"), "torch.compile needs a C++ compiler"),
    ]:
        code, _, err = command("benchmark", student, *options)
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err
