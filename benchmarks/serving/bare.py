"""The bare forward pass: `python -m benchmarks.serving.bare MODEL SECONDS [--setting JSON]`.

Normalised images that lie ready, logits, nothing else. Without a setting it tries every batch size,
layout, number of threads and way of using the cores (several calls at once, or torch's own threads)
in the precision asked for, and prints the best; with one it measures that again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from benchmarks.serving.models import MODELS, SHAPE, Model
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


def rate(model: Model, seconds: float, setting: dict) -> float:
    """Images a second, over all threads."""
    torch.set_num_threads(setting["torch_threads"])
    last = setting["channels_last"]
    samples = torch.randn(setting["batch"], *SHAPE)
    if last:
        samples = samples.contiguous(memory_format=torch.channels_last)
    counts = [0] * setting["callers"]
    ready = threading.Barrier(setting["callers"] + 1)
    stop = threading.Event()

    def call(number: int) -> None:
        own = networks(model, last)
        with torch.inference_mode(), _precision(setting["precision"]):
            _pass(own, samples)
            ready.wait()
            while not stop.is_set():
                _pass(own, samples)
                counts[number] += len(samples)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(setting["callers"])]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def _pass(own: list[nn.Module], samples: Tensor) -> None:
    for network in own:
        network(samples)


def _precision(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def best(model: Model, seconds: float, precision: str) -> dict:
    """The fastest setting, and its rate."""
    cores = os.cpu_count() or 1
    ways = {(1, cores), (cores, 1)}
    found = []
    for batch, last, (callers, threads) in itertools.product(
        (32, 64, 128, 256), (True, False), sorted(ways)
    ):
        setting = {
            "batch": batch, "channels_last": last, "callers": callers, "torch_threads": threads,
            "precision": precision,
        }  # fmt: skip
        found.append((rate(model, seconds, setting), setting))
    speed, setting = max(found, key=lambda pair: pair[0])
    return {"images_per_second": speed, "setting": setting}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--setting", type=json.loads)
    arguments = parser.parse_args()
    model, seconds = MODELS[arguments.model], arguments.seconds
    if arguments.setting is None:
        print(json.dumps(best(model, seconds, arguments.precision)))
    else:
        speed = rate(model, seconds, arguments.setting)
        print(json.dumps({"images_per_second": speed, "setting": arguments.setting}))


if __name__ == "__main__":
    main()
