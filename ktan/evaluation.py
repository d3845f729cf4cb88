"""What a trained student is worth."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.precision import Precision, autocast
from ktan.spool import spooled
from ktan.tap_reader import read_taps

_CHUNK = 1000


@torch.no_grad()
def accuracy(
    student: nn.Module,
    samples: Tensor,
    labels: Tensor,
    *,
    normalise: Normalisation,
    precision: Precision = "auto",
) -> float:
    """Share of samples whose largest logit is their label's, in [0, 1].

    `samples`: uint8 (or float32) [n, ...], n >= 1; `labels`: int64 [n].
    """
    if len(samples) != len(labels) or not len(samples):
        raise ValueError(f"{len(samples)} samples, {len(labels)} labels")
    hits = 0
    for start, logits, _ in _walk(student, samples, normalise, precision, ()):
        hits += int((logits.argmax(dim=1).cpu() == labels[start : start + len(logits)]).sum())
    return hits / len(samples)


@torch.no_grad()
def student_features(
    student: nn.Module,
    path: str,
    samples: Tensor,
    *,
    normalise: Normalisation,
    precision: Precision = "auto",
) -> Tensor:
    """One tap of the student, flattened: float32 [n, d] on its device; where large, spooled."""
    return _gathered(
        len(samples),
        (
            (start, features[path].flatten(1).float())
            for start, _, features in _walk(student, samples, normalise, precision, (path,))
        ),
    )


@torch.no_grad()
def student_logits(
    student: nn.Module,
    samples: Tensor,
    *,
    normalise: Normalisation,
    precision: Precision = "auto",
) -> Tensor:
    """The student's logits: float32 [n, classes] on its device; where large, spooled."""
    return _gathered(
        len(samples),
        (
            (start, logits.float())
            for start, logits, _ in _walk(student, samples, normalise, precision, ())
        ),
    )


def _gathered(count: int, parts: Iterable[tuple[int, Tensor]]) -> Tensor:
    """Parts of `count` rows, with the row that each begins at, as one tensor on their device."""
    whole = torch.empty(0)
    for start, part in parts:
        if start == 0:
            shape = (count, *part.shape[1:])
            on_disk = part.device.type == "cpu"
            whole = spooled(shape, part.dtype) if on_disk else part.new_empty(shape)
        whole[start : start + len(part)] = part
    return whole


def _walk(
    student: nn.Module,
    samples: Tensor,
    normalise: Normalisation,
    precision: Precision,
    paths: tuple[str, ...],
) -> Iterator[tuple[int, Tensor, dict[str, Tensor]]]:
    device = next(student.parameters()).device
    training = student.training
    student.eval()
    try:
        for start in range(0, len(samples), _CHUNK):
            chunk = normalise(samples[start : start + _CHUNK].to(device))
            with autocast(device, precision), read_taps(student, paths) as read:
                logits, features = read(chunk)
            yield start, logits, features
    finally:
        student.train(training)
