"""The bare forward pass: `python -m benchmarks.serving.bare MODEL`.

Normalised images that lie ready, logits, nothing else. Reads {"seconds": s, "setting": {...}} and
prints images a second. {"seconds": s, "precision": p} tries every batch size, layout and way of
using the cores (several calls at once, or torch's own threads) in that precision and prints the
best.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.serving.children import answer_each_line
from benchmarks.serving.models import MODELS, SHAPE, Model
from ktan.heap import keep_freed_memory
from ktan.networks import build


def networks(model: Model, last: bool) -> list[nn.Module]:
    """Modules with the model's weights, in the layout asked for."""
    weights, made = model.weights(), []
    for number in range(model.teachers):
        network = build(model.network)
        network.load_state_dict({name: value[number] for name, value in weights.items()})
        network.eval().requires_grad_(False)
        made.append(network.to(memory_format=torch.channels_last) if last else network)
    return made


def rate(model: Model, seconds: float, setting: dict[str, Any]) -> float:
    """Images a second, over all threads."""
    torch.set_num_threads(setting["torch_threads"])
    last = setting["channels_last"]
    samples = torch.randn(setting["batch"], *SHAPE)
    if last:
        samples = samples.contiguous(memory_format=torch.channels_last)
    rates = [0.0] * setting["callers"]
    ready = threading.Barrier(setting["callers"] + 1)
    stop = threading.Event()

    def call(number: int) -> None:
        own = _own(model.name, last, number)
        count = 0
        with torch.inference_mode(), _precision(setting["precision"]):
            _pass(own, samples)
            ready.wait()
            begun = time.perf_counter()
            while not stop.is_set():
                _pass(own, samples)
                count += len(samples)
            # Each by its own end: a pass may take as long as a turn, and whoever ends first would
            # count as idle until the last has.
            rates[number] = count / (time.perf_counter() - begun)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(setting["callers"])]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(rates)


@functools.cache
def _own(name: str, last: bool, caller: int) -> list[nn.Module]:
    """A caller's networks, made once: a turn is short."""
    return networks(MODELS[name], last)


def _pass(own: list[nn.Module], samples: Tensor) -> None:
    for network in own:
        network(samples)


def _precision(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def best(model: Model, seconds: float, precision: str) -> dict[str, Any]:
    """The fastest setting, and its rate: all in short, then the best four twice, in turns."""
    cores = os.cpu_count() or 1
    ways = {(1, cores), (cores, 1)}
    settings = [
        {
            "batch": batch, "channels_last": last, "callers": callers, "torch_threads": threads,
            "precision": precision,
        }
        for batch, last, (callers, threads) in itertools.product(
            (32, 64, 128, 256), (True, False), sorted(ways)
        )
    ]  # fmt: skip
    settings.sort(key=lambda setting: rate(model, seconds / 6, setting), reverse=True)
    turns = [[rate(model, seconds / 2, setting) for setting in settings[:4]] for _ in range(2)]
    means = [statistics.mean(rates) for rates in zip(*turns, strict=True)]
    speed = max(means)
    return {"images_per_second": speed, "setting": settings[means.index(speed)]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    model = MODELS[parser.parse_args().model]
    # As the service does: without it a process that has just begun is a fifth slower.
    keep_freed_memory()

    def measure(
        seconds: float, setting: dict[str, Any] | None = None, precision: str = "float32"
    ) -> dict[str, Any]:
        if setting is None:
            return best(model, seconds, precision)
        return {"images_per_second": rate(model, seconds, setting)}

    answer_each_line(measure)


if __name__ == "__main__":
    main()
