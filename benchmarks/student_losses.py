"""What each loss is worth to a student of a noisy teacher, on MNIST; see docs/methods/ktan.md.

    python -m benchmarks.student_losses --data-root DIR [--seeds 5] [--out FILE.json]

Two teachers, simulated in this process (nothing here is private, nothing is paid for):
`ensemble`: 24 small CNNs on 300 records each; mean probabilities plus Gaussian noise of sd 0.13,
and one network's pooled feature reduced to 8 dimensions and clipped to its median norm B, plus
noise of sd 0.59·B: what 200 teachers release for 300 answers at ε = 4 with shares 0.9 and 0.1.
`dp-sgd`: one small CNN on 8,000 records, its probabilities, pooled feature and map without noise.
The student sees 100 labels and 300 answers. All rows of one teacher are paired by seed.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ktan.data import DataSource, Normalisation
from ktan.evaluation import accuracy, student_features
from ktan.methods import Binding, Method
from ktan.methods.fitnet import FitNet
from ktan.methods.ktan import KTAN
from ktan.methods.local import Local
from ktan.methods.soft_logits import SoftLogits
from ktan.networks import NetworkSpec, build
from ktan.tap_reader import read_taps
from ktan.teacher import AnswerTap
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData

SHAPE = (1, 28, 28)
SPEC = NetworkSpec("cnn-small", SHAPE, 10)
TEACHERS, SHARD, LABELLED, QUERIES = 24, 300, 100, 300
NOISE_SD, HINT_NOISE = 0.13, 0.59
OPTIONS = TrainerOptions(precision="float32", device="cpu")


@dataclass(frozen=True)
class Pool:
    """Public samples, and what one teacher would say of each before noise."""

    samples: Tensor
    taps: dict[str, AnswerTap]
    clean: dict[str, Tensor]


class Bench:
    """The data, the two teachers and the rows measured so far."""

    def __init__(self, data_root: Path, seeds: int) -> None:
        dataset = DataSource(dataset="mnist", data_root=data_root).load()
        samples, labels = dataset.samples, dataset.labels
        test = torch.as_tensor(dataset.holdout)
        self.train = samples[~test], labels[~test]
        self.test = samples[test], labels[test]
        self.normalise = Normalisation.neutral(samples)
        self.seeds = seeds
        self.rows: list[dict[str, object]] = []
        self.pools = {"ensemble": self._ensemble(), "dp-sgd": self._rich()}

    def _taught(self, part: slice, steps: int, batch: int, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        network = build(SPEC)
        data = TrainingData(self.train[0][part], self.train[1][part])
        options = replace(OPTIONS, steps=steps, labelled_batch=batch, seed=seed)
        objective = Local().build(Binding(network, SHAPE, 10))
        train(network, objective, data, options, normalise=self.normalise, progress=False)
        return network

    def _ensemble(self) -> Pool:
        pool = self.train[0][50_000:56_000]
        networks = [
            self._taught(slice(SHARD * i, SHARD * (i + 1)), 150, 50, i) for i in range(TEACHERS)
        ]
        with torch.no_grad():
            votes = [torch.softmax(net(self.normalise(pool)), dim=1) for net in networks]
        features = student_features(
            networks[0], "features", pool, normalise=self.normalise, precision="float32"
        )
        features = features - features.mean(dim=0)
        hints = features @ torch.linalg.svd(features, full_matrices=False).Vh[:8].T
        norms = hints.norm(dim=1, keepdim=True)
        bound = norms.median()
        taps = {
            "probabilities": AnswerTap("probabilities", "probabilities", (10,), NOISE_SD),
            "hint": AnswerTap("hint", "hint", (8,), HINT_NOISE * float(bound)),
        }
        clean = {
            "probabilities": torch.stack(votes).mean(dim=0),
            "hint": hints * (bound / norms).clamp(max=1),
        }
        return Pool(pool, taps, clean)

    def _rich(self) -> Pool:
        pool = self.train[0][50_000:56_000]
        network = self._taught(slice(0, 8_000), 400, 100, 0)
        with torch.no_grad(), read_taps(network, ["features", "features.3"]) as read:
            logits, features = read(self.normalise(pool))
        taps = {
            "probabilities": AnswerTap("probabilities", "probabilities", (10,)),
            "hint": AnswerTap("hint", "hint", (64,)),
            "hint.map": AnswerTap("hint.map", "hint", (32, 4, 4)),
        }
        clean = {
            "probabilities": torch.softmax(logits, dim=1),
            "hint": features["features"],
            "hint.map": features["features.3"],
        }
        return Pool(pool, taps, clean)

    def measure(
        self,
        teacher: str,
        name: str,
        method: Method,
        paths: dict[str, str] | None = None,
        *,
        noiseless: bool = False,
        options: TrainerOptions = OPTIONS,
    ) -> None:
        """Adds one row: last-step test accuracy of each seed, in per cent."""
        pool = self.pools[teacher]
        found, judged, began = [], [], time.perf_counter()
        for seed in range(self.seeds):
            generator = torch.Generator().manual_seed(1000 + seed)
            labelled = torch.randperm(40_000, generator=generator)[:LABELLED] + 10_000
            asked = torch.randperm(len(pool.samples), generator=generator)[:QUERIES]
            taps = {
                key: replace(tap, noise_sd=0.0 if noiseless else tap.noise_sd)
                for key, tap in pool.taps.items()
            }
            answers = {}
            for key, tap in taps.items():
                clean = pool.clean[key][asked]
                noise = torch.randn(clean.shape, generator=generator)
                answers[key] = clean + tap.noise_sd * noise
            torch.manual_seed(seed)
            student = build(SPEC)
            objective = method.build(
                Binding(
                    student, SHAPE, 10, taps, {k: (v,) for k, v in (paths or {}).items()}, answers
                )
            )
            public = self.train[0][labelled], self.train[1][labelled]
            alone = isinstance(method, Local)
            data = TrainingData(*public) if alone else TrainingData(
                *public, pool.samples[asked], answers
            )  # fmt: skip
            history = train(
                student, objective, data, replace(options, seed=seed),
                normalise=self.normalise, progress=False,
            )  # fmt: skip
            found.append(
                100 * accuracy(student, *self.test, normalise=self.normalise, precision="float32")
            )
            if "discriminator_accuracy" in history.curves:
                curve = [value for _, value in history.curves["discriminator_accuracy"]]
                judged.append(float(np.mean(curve)))
        row = {
            "teacher": teacher,
            "row": name,
            "accuracy": [round(value, 2) for value in found],
            "mean": round(float(np.mean(found)), 2),
            "sd": round(float(np.std(found, ddof=1)), 2),
            "discriminator_accuracy": round(float(np.mean(judged)), 2) if judged else None,
            "seconds": round((time.perf_counter() - began) / self.seeds, 1),
        }
        self.rows.append(row)
        print(
            f"{teacher:9} {name:44} {row['mean']:6.2f} ± {row['sd']:.2f}  "
            f"D {row['discriminator_accuracy'] or '-':>4}  {row['seconds']} s",
            flush=True,
        )


def measure_all(bench: Bench) -> None:
    """The rows of docs/methods/ktan.md."""
    narrow = {"hint": "features"}
    ensemble = "ensemble"
    bench.measure(ensemble, "local only", Local())
    bench.measure(ensemble, "local + KD, noiseless", SoftLogits(), noiseless=True)
    bench.measure(ensemble, "all four, noiseless", KTAN(), narrow, noiseless=True)
    bench.measure(ensemble, "local + KD, denoise none", SoftLogits(denoise="none"))
    bench.measure(ensemble, "local + KD", SoftLogits())
    for weight in (1.0, 10.0):
        bench.measure(ensemble, f"local + KD, λ_kd {weight:g}", SoftLogits(kd_weight=weight))
    long = replace(OPTIONS, epochs=300)
    bench.measure(ensemble, "local + KD, 300 epochs", SoftLogits(), options=long)
    none = SoftLogits(denoise="none")
    bench.measure(ensemble, "local + KD, denoise none, 300 epochs", none, options=long)
    bench.measure(ensemble, "local + KD + hint", FitNet(), narrow)
    bench.measure(ensemble, "all four", KTAN(), narrow)
    bench.measure(ensemble, "all four, bf16", KTAN(), narrow,
                  options=replace(OPTIONS, precision="bf16"))  # fmt: skip
    for weight in (0.1, 0.3):
        bench.measure(
            ensemble, f"all four, λ_adv {weight}", KTAN(adversarial_weight=weight), narrow
        )
    bench.measure(ensemble, "all four, λ_hint 3", KTAN(hint_weight=3.0), narrow)
    bench.measure(ensemble, "all four, D never rests", KTAN(discriminator_rest=1.0), narrow)
    rich = "dp-sgd"
    bench.measure(rich, "local + KD", SoftLogits())
    for kind, paths in (("vector", narrow), ("map", {"hint.map": "features.3"})):
        bench.measure(rich, f"local + KD + hint, {kind}", FitNet(), paths)
        bench.measure(rich, f"all four, {kind}", KTAN(), paths)
        tireless = KTAN(discriminator_rest=1.0)
        bench.measure(rich, f"all four, {kind}, D never rests", tireless, paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="holds MNIST/raw")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.data_root, arguments.seeds)
    measure_all(bench)
    if arguments.out:
        seeds, threads = arguments.seeds, arguments.threads
        content = {
            "date": time.strftime("%Y-%m-%d"),
            "command": "python -m benchmarks.student_losses --data-root DATA "
            f"--seeds {seeds} --threads {threads}",
            "setting": {"seeds": seeds, "threads": threads, "torch": torch.__version__},
            "rows": bench.rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
