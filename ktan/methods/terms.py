"""Terms that several methods share."""

from torch import Tensor

from ktan.denoising import Denoising, Shrinkage
from ktan.losses import centred_logits_loss, expected_cross_entropy, local_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.needs import Need
from ktan.methods.objective import STUDENT, Term

RESPONSE = Need("response")


def local_term(weight: float) -> Term:
    """Cross-entropy wherever a public label stands, on answered samples too."""

    def local(view: View, batch: Batch) -> Tensor:
        return local_loss(view.known_logits, batch.all_labels, view.group)

    return Term("local", STUDENT, weight, local)


def distillation_term(weight: float, binding: Binding, denoising: Denoising) -> Term:
    """The loss on the teacher's opinion that fits what it releases: probabilities or logits."""
    (tap,) = binding.taps_for(RESPONSE)
    shrink = Shrinkage(denoising, tap.noise_sd)

    def kd(view: View, batch: Batch) -> Tensor:
        released = batch.answers[tap.name]
        if tap.kind == "logits":
            return centred_logits_loss(view.answered_logits, released)
        return expected_cross_entropy(view.answered_logits, shrink(released), tap.temperature)

    return Term("kd", STUDENT, weight, kd)
