"""Measures what shrinkage of noisy answers is worth to a student, on MNIST; see docs/shrinkage.md.

    python -m benchmarks.shrinkage --data-root DIR [--seeds 5] [--out FILE.json]

The teacher, the student and the data are those of `benchmarks.student_losses` (`ensemble`, local +
KD), under noise of several standard deviations, and once under noise for 200 passes instead of 60.
All rows of one setting are paired by seed: same first weights, batches, answers and noise.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks.student_losses import LABELLED, OPTIONS, QUERIES, SHAPE, SPEC, Bench
from ktan.denoising import Denoising, denoise
from ktan.evaluation import accuracy
from ktan.methods import Binding
from ktan.methods.soft_logits import SoftLogits
from ktan.networks import build
from ktan.teacher import AnswerTap
from ktan.trainer import train
from ktan.training_data import TrainingData

SETTINGS = ((0.05, 60), (0.13, 60), (0.25, 60), (0.13, 200))
"""Noise sd, passes over the answers."""
TAP = AnswerTap("probabilities", "probabilities", (10,))
"""What the student is told: the answers are shrunk before it sees them."""


def measure(bench: Bench, noise_sd: float, epochs: int, how: Denoising) -> dict[str, object]:
    """One row: accuracies in per cent, and the mean squared error of the shrunk answers."""
    pool = bench.pools["ensemble"]
    found, errors, began = [], [], time.process_time()
    for seed in range(bench.seeds):
        generator = torch.Generator().manual_seed(1000 + seed)
        labelled = torch.randperm(40_000, generator=generator)[:LABELLED] + 10_000
        asked = torch.randperm(len(pool.samples), generator=generator)[:QUERIES]
        clean = pool.clean["probabilities"][asked]
        noise = torch.randn(clean.shape, generator=generator)
        answers = {TAP.name: denoise(clean + noise_sd * noise, how, noise_sd)}
        errors.append(float(((answers[TAP.name] - clean) ** 2).sum(dim=1).mean()))
        torch.manual_seed(seed)
        student = build(SPEC)
        objective = SoftLogits().build(
            Binding(student, SHAPE, 10, taps={TAP.name: TAP}, answers=answers)
        )
        data = TrainingData(
            bench.train[0][labelled], bench.train[1][labelled], pool.samples[asked], answers
        )
        options = replace(OPTIONS, seed=seed, epochs=epochs)
        train(student, objective, data, options, normalise=bench.normalise, progress=False)
        found.append(
            100 * accuracy(student, *bench.test, normalise=bench.normalise, precision="float32")
        )
    return {
        "noise_sd": noise_sd,
        "epochs": epochs,
        "denoise": how,
        "accuracy": [round(value, 2) for value in found],
        "squared_error": round(float(np.mean(errors)), 4),
        "seconds": round((time.process_time() - began) / bench.seeds, 1),
    }


def summarised(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Each row with its mean ± sd, and its paired difference to `simplex`."""
    of_simplex = {
        (row["noise_sd"], row["epochs"]): np.array(row["accuracy"])
        for row in rows
        if row["denoise"] == "simplex"
    }
    for row in rows:
        values = np.array(row["accuracy"])
        paired = values - of_simplex[row["noise_sd"], row["epochs"]]
        for name, figures in (("", values), ("paired_", paired)):
            row[f"{name}mean"] = round(float(figures.mean()), 2)
            row[f"{name}sd"] = round(float(figures.std(ddof=1)), 2)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="holds MNIST/raw")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.data_root, arguments.seeds)
    rows = []
    for noise_sd, epochs in SETTINGS:
        setting = [measure(bench, noise_sd, epochs, how) for how in get_args(Denoising)]
        for row in summarised(setting):
            print(
                f"σ {noise_sd:<4} {epochs:3} epochs  {row['denoise']:9} {row['mean']:6.2f} ± "
                f"{row['sd']:.2f}  to simplex {row['paired_mean']:+6.2f} ± {row['paired_sd']:.2f}  "
                f"error {row['squared_error']:.4f}  {row['seconds']} s",
                flush=True,
            )
        rows += setting
    if arguments.out:
        content = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python -m benchmarks.shrinkage --data-root DATA --seeds {arguments.seeds}",
            "setting": {"seeds": arguments.seeds, "threads": 1, "torch": torch.__version__},
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
