"""Reference values of the methods that train more than a student: BYOT's exits, MEAL's opponent."""

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.public_code import PublicCode
from benchmarks.peers.reference_book import STAGES, Book, Inputs, Loss


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
