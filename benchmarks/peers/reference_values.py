"""Writes what public implementations make of small fixed inputs, for tests to compare with.

    python -m benchmarks.peers.reference_values --repositories DIR

DIR holds clones of the repositories of `benchmarks.peers.public_code`; torchdistill is installed.
The inputs stand in the file beside the values: a test needs neither.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.public_code import PublicCode
from benchmarks.peers.reference_book import (
    SHAPES,
    Book,
    Inputs,
    Loss,
    compact,
    make_inputs,
    maps,
)
from benchmarks.peers.reference_byot_meal import by_byot, by_meal
from benchmarks.peers.torchdistill_forms import hooked, pairs

RESULT = Path("tests/ktan/methods/reference_values.json")


def of_maps(loss: Any, what: str, form: Callable[[list[Tensor]], Any] = list) -> Loss:
    """A loss of the student's and the teacher's maps of all stages; its parts are summed."""

    def value(inputs: Inputs) -> Tensor:
        student, teacher = (form(maps(inputs, who, what)) for who in ("student", "teacher"))
        found = loss(student, teacher)
        return torch.stack(list(found)).sum() if isinstance(found, list) else found

    return value


def by_torchdistill(book: Book, code: PublicCode) -> None:
    """Soft logits, AT in both its readings, FSP, AB."""
    mid_level = code.torchdistill("losses.mid_level")
    ends = ("0", "output")
    kd = mid_level.KDLoss(*ends, *ends, temperature=4.0, alpha=0.1)
    book.write(
        "soft-logits", "torchdistill KDLoss", {"temperature": 4.0, "alpha": 0.1},
        lambda x: kd(hooked([x["student_logits"]]), hooked([x["teacher_logits"]]), x["labels"]),
        "alpha*CE + (1 - alpha)*T^2*KL, means over the batch",
    )  # fmt: skip
    for mode in ("code", "paper"):
        attention = mid_level.ATLoss(pairs(3, lambda _: 1000.0), mode)
        book.write(
            "at", "torchdistill ATLoss", {"mode": mode, "weight": 1000.0},
            of_maps(attention, "map", hooked),
            "code: weight*mean (q_s - q_t)^2, no half; paper: weight*||q_s - q_t||, not squared",
        )  # fmt: skip
    flow = mid_level.FSPLoss(
        {
            f"pair{i}": {
                f"{who}_{place}": {"io": "output", "path": str(i + later)}
                for who in ("student", "teacher")
                for place, later in (("first", 0), ("second", 1))
            }
            for i in range(2)
        }
    )
    book.write(
        "fsp", "torchdistill FSPLoss", {},
        of_maps(flow, "map", hooked),
        "maximum pooling, and a sum of norms over columns instead of a squared error",
    )  # fmt: skip
    boundary = mid_level.AltActTransferLoss(
        pairs(3, lambda i: 3e-3 * 2.0 ** (i - 2)), margin=1.0, reduction="mean"
    )
    book.write(
        "ab", "torchdistill AltActTransferLoss", {"margin": 1.0, "weights": "3e-3*2^(i-n+1)"},
        of_maps(boundary, "before", hooked),
        "on maps before their activation, without a connector",
    )  # fmt: skip


def by_repdistiller(book: Book, code: PublicCode) -> None:
    """Soft logits, FitNet's hint, AT, FSP, AB, KD-SVD."""
    folder = "RepDistiller"
    kl = code.take(folder, "distiller_zoo/KD.py", "DistillKL")(4.0)
    book.write(
        "soft-logits", "RepDistiller DistillKL", {"temperature": 4.0},
        lambda x: kl(x["student_logits"], x["teacher_logits"]), "T^2*KL alone",
    )  # fmt: skip
    hint = code.take(folder, "distiller_zoo/FitNet.py", "HintLoss")()
    book.write(
        "fitnet", "RepDistiller HintLoss", {"stage": 2},
        lambda x: hint(x["student_map_2"], x["teacher_map_2"]),
        "mean over all values, without a connector",
    )  # fmt: skip
    three = {
        "at": (code.take(folder, "distiller_zoo/AT.py", "Attention")(), "map", "sum over stages"),
        "fsp": (
            code.take(folder, "distiller_zoo/FSP.py", "FSP")(SHAPES, SHAPES), "map",
            "sum over consecutive pairs of the mean squared error; average pooling",
        ),
        "ab": (
            code.take(folder, "distiller_zoo/AB.py", "ABLoss")(3), "before",
            "3e-3*2^(i-n+1) included, sum over values / B, without a connector",
        ),
    }  # fmt: skip
    for method, (loss, what, note) in three.items():
        book.write(
            method, f"RepDistiller {type(loss).__name__}", {"weight": 1.0},
            of_maps(loss, what), note,
        )  # fmt: skip
    for signs in ("as they come", "positive"):
        svd = code.take(folder, "distiller_zoo/KDSVD.py", "KDSVD")(1)
        if signs == "positive":
            svd.svd = _with_positive_sums(svd.svd)
        book.write(
            "kd-svd", "RepDistiller KDSVD", {"k": 1, "signs": signs},
            of_maps(svd, "map"),
            "unfolds to (h*w) x c. A singular vector's sign is free, and the relation between two "
            "taps depends on it: its own come as LAPACK has them; positive: all vectors turned so "
            "that their sum is",
        )  # fmt: skip


