"""Records a second of DP-SGD in each mode, beside plain SGD and Opacus's own ways.

    python -m benchmarks.dp_sgd [--networks cnn-small mlp-small resnet8] [--device auto]
                                [--chunks 100 500] [--records 500] [--threads 1]
                                                                       (make bench-dp-sgd)

A logical step of so many records: forward, backward, clipping, sum; no noise, which costs the same
in all ways. `opacus hooks` is Opacus's default with flat clipping, `opacus ghost` its fast gradient
clipping (`grad_sample_mode="ghost"`), which takes two backward passes; `flat` and `ghost` are ours;
with views, each record is seen four times. Gradients are compared with Opacus's on the way. On a
CPU seconds are of the processor's time, on a GPU of the clock, with its memory beside.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from benchmarks.ensemble import NETWORKS, Clock
from ktan.networks import build
from ktan.precision import resolve_device
from teacher_server.training.clipping import Clipper
from teacher_server.training.clipping_kinds import Clipping

RESULT = Path(__file__).parent / "results" / "dp_sgd.json"
BOUND = 1.0
VIEWS = 4

Sum = Callable[[], list[Tensor]]


def plain(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Sum:
    """Gradients without any clipping: what a step costs whose records are not protected."""

    def work() -> list[Tensor]:
        network.zero_grad()
        for inputs, labels in batches:
            F.cross_entropy(network(inputs), labels, reduction="sum").backward()
        return [parameter.grad for parameter in network.parameters()]

    return work


def opacus_hooks(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Sum:
    """As `DPOptimizer.clip_and_accumulate` does it."""
    model = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    parameters = list(model.parameters())

    def work() -> list[Tensor]:
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for inputs, labels in batches:
            F.cross_entropy(model(inputs), labels, reduction="sum").backward()
            rows = [parameter.grad_sample for parameter in parameters]
            norms = torch.stack([row.flatten(1).norm(dim=1) for row in rows]).norm(dim=0)
            factor = (BOUND / (norms + 1e-6)).clamp(max=1.0)
            for total, row, parameter in zip(sums, rows, parameters, strict=True):
                total += torch.einsum("i,i...", factor, row)
                parameter.grad_sample = parameter.grad = None
        return sums

    return work


def opacus_ghost(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Sum:
    """As `DPTensorFastGradientClipping.backward` does it."""
    model = GradSampleModuleFastGradientClipping(
        copy.deepcopy(network), loss_reduction="sum", max_grad_norm=BOUND
    )
    parameters = list(model.parameters())

    def work() -> list[Tensor]:
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for inputs, labels in batches:
            model.enable_hooks()
            losses = F.cross_entropy(model(inputs), labels, reduction="none")
            losses.sum().backward(retain_graph=True)
            for parameter in parameters:
                parameter.grad = None
            factor = model.get_clipping_coef()
            model.disable_hooks()
            (factor * losses).sum().backward()
            for total, parameter in zip(sums, parameters, strict=True):
                total += parameter.grad
                parameter.grad = None
        return sums

    return work


def ours(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], clipping: Clipping, views: int = 1
) -> Sum:
    clipper = Clipper(network, BOUND, clipping, batches[0][0][:1])

    def work() -> list[Tensor]:
        for inputs, labels in batches:
            # Chunks hold as many views as they would hold records.
            for part in torch.arange(len(labels)).split(max(1, len(labels) // views)):
                clipper.add(inputs[part].repeat_interleave(views, dim=0), labels[part], views)
        return clipper.take()

    return work


def measured(name: str, chunk: int, records: int, clock: Clock) -> dict[str, Any]:
    spec, device = NETWORKS[name], clock.device
    torch.manual_seed(0)
    network = build(spec).to(device).train()
    inputs = torch.randn(records, *spec.input_shape, device=device)
    labels = torch.randint(0, 10, (records,), device=device)
    batches = list(zip(inputs.split(chunk), labels.split(chunk), strict=True))
    ways: dict[str, Sum] = {
        "plain": plain(network, batches),
        "opacus hooks": opacus_hooks(network, batches),
        "opacus ghost": opacus_ghost(network, batches),
        "flat": ours(network, batches, "flat"),
        "ghost": ours(network, batches, "ghost"),
        f"ghost, {VIEWS} views": ours(network, batches, "ghost", VIEWS),
    }
    expected = _flat(ways["opacus hooks"]())
    row: dict[str, Any] = {"network": name, "chunk": chunk, "records_per_second": {}}
    for way, work in ways.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        row["records_per_second"][way] = round(records / clock(work))
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            row.setdefault("gigabytes", {})[way] = round(peak, 2)
        if way != "plain":
            error = float((_flat(work()) - expected).norm() / expected.norm())
            row.setdefault("distance_to_opacus_hooks", {})[way] = float(f"{error:.1e}")
    speeds = row["records_per_second"]
    row["ghost_over_opacus_hooks"] = round(speeds["ghost"] / speeds["opacus hooks"], 2)
    row["ghost_over_opacus_ghost"] = round(speeds["ghost"] / speeds["opacus ghost"], 2)
    row["ghost_over_plain"] = round(speeds["ghost"] / speeds["plain"], 2)
    return row


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["mlp-small", "cnn-small", "resnet8"])
    parser.add_argument("--chunks", type=int, nargs="+", default=[100])
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    torch.set_num_threads(options.threads)
    clock = Clock(resolve_device(options.device))
    rows = []
    for name in options.networks:
        for chunk in options.chunks:
            row = measured(name, chunk, options.records, clock)
            rows.append(row)
            print(f"{name}, {chunk} records at once, records/s:")
            for way, speed in row["records_per_second"].items():
                print(f"    {way:16} {speed:10,}", flush=True)
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.dp_sgd",
        "device": "cpu" if clock.device.type == "cpu" else torch.cuda.get_device_name(clock.device),
        "machine": platform.machine(),
        "threads": options.threads,
        "seconds": "processor" if clock.device.type == "cpu" else "clock",
        "rows": rows,
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
