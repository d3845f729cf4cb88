"""Writes what public implementations make of small fixed inputs, for tests to compare with.

    python -m benchmarks.peers.reference_values --repositories DIR

DIR holds clones of the repositories of `benchmarks.peers.public_code`; torchdistill is installed.
The inputs stand in the file beside the values: a test needs neither.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.public_code import PublicCode
from benchmarks.peers.reference_book import (
    SHAPES,
    STAGES,
    Book,
    Inputs,
    Loss,
    compact,
    make_inputs,
    maps,
)

RESULT = Path("tests/ktan/methods/reference_values.json")


def of_maps(loss: Any, what: str, form: Callable[[list[Tensor]], Any] = list) -> Loss:
    """A loss of the student's and the teacher's maps of all stages; its parts are summed."""

    def value(inputs: Inputs) -> Tensor:
        student, teacher = (form(maps(inputs, who, what)) for who in ("student", "teacher"))
        found = loss(student, teacher)
        return torch.stack(list(found)).sum() if isinstance(found, list) else found

    return value


def hooked(values: Sequence[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors as torchdistill's hooks hand them to its losses."""
    return {str(number): {"output": value} for number, value in enumerate(values)}


def pairs(count: int, weight: Callable[[int], float]) -> dict[str, dict[str, Any]]:
    """torchdistill's way of saying which map of the student imitates which of the teacher."""
    return {
        f"pair{number}": {
            who: {"io": "output", "path": str(number)} for who in ("student", "teacher")
        }
        | {"weight": weight(number)}
        for number in range(count)
    }


def by_torchdistill(book: Book) -> None:
    """Soft logits, AT in both its readings, FSP, AB."""
    from torchdistill.losses import mid_level  # type: ignore[import-not-found]

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


def by_heo(book: Book, code: PublicCode) -> None:
    """AB by the paper's authors: one stage, no weight."""
    loss = code.take("AB_distillation", "cifar10_AB_distillation.py", "criterion_alternative_L2")
    book.write(
        "ab", "AB_distillation criterion_alternative_L2", {"margin": 1.0, "stage": 1},
        lambda x: loss(x["student_before_1"], x["teacher_before_1"], 1.0) / 2,
        "the sum over values / B of one stage, without weight",
    )  # fmt: skip


def by_byot(book: Book, code: PublicCode) -> None:
    """Be Your Own Teacher: each summand, and all of them as its training loop adds them."""
    kd, feature = code.take(
        "pytorch-be-your-own-teacher", "train.py", "kd_loss_function", "feature_loss_function"
    )
    options = {"temperature": 3.0, "alpha": 0.1, "beta": 1e-6}
    args = argparse.Namespace(**options)
    last = 3

    def target(x: Inputs) -> Tensor:
        return torch.softmax(x[f"student_exit_logits_{last}"].detach() / args.temperature, dim=1)

    def imitation(x: Inputs) -> Tensor:
        found: Tensor = sum(
            kd(x[f"student_exit_logits_{i}"], target(x), args) * args.temperature**2
            for i in range(1, last)
        )
        return found

    def features(x: Inputs) -> Tensor:
        deepest = x[f"student_exit_feature_{last}"].detach()
        found: Tensor = sum(
            feature(x[f"student_exit_feature_{i}"], deepest) for i in range(1, last)
        )
        return found

    def total(x: Inputs) -> Tensor:
        labelled = [
            F.cross_entropy(x[f"student_exit_logits_{i}"], x["labels"]) for i in range(1, last + 1)
        ]
        hard = (1 - options["alpha"]) * torch.stack(labelled).sum()
        return hard + options["alpha"] * imitation(x) + options["beta"] * features(x)

    entropy = -(target(book.inputs) * target(book.inputs).log()).sum(dim=1).mean()
    constant = (last - 1) * args.temperature**2 * entropy.item()
    source = "pytorch-be-your-own-teacher"
    book.write(
        "byot", f"{source} kd_loss_function", options, imitation,
        "exits 1 and 2 after exit 3; a cross-entropy, which is the KL plus entropy_of_target",
        entropy_of_target=constant,
    )  # fmt: skip
    book.write(
        "byot", f"{source} feature_loss_function", options, features,
        "a sum over batch and values, unweighted; where both features are at most 0 there is no "
        "loss, which never happens to features after a ReLU",
    )  # fmt: skip
    book.write(
        "byot", f"{source} total_loss", options, total,
        "with cross-entropy at all three exits",
        entropy_of_target=args.alpha * constant,
    )  # fmt: skip


def by_meal(book: Book, code: PublicCode) -> None:
    """MEAL: similarity in its three forms, and its discriminator's loss."""
    names = ("CrossEntropy", "L1_soft", "L2_soft", "betweenLoss", "discriminatorLoss")
    cross, l1, l2, between, adversarial = code.take("MEAL", "loss.py", *names)
    gamma = [0.1, 1.0]

    for loss in (cross, l1, l2):
        criterion = between(gamma, loss)
        soft = [torch.softmax(value, dim=1) for value in _stages(book.inputs, "teacher")]
        entropies = [-(p * p.log()).sum(dim=1).mean().item() for p in soft]
        more = sum(g * h for g, h in zip(gamma, entropies, strict=True))
        book.write(
            "meal", f"MEAL betweenLoss({loss.__name__})", {"gamma": gamma},
            _of_stages(criterion),
            "CrossEntropy is the KL plus entropy_of_target; L1 and L2 are means over all values",
            **({"entropy_of_target": more} if loss is cross else {}),
        )  # fmt: skip
    network = code.take("MEAL", "models/discriminator.py", "Discriminator")(6)
    network.conv1, network.conv2, network.conv3 = (
        _convolution(book.inputs, number) for number in (1, 2, 3)
    )
    criterion = adversarial(lambda inputs: [network(value) for value in inputs], [1.0])
    book.write(
        "meal", "MEAL discriminatorLoss", {"stage": 1},
        lambda x: criterion([x["student_stage_1"]], [x["teacher_stage_1"]]),
        "binary cross-entropy over two logits, target [1, 0] for the student's outputs; its "
        "discriminator ends in a ReLU, and the student descends this same loss",
    )  # fmt: skip


def _stages(inputs: Inputs, who: str) -> list[Tensor]:
    return [inputs[f"{who}_stage_{number}"] for number in range(1, len(STAGES) + 1)]


def _of_stages(loss: Any) -> Loss:
    return lambda x: loss(_stages(x, "student"), _stages(x, "teacher"))


def _convolution(inputs: Inputs, layer: int) -> nn.Conv2d:
    weight = inputs[f"discriminator_weight_{layer}"]
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    with torch.no_grad():
        convolution.weight.copy_(weight[:, :, None, None])
        assert convolution.bias is not None
        convolution.bias.copy_(inputs[f"discriminator_bias_{layer}"])
    return convolution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repositories", type=Path, required=True, help="folder of the clones")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="size_average")
    code, book = PublicCode(options.repositories), Book(make_inputs())
    by_torchdistill(book)
    for measure in (by_repdistiller, by_mdistiller, by_heo, by_byot, by_meal):
        measure(book, code)
    content = {
        "command": "python -m benchmarks.peers.reference_values --repositories DIR",
        "versions": {
            "torch": version("torch"),
            "torchdistill": version("torchdistill"),
            **code.commits(),
        },
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