def _with_positive_sums(decompose: Any) -> Any:
    def turned(feature: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        u, s, v = decompose(feature, n)
        return u, s, v * v.sum(dim=1, keepdim=True).sign().detach()

    return turned


def by_mdistiller(book: Book, code: PublicCode) -> None:
    """Decoupled KD."""
    dkd, *_ = code.take(
        "mdistiller", "mdistiller/distillers/DKD.py",
        "dkd_loss", "_get_gt_mask", "_get_other_mask", "cat_mask",
    )  # fmt: skip
    for alpha, beta in ((1.0, 8.0), (1.0, 0.0), (0.0, 1.0)):
        book.write(
            "dkd", "mdistiller dkd_loss", {"alpha": alpha, "beta": beta, "temperature": 4.0},
            _of_logits(partial(dkd, alpha=alpha, beta=beta, temperature=4.0)),
            "alpha*TCKD + beta*NCKD, T^2 in both, means over the batch; no cross-entropy",
        )  # fmt: skip


def _of_logits(loss: Any) -> Loss:
    return lambda x: loss(x["student_logits"], x["teacher_logits"], x["labels"])


def by_zoo(book: Book, code: PublicCode) -> None:
    """FSP as one matrix product."""
    flow = code.take("Knowledge-Distillation-Zoo", "kd_losses/fsp.py", "FSP")()

    def both(x: Inputs) -> Tensor:
        student, teacher = maps(x, "student"), maps(x, "teacher")
        parts = [flow(*student[i : i + 2], *teacher[i : i + 2]) for i in range(len(student) - 1)]
        return torch.stack(parts).sum()

    book.write(
        "fsp", "Knowledge-Distillation-Zoo FSP", {"weight": 1.0}, both,
        "the mean squared error, summed over consecutive pairs; average pooling",
    )  # fmt: skip


def by_heo(book: Book, code: PublicCode) -> None:
    """AB by the paper's authors: one stage, no weight."""
    loss = code.take("AB_distillation", "cifar10_AB_distillation.py", "criterion_alternative_L2")
    book.write(
        "ab", "AB_distillation criterion_alternative_L2", {"margin": 1.0, "stage": 1},
        lambda x: loss(x["student_before_1"], x["teacher_before_1"], 1.0) / 2,
        "the sum over values / B of one stage, without weight",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repositories", type=Path, required=True, help="folder of the clones")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="size_average")
    code, book = PublicCode(options.repositories), Book(make_inputs())
    for measure in (
        by_torchdistill,
        by_repdistiller,
        by_mdistiller,
        by_zoo,
        by_heo,
        by_byot,
        by_meal,
    ):
        measure(book, code)
    content = {
        "command": "python -m benchmarks.peers.reference_values --repositories DIR",
        "versions": code.versions(),
        "inputs": {
            name: [round(v, 4) for v in value.flatten().tolist()]
            for name, value in book.inputs.items()
        },
        "shapes": {name: list(value.shape) for name, value in book.inputs.items()},
        "values": sorted(book.entries, key=lambda entry: (entry["method"], entry["source"])),
    }
    options.out.write_text(compact(content) + "\n", encoding="utf-8")
    print(f"{len(book.entries)} values: {options.out}")


if __name__ == "__main__":
    main()
