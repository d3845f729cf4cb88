"""Decoupled knowledge distillation, DKD (Zhao et al. 2022).

    L = λ_local·CE(z_s, y) + α·TCKD + β·NCKD
    TCKD = T²·mean_b KL(b_t ‖ b_s),  b = (p_y, 1 − p_y)
    NCKD = T²·mean_b KL(p̂_t ‖ p̂_s),  p̂_c = p_c / (1 − p_y) for c ≠ y

at p = softmax(z / T); y is the sample's public label, or the teacher's arg max where it has none.
The reference's α = 1, β = 8, T = 4. Its ramp of both weights over the first 20 of 240 epochs is
left out: the learning rate rises from 0 there.

NCKD divides by what a teacher leaves to the other classes, which is biased under noise: a noisy
answer is always shrunk to the simplex first, and for noisy teachers `soft-logits` is the better
choice.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.denoising import Denoising, Shrinkage
from ktan.errors import UserError
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.teacher_taps import response_tap
from ktan.methods.terms import RESPONSE, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class DecoupledKD:
    """Needs: probabilities or logits."""

    name: ClassVar[str] = "dkd"
    needs: ClassVar[tuple[Need, ...]] = (RESPONSE,)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    target_weight: float = 1.0
    """α: weight of the target class's part."""
    other_weight: float = 8.0
    """β: weight of the other classes' part."""
    temperature: float = 4.0
    """T of a local teacher and of released logits; released probabilities have their own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated: simplex or posterior."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"temperature is {self.temperature:g}; it must be above 0")
        if self.denoise == "none":
            raise UserError(
                "dkd divides by the probability of the other classes, which noise may make "
                "negative; choose denoise simplex or posterior, or the method soft-logits"
            )

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        return (response_tap(self.temperature),)

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        (tap,) = binding.taps_for(RESPONSE)
        of_logits = tap.kind == "logits"
        temperature = self.temperature if of_logits else tap.temperature
        shrink = Shrinkage(self.denoise, tap.noise_sd)

        def parts(view: View, batch: Batch) -> tuple[Tensor, Tensor]:
            released = batch.answers[tap.name]
            if of_logits:
                teacher = torch.softmax(released / temperature, dim=1)
            else:
                teacher = shrink(released)
            labels = batch.answered_classes(teacher)
            return decoupled_losses(view.answered_logits, teacher, labels, temperature)

        return Objective(
            [
                local_term(self.local_weight),
                Term("target", STUDENT, self.target_weight, lambda v, b: parts(v, b)[0]),
                Term("others", STUDENT, self.other_weight, lambda v, b: parts(v, b)[1]),
            ]
        )


def decoupled_losses(
    logits: Tensor, probabilities: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, each times T².

    `logits`: float [n, classes] of the student; `probabilities`: float [n, classes], the teacher's
    at that temperature, on the simplex; `labels`: int64 [n], all known. A teacher that leaves
    nothing to the other classes says nothing of them: its NCKD is 0.
    """
    target = F.one_hot(labels, logits.shape[1]).bool()
    log_p = F.log_softmax(logits / temperature, dim=1)
    # Of the other classes alone: a target of -inf has no share in the sums over them.
    among_others = logits.masked_fill(target, -torch.inf) / temperature
    log_rest = torch.logsumexp(log_p.masked_fill(target, -torch.inf), dim=1)
    binary = torch.stack([log_p.gather(1, labels[:, None])[:, 0], log_rest], dim=1)
    rest = probabilities.masked_fill(target, 0)
    both = [probabilities.gather(1, labels[:, None])[:, 0], rest.sum(dim=1)]
    tckd = _divergence(torch.stack(both, dim=1), binary)
    share = rest / rest.sum(dim=1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)
    log_share = F.log_softmax(among_others, dim=1).masked_fill(target, 0)
    nckd = _divergence(share, log_share)
    return tckd * temperature**2, nckd * temperature**2


def _divergence(target: Tensor, log_p: Tensor) -> Tensor:
    """mean_b KL(target ‖ p), 0·log 0 = 0."""
    return (torch.xlogy(target, target) - target * log_p).sum(dim=1).mean()


METHOD = DecoupledKD
