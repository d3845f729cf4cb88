"""KD-SVD by public implementations, in three ways."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.peer import Pair, Peer, Seen
from benchmarks.peers.public_code import PublicCode
from ktan.schedule import Place


class SingularVectors(Peer):
    """KD-SVD."""

    source = "RepDistiller KDSVD, k = 1, weight 1"

    def __init__(self, pair: Pair, code: PublicCode, share: float) -> None:
        super().__init__(pair)
        self.reads(lambda side: side.stages.maps)
        self.relation = self.relate(code)

    def relate(self, code: PublicCode) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
        found: nn.Module = code.take("RepDistiller", "distiller_zoo/KDSVD.py", "KDSVD")(1)
        return found

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        parts = self.relation(
            [student.at[path] for path in self.student_paths],
            [teacher.at[path] for path in self.teacher_paths],
        )
        return F.cross_entropy(student.logits, labels) + torch.stack(parts).sum()


class FiniteSingularVectors(SingularVectors):
    """The same with gradients that are no number taken as zero: as it stands, none is a number
    where a map has two equal singular values (two dead channels), and a few steps end it."""

    source = "RepDistiller KDSVD, k = 1, weight 1; gradients that are no number made zero"

    def loss(self, place: Place, student: Seen, teacher: Seen, labels: Tensor) -> Tensor:
        maps = {path: _with_finite_gradient(student.at[path]) for path in self.student_paths}
        return super().loss(place, Seen(student.logits, maps), teacher, labels)


def _with_finite_gradient(values: Tensor) -> Tensor:
    passed = values.view_as(values)
    passed.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    )
    return passed


class OtherSingularVectors(SingularVectors):
    """mdistiller's, which unfolds maps to (c·h) × w."""

    source = "mdistiller kdsvd_loss, k = 1, weight 1: unfolds to (c·h) × w"

    def relate(self, code: PublicCode) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
        loss, *_ = code.take(
            "mdistiller", "mdistiller/distillers/KDSVD.py",
            "kdsvd_loss", "svd", "removenan", "align_rsv",
        )  # fmt: skip
        return lambda mine, theirs: [loss(mine, theirs, 1)]
