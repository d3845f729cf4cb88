"""The peers by name: each hands its public implementation what that expects, and adds nothing.

Options are those that the implementation's own scripts use for a pair of this kind.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.peer import Pair, Peer, Seen
from benchmarks.peers.public_code import PublicCode
from benchmarks.peers.singular_vectors import (
    FiniteSingularVectors,
    OtherSingularVectors,
    SingularVectors,
)
from benchmarks.peers.torchdistill_forms import hooked, pairs
from ktan.schedule import Place

STEM = "features.stem"
"""Of our residual networks; RepDistiller's FSP begins there."""


class SoftLogits(Peer):
    source = "torchdistill KDLoss"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        ends = ("0", "output")
        losses = code.torchdistill("losses.mid_level")
        self.kd = losses.KDLoss(*ends, *ends, temperature=4.0, alpha=0.1)

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        found: Tensor = self.kd(hooked([student.logits]), hooked([teacher.logits]), labels)
        return found


class FitNet(Peer):
    """One stage: cross-entropy and the hint together, as RepDistiller and mdistiller weigh it."""

    source = "torchdistill ConvReg and torch's MSELoss, weight 100"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.reads(lambda side: side.stages.maps[1:2])
        (one,), (other,) = self.student_paths, self.teacher_paths
        shapes = pair.student.shapes[one], pair.teacher.shapes[other]
        regression = code.torchdistill("models.adaptation").ConvReg
        self.regression = regression(shapes[0][0], shapes[1][0], kernel_size=1, stride=1, padding=0)

    def hint(self, student: Seen, teacher: Seen) -> Tensor:
        (one,), (other,) = self.student_paths, self.teacher_paths
        return F.mse_loss(self.regression(student.at[one]), teacher.at[other])

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        return F.cross_entropy(student.logits, labels) + 100 * self.hint(student, teacher)


class TwoStageFitNet(FitNet):
    """The paper's form: the hint alone, then soft logits."""

    source = "torchdistill ConvReg and torch's MSELoss, then KDLoss"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair, code, share)
        self.initialised(share)
        self.soft = SoftLogits(pair, code, share)

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        if place.number == 0:
            return self.hint(student, teacher)
        return self.soft.loss(place, student, teacher, labels)


class Attention(Peer):
    source = "torchdistill ATLoss, mode code, weight 1000"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.reads(lambda side: side.stages.maps)
        count = len(self.student_paths)
        self.attention = code.torchdistill("losses.mid_level").ATLoss(
            pairs(count, lambda _: 1000.0), "code"
        )

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        maps = (
            hooked([seen.at[path] for path in paths])
            for seen, paths in ((student, self.student_paths), (teacher, self.teacher_paths))
        )
        attention: Tensor = self.attention(*maps)
        return F.cross_entropy(student.logits, labels) + attention


class Boundary(Peer):
    """AB: the boundary alone through connectors, then cross-entropy."""

    source = "torchdistill AltActTransferLoss and Connector4DAB, margin 1"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.reads(lambda side: side.stages.before_activation)
        self.initialised(share)
        count = len(self.student_paths)
        self.boundary = code.torchdistill("losses.mid_level").AltActTransferLoss(
            pairs(count, lambda i: 3e-3 * 2.0 ** (i - count + 1)), margin=1.0, reduction="mean"
        )
        connector = code.torchdistill("models.wrapper").Connector4DAB.build_connector
        self.connectors = nn.ModuleList(
            connector(
                {
                    "in_channels": pair.student.shapes[one][0],
                    "out_channels": pair.teacher.shapes[other][0],
                    "kernel_size": 1,
                    "bias": False,
                },
                {"num_features": pair.teacher.shapes[other][0]},
            )
            for one, other in zip(self.student_paths, self.teacher_paths, strict=True)
        )

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        if place.number:
            return F.cross_entropy(student.logits, labels)
        mine = [
            connect(student.at[path])
            for connect, path in zip(self.connectors, self.student_paths, strict=True)
        ]
        theirs = [teacher.at[path] for path in self.teacher_paths]
        found: Tensor = self.boundary(hooked(mine), hooked(theirs))
        return found


class Flow(Peer):
    """FSP: stem and all stages alone, then cross-entropy, as RepDistiller does it."""

    source = "Knowledge-Distillation-Zoo FSP (RepDistiller's, as one matrix product)"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.reads(lambda side: (STEM, *side.stages.maps))
        self.initialised(share)
        self.flow = code.take("Knowledge-Distillation-Zoo", "kd_losses/fsp.py", "FSP")()

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        if place.number:
            return F.cross_entropy(student.logits, labels)
        mine = [student.at[path] for path in self.student_paths]
        theirs = [teacher.at[path] for path in self.teacher_paths]
        parts = [
            self.flow(mine[i], mine[i + 1], theirs[i], theirs[i + 1]) for i in range(len(mine) - 1)
        ]
        return torch.stack(parts).sum()


