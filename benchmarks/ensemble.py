"""Many small teachers as one stacked computation, beside the same teachers one after another.

    python -m benchmarks.ensemble

Training: steps of 50 `cnn-small` teachers, batch 32, in our stacks and by plain autograd, one
thread each. Answering: 256 samples by 50 teachers, in our stacked chunks and one network at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ktan.data import Augment, Normalisation
from ktan.networks import NetworkSpec, build
from ktan.taps import parse_taps
from ktan.teachers.stack import Stack, new_states, state_slice
from teacher_server.training.ensemble import EnsembleRecipe, train_ensemble

RESULT = Path(__file__).parent / "results" / "ensemble.json"
K, RECORDS, BATCH, STEPS, SAMPLES = 50, 300, 32, 20, 256
SPEC = NetworkSpec("cnn-small", (1, 28, 28), 10)


def seconds(work: Callable[[], object]) -> float:
    """The best of three runs, after one to warm up."""
    work()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def training(samples: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    shards = [np.arange(i * RECORDS, (i + 1) * RECORDS) for i in range(K)]
    normalise = Normalisation.neutral(samples)
    recipe = EnsembleRecipe(
        spec=SPEC, normalise=normalise, steps=STEPS, batch=BATCH, learning_rate=1e-3,
        optimiser="adam", weight_decay=0.0, augment=Augment("none"), precision="auto", seed=0,
        stack=25,
    )  # fmt: skip
    device = torch.device("cpu")

    def one_after_another() -> None:
        for shard in shards:
            network = build(SPEC)
            optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
            for _ in range(STEPS):
                rows = torch.from_numpy(np.random.default_rng(0).choice(shard, BATCH))
                loss = F.cross_entropy(network(normalise(samples[rows])), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    ours = seconds(lambda: train_ensemble(samples, labels, shards, recipe, device=device))
    plain = seconds(one_after_another)
    images = K * STEPS * BATCH
    return {
        "stacked_images_per_second": round(images / ours),
        "one_after_another_images_per_second": round(images / plain),
        "ratio": round(plain / ours, 2),
    }


def answering(samples: torch.Tensor) -> dict[str, float]:
    states = new_states(SPEC, list(range(K)))
    stack = Stack(SPEC, parse_taps(["probabilities"]), torch.device("cpu"))
    normalised = Normalisation.neutral(samples)(samples[:SAMPLES])
    networks = []
    for teacher in range(K):
        network = build(SPEC).eval()
        network.load_state_dict({name: value[teacher] for name, value in states.items()})
        networks.append(network)

    def stacked() -> None:
        for teachers, part in stack.chunks(K, SAMPLES):
            stack.read(state_slice(states, teachers), normalised[part])

    @torch.no_grad()
    def one_after_another() -> None:
        for network in networks:
            torch.softmax(network(normalised), dim=1)

    ours, plain = seconds(stacked), seconds(one_after_another)
    return {
        "stacked_samples_per_second": round(SAMPLES / ours),
        "one_after_another_samples_per_second": round(SAMPLES / plain),
        "ratio": round(plain / ours, 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (K * RECORDS, 1, 28, 28)
    samples = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (K * RECORDS,), generator=generator)
    rows = {"training": training(samples, labels), "answering": answering(samples)}
    for name, row in rows.items():
        print(f"{name}: " + "  ".join(f"{key}={value}" for key, value in row.items()))
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.ensemble",
        "teachers": K,
        **rows,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
