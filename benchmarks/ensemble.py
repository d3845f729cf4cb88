"""k small teachers as one stacked computation, beside the same teachers one after another.

    python -m benchmarks.ensemble [--teachers 10 50 250] [--networks cnn-small resnet8]
                                  [--device auto] [--threads 1]       (make bench-ensemble)

Training: steps of k teachers on 32 records each, by `train_ensemble` with stacks of the rule's
height, and with stacks of 1; both in the default precision of the device. Answering: 256 samples by
k teachers, all at once and four at a time, read stacked and one after another, in float32. `rule`
is what the program does by itself; it should be the faster one. The peer is a plain loop over k
modules.
On a CPU seconds are of the processor's time, so that others' work does not count; on a GPU of the
clock, with its memory beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data import Augment, Normalisation
from ktan.heap import keep_freed_memory
from ktan.networks import NetworkSpec, build
from ktan.precision import autocast, has_bf16, resolve_device
from ktan.taps import parse_taps
from ktan.teachers.one_by_one import OneByOne
from ktan.teachers.stack import Stack, new_states, state_slice
from teacher_server.training.ensemble import train_ensemble
from teacher_server.training.recipe import EnsembleRecipe
from teacher_server.training.stack_height import stack_height

RESULT = Path(__file__).parent / "results" / "ensemble.json"
BATCH, SAMPLES, FEW, RECORDS = 32, 256, 4, 40
NETWORKS = {
    "mlp-small": NetworkSpec("mlp-small", (784,), 10),
    "cnn-small": NetworkSpec("cnn-small", (1, 28, 28), 10),
    "resnet8": NetworkSpec("resnet8", (3, 32, 32), 10, {"norm": "group"}),
    "resnet20": NetworkSpec("resnet20", (3, 32, 32), 10, {"norm": "group"}),
}


class Clock:
    """The best of two runs after one to warm up, in seconds."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._now = time.perf_counter if device.type == "cuda" else time.process_time

    def __call__(self, work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            self._wait()
            started = self._now()
            work()
            self._wait()
            times.append(self._now() - started)
        return min(times[1:])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def training(spec: NetworkSpec, k: int, steps: int, clock: Clock) -> dict[str, Any]:
    """Records a second of all k teachers together."""
    samples, labels = _records(spec, k)
    shards = [np.arange(i * RECORDS, (i + 1) * RECORDS) for i in range(k)]
    height = stack_height(spec, BATCH, k, clock.device)
    recipe = EnsembleRecipe(
        spec=spec, normalise=Normalisation.neutral(samples), steps=steps, batch=BATCH,
        learning_rate=1e-3, optimiser="adam", weight_decay=0.0, augment=Augment("none"),
        precision="auto", seed=0, stack=height,
    )  # fmt: skip

    def train(stack: int) -> Callable[[], object]:
        own = dataclasses.replace(recipe, stack=stack)
        return lambda: train_ensemble(samples, labels, shards, own, device=clock.device)

    def plain() -> None:
        for shard in shards:
            network = build(spec).to(clock.device)
            optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
            for _ in range(steps):
                rows = torch.from_numpy(np.random.default_rng(0).choice(shard, BATCH))
                inputs = recipe.normalise(samples[rows].to(clock.device))
                with autocast(clock.device, "auto"):
                    logits = network(inputs)
                loss = F.cross_entropy(logits.float(), labels[rows].to(clock.device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    tall = min(k, 25) if clock.device.type == "cpu" else k
    found = {f"stacks of {tall}": clock(train(tall)), "one after another": clock(train(1))}
    found["plain loop"] = clock(plain)
    return _row(found, k * steps * BATCH, "stacks" if height > 1 else "one after another")


def answering(spec: NetworkSpec, k: int, count: int, clock: Clock) -> dict[str, Any]:
    """Samples a second, `count` at a time, that all k teachers have answered."""
    states = {n: v.to(clock.device) for n, v in new_states(spec, list(range(k))).items()}
    taps = parse_taps(["probabilities"])
    stack = Stack(spec, taps, clock.device)
    each = OneByOne(spec, taps, states, clock.device, "float32")
    normalised = torch.randn(count, *spec.input_shape, device=clock.device)
    answers = {"probabilities": torch.empty(k, count, spec.classes, device=clock.device)}
    # So often that few samples take long enough to be timed.
    passes = max(1, SAMPLES // count)

    def often(work: Callable[[], object]) -> Callable[[], None]:
        @torch.inference_mode()
        def repeated() -> None:
            for _ in range(passes):
                work()

        return repeated

    def stacked() -> None:
        for teachers, part in stack.chunks(k, count):
            stack.read(state_slice(states, teachers), normalised[part], stacked=True)

    def one_after_another() -> None:
        each.read(normalised, answers)

    networks = [build(spec).to(clock.device).eval() for _ in range(k)]

    def plain() -> None:
        for network in networks:
            torch.softmax(network(normalised), dim=1)

    found = {
        "stacked": clock(often(stacked)),
        "one after another": clock(often(one_after_another)),
        "plain loop": clock(often(plain)),
    }
    rule = "stacked" if stack.reads_stacked(count) else "one after another"
    return _row(found, passes * count, rule)


def _records(spec: NetworkSpec, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (k * RECORDS, *spec.input_shape)
    if len(spec.input_shape) == 1:
        samples = torch.randn(shape, generator=generator)
    else:
        samples = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return samples, torch.randint(0, 10, (k * RECORDS,), generator=generator)


def _row(seconds: dict[str, float], count: int, rule: str) -> dict[str, Any]:
    """Figures a second, and the rule's way beside the other one and beside the plain loop."""
    ways = {name: value for name, value in seconds.items() if name != "plain loop"}
    ours = next(value for name, value in ways.items() if name.startswith(rule))
    other = next(value for name, value in ways.items() if not name.startswith(rule))
    return {
        "per_second": {name: round(count / value) for name, value in seconds.items()},
        "rule": rule,
        "over_the_other_way": round(other / ours, 2),
        "over_the_plain_loop": round(seconds["plain loop"] / ours, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teachers", type=int, nargs="+", default=[10, 50, 250])
    parser.add_argument("--networks", nargs="+", default=["mlp-small", "cnn-small", "resnet8"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    keep_freed_memory()
    clock = Clock(device)
    content: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.ensemble",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": platform.machine(),
        "threads": options.threads,
        "training_precision": "bf16" if has_bf16(device) else "float32",
        "seconds": "clock" if device.type == "cuda" else "processor",
        "rows": [],
    }
    for name in options.networks:
        for k in options.teachers:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            row = {
                "network": name,
                "teachers": k,
                "training_records": training(NETWORKS[name], k, options.steps, clock),
                "answered_samples": answering(NETWORKS[name], k, SAMPLES, clock),
                "answered_samples_of_few": answering(NETWORKS[name], k, FEW, clock),
            }
            if device.type == "cuda":
                row["gigabytes"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
            content["rows"].append(row)
            for kind in ("training_records", "answered_samples", "answered_samples_of_few"):
                _print(name, k, kind, row[kind])
    options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _print(network: str, k: int, kind: str, figures: dict[str, Any]) -> None:
    speeds = ", ".join(f"{name} {value:,}" for name, value in figures["per_second"].items())
    print(f"{network}, k = {k}, {kind.replace('_', ' ')}/s: {speeds}")
    print(
        f"    rule: {figures['rule']}, {figures['over_the_other_way']:.2f} of the other way, "
        f"{figures['over_the_plain_loop']:.2f} of the plain loop",
        flush=True,
    )


if __name__ == "__main__":
    main()