class DecoupledKD(Peer):
    source = "mdistiller dkd_loss, alpha 1, beta 8, T = 4, warm-up of 20 in 240"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.dkd, *_ = code.take(
            "mdistiller", "mdistiller/distillers/DKD.py",
            "dkd_loss", "_get_gt_mask", "_get_other_mask", "cat_mask",
        )  # fmt: skip

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        begun = (place.schedule_step + 1) / place.schedule_steps * 240 / 20
        dkd: Tensor = self.dkd(student.logits, teacher.logits, labels, 1.0, 8.0, 4.0)
        return F.cross_entropy(student.logits, labels) + min(begun, 1.0) * dkd


class OwnTeacher(Peer):
    """BYOT: its exits behind our student's stages, its losses between them."""

    source = "pytorch-be-your-own-teacher, alpha 0.1, T = 3, beta 1e-6"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        folder = "pytorch-be-your-own-teacher"
        *before, last = pair.student.stages.maps
        self.student_paths = (*before, pair.student.stages.pooled)
        self.kd, self.feature = code.take(
            folder, "train.py", "kd_loss_function", "feature_loss_function"
        )
        self.options = argparse.Namespace(temperature=3, alpha=0.1, beta=1e-6)
        branch = code.take(folder, "models/resnet.py", "branchBottleNeck")
        width, size = pair.student.shapes[last][0], pair.student.shapes[last][-1]
        shapes = [pair.student.shapes[path] for path in before]
        self.branches = nn.ModuleList(
            nn.Sequential(
                branch(shape[0], width, shape[-1] // size), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )
            for shape in shapes
        )
        self.exits = nn.ModuleList(nn.Linear(width, pair.classes) for _ in shapes)
        for module in self.branches.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        *before, pooled = self.student_paths
        options = self.options
        target = torch.softmax(student.logits / options.temperature, dim=1).detach()
        total: Tensor = (1 - options.alpha) * F.cross_entropy(student.logits, labels)
        for branch, leave, path in zip(self.branches, self.exits, before, strict=True):
            feature = branch(student.at[path])
            logits = leave(feature)
            soft = self.kd(logits, target, options) * options.temperature**2
            total = total + (1 - options.alpha) * F.cross_entropy(logits, labels)
            total = total + options.alpha * soft
            total = total + options.beta * self.feature(feature, student.at[pooled].detach())
        return total


class Meal(Peer):
    """Student and discriminator go down one loss, as the public code has it."""

    source = "MEAL betweenLoss(CrossEntropy) and discriminatorLoss on logits, one teacher"
    rate = 0.01  # its scripts: 1e-3 beside the student's 0.1

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        cross, between, adversarial = code.take(
            "MEAL", "loss.py", "CrossEntropy", "betweenLoss", "discriminatorLoss"
        )
        kinds = code.take("MEAL", "models/discriminator.py", "Discriminator", "Discriminators")
        every = kinds[1]([pair.classes], grl=False)
        # Its list is no ModuleList: parameters would be forgotten.
        self.networks = nn.ModuleList(every.discriminators)
        self.similarity = between([1.0], loss=cross)
        self.adversarial = adversarial(every, [1.0])

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        ends = [student.logits], [teacher.logits]
        found: Tensor = self.similarity(*ends) + self.adversarial(*ends)
        return found


Make = Callable[[Pair, PublicCode, float], Peer]

PEERS: Mapping[str, Make] = {
    "alone": lambda pair, code, share: Peer(pair),
    "soft-logits": SoftLogits,
    "fitnet": FitNet,
    "fitnet-two-stage": TwoStageFitNet,
    "at": Attention,
    "ab": Boundary,
    "fsp": Flow,
    "kd-svd": SingularVectors,
    "kd-svd-finite": FiniteSingularVectors,
    "kd-svd-mdistiller": OtherSingularVectors,
    "dkd": DecoupledKD,
    "byot": OwnTeacher,
    "meal": Meal,
}
"""Name → how to make it; `alone` is the student without a teacher, in the same loop."""


def describe(peer: Peer) -> dict[str, Any]:
    """What the results say of it."""
    return {
        "source": peer.source,
        "stages": {stage.name: round(stage.share, 4) for stage in peer.stages},
    }
