"""A private teacher and a small student on CIFAR-10: how much smaller and faster, what is lost.

    python -m benchmarks.pair --data-root DIR --out DIR

The teacher has 5,000 images with their labels, which nobody else sees; the student has 45,000
others without labels, and what the teacher says of each and of its mirror image, without noise.
Networks and epochs are named here, before any of them is trained. A teacher of half the parameters
is trained as the teacher was, both from three seeds: were it as good, the teacher would be larger
than its accuracy justifies. Accuracy is that after the last step, on images that nothing looked at
before; the student's loss is against the teacher that it asked, that of the first seed.

Over an hour on two virtual cores. The same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import ttest_1samp
from torch import Tensor

from ktan.data import DataSource, SplitRecipe
from ktan.evaluation import student_logits
from ktan.methods import Binding
from ktan.methods.soft_logits import SoftLogits
from ktan.networks import NetworkSpec, build
from ktan.teacher import AnswerTap
from ktan.trainer import CHECKPOINT, TrainerOptions, train
from ktan.training_data import TrainingData
from student_client.benchmark import benchmark
from student_client.provenance import Provenance
from student_client.public_data import PublicData
from student_client.student_card import StudentCard, read_student, write_student

TEACHER = NetworkSpec("resnet14", (3, 32, 32), 10, {"widths": [36, 36, 72, 144]})
HALF = NetworkSpec("resnet14", (3, 32, 32), 10, {"widths": [25, 25, 51, 102]})
STUDENT = NetworkSpec("resnet8", (3, 32, 32), 10, {"widths": [8, 8, 16, 48]})
SEEDS = (0, 1, 2)
PRIVATE, PUBLIC, TEST = 5_000, 45_000, 9_900
TEACHER_EPOCHS, TEACHER_BATCH, STUDENT_EPOCHS, STUDENT_BATCH = 50, 64, 60, 128
METHOD = SoftLogits(kd_weight=1.0, temperature=4.0)
GOALS = {"parameters": 20, "speed": 15, "points_lost": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data = f"imagefolder:{arguments.data_root / 'cifar10'}"
    networks = {"teacher": TEACHER, "half": HALF}
    runs = {
        f"{name}-{seed}": arguments.out / f"{name}-{seed}" for seed in SEEDS for name in networks
    }
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        trained = [
            pool.submit(_train_alone, data, spec, seed, runs[f"{name}-{seed}"])
            for seed in SEEDS
            for name, spec in networks.items()
        ]
        for one in trained:
            one.result()
    asked, student = runs[f"teacher-{SEEDS[0]}"], arguments.out / "student"
    recipe = SplitRecipe(labelled=PRIVATE, unlabelled=PUBLIC, test=TEST)
    public = PublicData.load(DataSource(dataset=data, path_ids=True), recipe)
    _train_student(public, asked, student)
    runs["student"] = student
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.pair --data-root DATA --out OUT",
        "images": {"private": PRIVATE, "public": PUBLIC, "test": TEST},
        "epochs": {"teacher and half": TEACHER_EPOCHS, "student": STUDENT_EPOCHS},
        "accuracy": _accuracies(public, runs),
        "size_and_speed": [
            benchmark(
                student, asked, batches=(1, 64), runtimes=("eager", "onnx"),
                threads=threads, turns=15,
            ).to_json()
            for threads in (1, 2)
        ],
        "goals": GOALS,
    }  # fmt: skip
    text = json.dumps(report, indent=2, default=str) + "\n"
    text = text.replace(str(arguments.out), "OUT")
    (arguments.out / "pair.json").write_text(text, encoding="utf-8")
    print(text)


def _train_alone(data: str, spec: NetworkSpec, seed: int, out: Path) -> None:
    """By the command that anybody has, on one core; goes on where it was cut off."""
    if (out / "student").exists():
        return
    widths = json.dumps(spec.options["widths"])
    resume = ["--resume"] if (out / "config.toml").exists() else []
    subprocess.run(
        [
            Path(sys.executable).with_name("student-client"), "train", "none",
            "--network", spec.name, "--network-set", f"widths={widths}", "--dataset", data,
            "--path-ids", "--by", "hash", "--labelled", str(PRIVATE), "--unlabelled", str(PUBLIC),
            "--test", str(TEST), "--validation", "0", "--epochs", str(TEACHER_EPOCHS),
            "--labelled-batch", str(TEACHER_BATCH),
            "--optimiser", "sgd", "--learning-rate", "0.1", "--weight-decay", "5e-4",
            "--augment", "crop-flip", "--seed", str(seed), "--out", str(out), *resume,
        ],
        check=True,
        # As many at once as there are cores: faster than one on all of them.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _train_student(public: PublicData, teacher: Path, out: Path) -> None:
    if (out / "student").exists():
        return
    answers = _answers(public, teacher, out)
    tap = AnswerTap("probabilities", "probabilities", (10,), 0.0, METHOD.temperature)
    torch.manual_seed(0)
    student = build(STUDENT)
    binding = Binding(student, STUDENT.input_shape, 10, {tap.name: tap}, answers=answers)
    options = TrainerOptions(
        steps=math.ceil(STUDENT_EPOCHS * PUBLIC / STUDENT_BATCH), answered_batch=STUDENT_BATCH,
        optimiser="sgd",
        learning_rate=0.1, weight_decay=5e-4, augment="crop-flip", seed=0,
    )  # fmt: skip
    data = TrainingData(public.labelled[:0], public.labels[:0], public.unlabelled, answers)
    train(
        student, METHOD.build(binding), data, options, normalise=public.normalisation, folder=out,
        resume=(out / CHECKPOINT).exists(),
    )  # fmt: skip
    card = StudentCard(
        dataset=public.name, classes=public.classes, input_dtype="uint8", network=STUDENT,
        normalisation=public.normalisation, method=METHOD.name, method_options={}, seed=0,
        steps=options.steps, test_accuracy=None, test_samples=0, weights_sha256="",
        privacy=Provenance("unprotected", f"file:{teacher.name}"),
    )  # fmt: skip
    write_student(out / "student", student, card)


def _answers(public: PublicData, teacher: Path, out: Path) -> dict[str, Tensor]:
    """What the teacher says of each image, the mean over it and its mirror image."""
    path = out / "answers.safetensors"
    if not path.exists():
        network, card = read_student(teacher)
        logits = sum(
            student_logits(network, samples, normalise=card.normalisation).float()
            for samples in (public.unlabelled, public.unlabelled.flip(-1))
        )
        out.mkdir(parents=True, exist_ok=True)
        soft = torch.softmax(logits / 2 / METHOD.temperature, dim=1)
        save_file({"probabilities": soft}, path)
    return load_file(path)


def _accuracies(public: PublicData, runs: dict[str, Path]) -> dict[str, object]:
    """Per cent right, and whether the half teachers are worse by more than the choice of test
    images explains: per image the mean over the seeds, teacher against half."""
    right = {}
    for name, folder in runs.items():
        network, card = read_student(folder)
        logits = student_logits(network, public.test, normalise=card.normalisation)
        right[name] = (logits.cpu().argmax(dim=1) == public.test_labels).float()
    percent = {name: 100 * float(hits.mean()) for name, hits in right.items()}
    gains = sum(right[f"teacher-{seed}"] - right[f"half-{seed}"] for seed in SEEDS) / len(SEEDS)
    return {
        **percent,
        "test_images": TEST,
        "points_lost": percent[f"teacher-{SEEDS[0]}"] - percent["student"],
        "half_is_worse_points": 100 * float(gains.mean()),
        "half_is_worse_p": float(ttest_1samp(gains.numpy(), 0.0, alternative="greater").pvalue),
    }


if __name__ == "__main__":
    main()
