"""FixMatch (Sohn et al. 2020): the local loss where public samples have no label.

    L = λ_local·CE(z_s, y) + λ_u·mean_b 1(max q_b ≥ τ)·CE(z_s(strong view of b), argmax q_b)

over labelled samples and over unlabelled samples b; q_b is the student's own prediction on a weak
view of b, without a gradient, brought to the classes' marginal in the labels (distribution
alignment; Berthelot et al. 2020, "ReMixMatch"). The paper's λ_u = 1 and τ = 0.95.

The samples that are asked of a teacher are among the unlabelled ones: a combination such as
`ktan+fixmatch` learns from the teacher's answers and from all other public samples too.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ktan.errors import UserError
from ktan.losses import DistributionAlignment, consistency_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding
from ktan.methods.needs import Need
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class FixMatch:
    """Needs no tap of any teacher, but unlabelled samples."""

    name: ClassVar[str] = "fixmatch"
    needs: ClassVar[tuple[Need, ...]] = ()

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    consistency_weight: float = 1.0
    """λ_u: weight of the consistency loss."""
    threshold: float = 0.95
    """τ: how sure a prediction is that becomes a label, in [0, 1]."""
    balance: bool = True
    """Whether predictions are aligned to the marginal of the labels."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold is {self.threshold}; it must be within 0 and 1")

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        return ()

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        alignment = DistributionAlignment(binding.classes)

        def predictions(view: View, batch: Batch) -> Tensor:
            if batch.weak is None:
                raise UserError(
                    "fixmatch learns from public samples without labels, and there are none; "
                    "leave some unlabelled, or take another method"
                )
            if not self.balance:
                return view.weak_logits.softmax(dim=1)
            aligned: Tensor = alignment(view.weak_logits, batch.all_labels, view.group)
            return aligned

        def consistency(view: View, batch: Batch) -> Tensor:
            return consistency_loss(predictions(view, batch), view.strong_logits, self.threshold)

        def measures(view: View, batch: Batch) -> dict[str, Tensor]:
            sure = predictions(view, batch).amax(dim=1) >= self.threshold
            return {"pseudo_labelled": sure.float().mean()}

        return Objective(
            [
                local_term(self.local_weight),
                Term("consistency", STUDENT, self.consistency_weight, consistency),
            ],
            {STUDENT: {"alignment": alignment}},
            measures=measures,
            unlabelled=True,
        )


METHOD = FixMatch
