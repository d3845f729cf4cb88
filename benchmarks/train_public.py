"""mdistiller's own training step, run where it lies: its networks, distillers, trainer and loader.

`BaseTrainer.train_iter` is called as its trainer calls it, accuracies, meters and all; on a machine
without a GPU its `.cuda()` is a step to nowhere. Its data comes through torch's DataLoader from
images of PIL by torchvision's transforms, a sample at a time, with two workers, as it is set up.
"""

from __future__ import annotations

import copy
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.peers.public_code import PublicCode

SOURCE = "mdistiller"
WORKERS = 2
"""CFG.DATASET.NUM_WORKERS."""
DISTILLERS = {"soft-logits": "KD", "fitnet": "FitNet", "at": "AT"}
"""Method → mdistiller's name."""


class PublicStep:
    """One student in training by mdistiller, in float32 and in the layout that it has."""

    def __init__(
        self,
        code: PublicCode,
        method: str,
        teacher: str,
        student: str,
        classes: int,
        images: Tensor,
        labels: Tensor,
        batch: int,
        device: torch.device,
    ) -> None:
        """`images`: uint8 [n, 3, 32, 32]; `teacher`, `student`: resnet32 and the like."""
        self._device = device
        distiller = _distiller(code, DISTILLERS[method], teacher, student, classes)
        self.student: nn.Module = distiller.student
        distiller = distiller.to(device).train()
        trainer = code.take(
            SOURCE, "mdistiller/engine/trainer.py", "BaseTrainer", given=_tools(code)
        )
        self._trainer = object.__new__(trainer)
        # Behind DataParallel in its scripts, which asks for a GPU; `module` is what it unwraps.
        distiller.__dict__["module"] = distiller
        self._trainer.distiller = distiller
        self._trainer.optimizer = trainer.init_optimizer(self._trainer, _config())
        self._meters = {
            name: _tools(code)["AverageMeter"]()
            for name in ("training_time", "data_time", "losses", "top1", "top5")
        }
        self._loader = _loader(code, images, labels, batch)
        self._batches: Iterator[Any] | None = None
        self._ready = next(iter(self._loader))

    def step(self) -> None:
        """One step on a batch that is there: teacher, student, losses, optimiser, its meters."""
        self._train(self._ready)

    def step_with_data(self) -> None:
        """The same with the next batch from its loader."""
        self._train(self._next())

    def _next(self) -> Any:
        if self._batches is None:
            self._batches = iter(self._loader)
        found = next(self._batches, None)
        if found is None:
            self._batches = iter(self._loader)
            found = next(self._batches)
        return found

    def _train(self, data: Any) -> None:
        if self._device.type == "cuda":
            self._trainer.train_iter(data, 1, self._meters)
            return
        with patch.object(torch.Tensor, "cuda", _stays):
            self._trainer.train_iter(data, 1, self._meters)


def _stays(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def _distiller(code: PublicCode, name: str, teacher: str, student: str, classes: int) -> Any:
    folder = "mdistiller/distillers"
    base = code.take(SOURCE, f"{folder}/_base.py", "Distiller")
    shared = code.take(SOURCE, f"{folder}/_common.py", "ConvReg", "get_feat_shapes")
    given = {"Distiller": base, "ConvReg": shared[0], "get_feat_shapes": shared[1]}
    helpers = {"KD": ("kd_loss",), "AT": ("single_stage_at_loss", "at_loss"), "FitNet": ()}[name]
    found = code.take(SOURCE, f"{folder}/{name}.py", name, *helpers, given=given)
    made = found[0] if isinstance(found, tuple) else found
    parts = ("conv3x3", "BasicBlock", "Bottleneck", "ResNet", teacher, student)
    *_, of_teacher, of_student = code.take(SOURCE, "mdistiller/models/cifar/resnet.py", *parts)
    return made(of_student(num_classes=classes), of_teacher(num_classes=classes), _config())


def _config() -> Any:
    """The values of its `engine/cfg.py` and `configs/cifar100`."""
    loss = SimpleNamespace
    return SimpleNamespace(
        SOLVER=SimpleNamespace(TYPE="SGD", LR=0.05, MOMENTUM=0.9, WEIGHT_DECAY=5e-4),
        KD=SimpleNamespace(TEMPERATURE=4, LOSS=loss(CE_WEIGHT=0.1, KD_WEIGHT=0.9)),
        AT=SimpleNamespace(P=2, LOSS=loss(CE_WEIGHT=1.0, FEAT_WEIGHT=1000.0)),
        FITNET=SimpleNamespace(
            HINT_LAYER=2, INPUT_SIZE=(32, 32), LOSS=loss(CE_WEIGHT=1.0, FEAT_WEIGHT=100.0)
        ),
    )


def _tools(code: PublicCode) -> dict[str, Any]:
    """What its trainer imports."""
    names = ("AverageMeter", "accuracy", "log_msg")
    found = code.take(SOURCE, "mdistiller/engine/utils.py", *names)
    given: dict[str, Any] = {"time": time, "os": os, "optim": torch.optim}
    return {**given, "OrderedDict": OrderedDict, **dict(zip(names, found, strict=True))}


def _loader(code: PublicCode, images: Tensor, labels: Tensor, batch: int) -> Any:
    file = "mdistiller/dataset/cifar100.py"
    given = {"datasets": datasets, "transforms": transforms, "Image": Image}
    kind, transform = code.take(
        SOURCE, file, "CIFAR100Instance", "get_cifar100_train_transform", given=given
    )
    # Its data set without the download: the same class over the images at hand.
    samples = object.__new__(kind)
    samples.data = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    samples.targets = labels.tolist()
    samples.transform, samples.target_transform = transform(), None
    return DataLoader(
        copy.copy(samples), batch_size=batch, shuffle=True, num_workers=WORKERS, drop_last=True
    )
