"""Students of noisy answers, and how sure each is of the targets' labels."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.membership_statistics import logit_confidence
from benchmarks.membership_worlds import CLASSES, Worlds
from ktan.methods import Binding
from ktan.methods.soft_logits import SoftLogits
from ktan.networks import NetworkSpec, build
from ktan.teacher import AnswerTap
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData

STEPS = 80
WIDTH = 32


def student_confidence(
    worlds: Worlds, answers: np.ndarray, noise_sd: float, seed: int
) -> np.ndarray:
    """float64 [T]: logit of the probability that a student gives each target's label.

    answers: float [p, 10], what the service said of the world's public samples; `noise_sd` is
    published. The student has no label, and has never seen a target.
    """
    tap = AnswerTap("probabilities", "probabilities", (CLASSES,), noise_sd)
    shape = tuple(worlds.public.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = build(NetworkSpec("mlp-small", shape, CLASSES, {"hidden": [WIDTH]}))
    told = {"probabilities": torch.from_numpy(answers.astype(np.float32))}
    data = TrainingData(worlds.public[:0], torch.empty(0, dtype=torch.int64), worlds.public, told)
    method = SoftLogits()
    objective = method.build(Binding(student, shape, CLASSES, {"probabilities": tap}, answers=told))
    options = TrainerOptions(
        steps=STEPS, learning_rate=3e-3, device="cpu", precision="float32", seed=seed
    )
    train(student, objective, data, options, normalise=worlds.normalise, progress=False)
    with torch.no_grad():
        logits = student(worlds.normalise(worlds.targets.samples))
    chances = torch.softmax(logits.double(), dim=1).numpy()
    return logit_confidence(chances[np.arange(len(chances)), worlds.targets.labels])
