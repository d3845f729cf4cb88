"""A large teacher and a small student on CIFAR-10: how much smaller, how much faster, what is lost.

    python -m benchmarks.pair --data-root DIR --out DIR

Both networks are named here, before either is trained. A teacher of half the parameters is trained
as the teacher was: were it as good, the teacher would be larger than its accuracy justifies. All
learn from the same 50,000 labelled images; the student also reads what the teacher said of each of
them once, of the image and of its mirror image, and sees random views. No noise, no promise: public
data. Accuracy is that after the last step, on images that nothing looked at before.

For a GPU: two virtual cores train the teacher at some 95 images/s, nine hours for its epochs. The
same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
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

TEACHER = NetworkSpec("resnet14", (3, 32, 32), 10, {"widths": [64, 64, 128, 256]})
HALF = NetworkSpec("resnet14", (3, 32, 32), 10, {"widths": [48, 48, 96, 176]})
STUDENT = NetworkSpec("resnet8", (3, 32, 32), 10, {"widths": [16, 16, 32, 96]})
LABELLED, TEST = 50_000, 9_900
TEACHER_EPOCHS, STUDENT_EPOCHS, BATCH = 60, 240, 128
METHOD = SoftLogits(kd_weight=1.0, temperature=4.0)
GOALS = {"parameters": 20, "speed": 15, "points_lost": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data = f"imagefolder:{arguments.data_root / 'cifar10'}"
    runs = {name: arguments.out / name for name in ("teacher", "half", "student")}
    for name, spec in (("teacher", TEACHER), ("half", HALF)):
        _train_alone(data, spec, runs[name])
    recipe = SplitRecipe(labelled=LABELLED, unlabelled=1, test=TEST)
    public = PublicData.load(DataSource(dataset=data, path_ids=True), recipe)
    _train_student(public, runs["teacher"], runs["student"])
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.pair --data-root DATA --out OUT",
        "epochs": {"teacher and half": TEACHER_EPOCHS, "student": STUDENT_EPOCHS},
        "accuracy": _accuracies(public, runs),
        "size_and_speed": [
            benchmark(
                runs["student"], runs["teacher"], batches=(1, 64), runtimes=("eager", "onnx"),
                threads=threads, turns=15,
            ).to_json()
            for threads in (1, 2)
        ],
        "goals": GOALS,
    }  # fmt: skip
    text = json.dumps(report, indent=2, default=str) + "\n"
    (arguments.out / "pair.json").write_text(text, encoding="utf-8")
    print(text)


def _train_alone(data: str, spec: NetworkSpec, out: Path) -> None:
    """By the command that anybody has; goes on where it was cut off."""
    if (out / "student").exists():
        return
    widths = json.dumps(spec.options["widths"])
    resume = ["--resume"] if (out / "config.toml").exists() else []
    subprocess.run(
        [
            Path(sys.executable).with_name("student-client"), "train", "none",
            "--network", spec.name, "--network-set", f"widths={widths}", "--dataset", data,
            "--path-ids", "--by", "hash", "--labelled", str(LABELLED), "--unlabelled", "1",
            "--test", str(TEST), "--validation", "0", "--epochs", str(TEACHER_EPOCHS),
            "--labelled-batch", str(BATCH),
            "--optimiser", "sgd", "--learning-rate", "0.1", "--weight-decay", "5e-4",
            "--augment", "crop-flip", "--seed", "0", "--out", str(out), *resume,
        ],
        check=True,
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
        steps=math.ceil(STUDENT_EPOCHS * LABELLED / BATCH), answered_batch=BATCH, optimiser="sgd",
        learning_rate=0.1, weight_decay=5e-4, augment="crop-flip", seed=0,
    )  # fmt: skip
    data = TrainingData(
        public.labelled[:0], public.labels[:0], public.labelled, answers, public.labels
    )
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
            for samples in (public.labelled, public.labelled.flip(-1))
        )
        out.mkdir(parents=True, exist_ok=True)
        soft = torch.softmax(logits / 2 / METHOD.temperature, dim=1)
        save_file({"probabilities": soft}, path)
    return load_file(path)


def _accuracies(public: PublicData, runs: dict[str, Path]) -> dict[str, object]:
    """Per cent right, and whether what differs could be chance: McNemar's exact test, on pairs."""
    right = {}
    for name, folder in runs.items():
        network, card = read_student(folder)
        logits = student_logits(network, public.test, normalise=card.normalisation)
        right[name] = logits.cpu().argmax(dim=1) == public.test_labels
    percent = {name: 100 * float(hits.float().mean()) for name, hits in right.items()}
    better = int((right["teacher"] & ~right["half"]).sum())
    worse = int((~right["teacher"] & right["half"]).sum())
    return {
        **percent,
        "test_images": TEST,
        "points_lost": percent["teacher"] - percent["student"],
        "half_is_worse_p": binomtest(better, better + worse, 0.5, alternative="greater").pvalue,
    }


if __name__ == "__main__":
    main()
