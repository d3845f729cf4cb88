"""Terms that several methods share."""

from collections.abc import Mapping

from torch import Tensor

from ktan.denoising import Denoising, denoise
from ktan.losses import centred_logits_loss, expected_cross_entropy, local_loss
from ktan.methods.method import STUDENT, Batch, Term, View, response_tap
from ktan.teacher import AnswerTap


def local_term(weight: float) -> Term:
    """Cross-entropy wherever a public label stands, on answered samples too."""

    def local(view: View, batch: Batch) -> Tensor:
        return local_loss(view.logits, batch.all_labels)

    return Term("local", STUDENT, weight, local)


def distillation_term(weight: float, taps: Mapping[str, AnswerTap], denoising: Denoising) -> Term:
    """The loss on the teacher's opinion that fits what it releases.

    Raises UserError when the teacher releases neither probabilities nor logits.
    """
    tap = response_tap(taps)

    def kd(view: View, batch: Batch) -> Tensor:
        released = batch.answers[tap.name]
        if tap.kind == "logits":
            return centred_logits_loss(view.answered_logits, released)
        # Where nothing was perturbed there is nothing to shrink.
        target = denoise(released, denoising) if tap.noise_sd else released
        return expected_cross_entropy(view.answered_logits, target, tap.temperature)

    return Term("kd", STUDENT, weight, kd)
