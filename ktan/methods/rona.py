"""RONA: private model compression via knowledge distillation (Wang et al. 2019).

    hint stage            λ_hint·½·mean (r(F_s) − F_t)²
    warm-up               λ_local·CE(z_s, y)
    round i of R          λ_kd·T²·mean −Σ_c q_c·log p_c at T = 3, on the queries so far;
                          then λ_local·CE(z_s, y) for a while that shrinks as (R − i + 1) / R

on F_t of unit scale (`ktan.hints`), r a linear connector of the student's. Each round after the
first chooses its portion of the queries by the student as it stands, and asks. Stages are shares of
the run in proportion to the paper's epochs: 40, 3, and R = 5 times 8 + 8 (shrinking).

With λ_adv > 0 the student also plays KTAN's game over the hints (`adversarial_terms`) wherever it
listens to the teacher: hint, distillation, adversarial and local loss in one run.

What differs from the paper: it clips each scalar loss and adds noise to that scalar, which changes
no gradient; here the released hint and probabilities themselves are bounded and perturbed, by the
teacher's service, before the student sees them.
"""

from dataclasses import dataclass
from typing import ClassVar

from ktan.denoising import Denoising
from ktan.errors import UserError
from ktan.methods.adversarial_terms import GAME, HintGame
from ktan.methods.binding import Binding
from ktan.methods.hint_pairs import HINT, HintPairs, hint_term
from ktan.methods.needs import Need, require
from ktan.methods.objective import DISCRIMINATOR, STUDENT, Objective, Stage
from ktan.methods.teacher_taps import middle_tap, response_tap
from ktan.methods.terms import RESPONSE, distillation_term, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class RONA:
    """Needs: probabilities or logits, and one or more hints."""

    name: ClassVar[str] = "rona"
    needs: ClassVar[tuple[Need, ...]] = (RESPONSE, HINT)

    hint_weight: float = 1.0
    """λ_hint: weight of half the squared error on standardised hints."""
    kd_weight: float = 1.0
    """λ_kd: weight of the distillation loss."""
    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    adversarial_weight: float = 0.0
    """λ_adv: weight of the student's side of the adversarial game; 0 for none, as in the paper."""
    rounds: int = 5
    """R: rounds of distillation and self learning; the queries are split over them."""
    hint_epochs: float = 40.0
    """Share of the run in which hints are learnt; 0 for none."""
    warm_up_epochs: float = 3.0
    """Share of self learning before the first round; 0 for none."""
    distillation_epochs: float = 8.0
    """Share of each round's distillation."""
    self_epochs: float = 8.0
    """Share of the first round's self learning; the last one's is this over R. 0 for none."""
    discriminator_width: int = 64
    """Hidden units (channels, for a map) of each discriminator."""
    discriminator_rest: float = 0.7
    """A discriminator rests while it tells this share of a batch's hints right; 1 for never."""
    temperature: float = 3.0
    """T of a local teacher; a remote one has its own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"rounds is {self.rounds}; it must be at least 1")
        shares = (self.hint_epochs, self.warm_up_epochs, self.self_epochs)
        if min(shares) < 0 or self.distillation_epochs <= 0:
            raise UserError(
                "shares of epochs cannot be negative, and distillation_epochs must be above 0"
            )

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: the middle stage's map, as the paper's hint is."""
        return (response_tap(self.temperature), middle_tap(stages))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        pairs = HintPairs(binding)
        terms = [
            # Half the squared error: the half is in the weight.
            hint_term(self.hint_weight / 2, pairs),
            distillation_term(self.kd_weight, binding, self.denoise),
            local_term(self.local_weight),
        ]
        owned = {STUDENT: pairs.connectors}
        measures = None
        if self.adversarial_weight:
            game = HintGame(pairs, self.discriminator_width, self.discriminator_rest)
            terms += game.terms(self.adversarial_weight)
            owned[DISCRIMINATOR] = game.judges
            measures = game.measures
        return Objective(terms, owned, paths=pairs.paths, measures=measures, stages=self.stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The whole course; stages of no share are left out.

        The learning rate's schedule begins anew after the hints, and covers all that follows. Other
        methods' terms join in wherever the student learns by labels or by distillation.
        """
        played = GAME if self.adversarial_weight else ()
        by_labels = ("hint", "kd", *played)
        course = [
            Stage("hint", self.hint_epochs, ("hint", *played)),
            Stage("warm-up", self.warm_up_epochs, rests=by_labels),
        ]
        for number in range(self.rounds):
            left = (self.rounds - number) / self.rounds
            course += [
                Stage(
                    f"distillation {number + 1}",
                    self.distillation_epochs,
                    asks=number > 0,
                    restarts=number == 0 and not self.warm_up_epochs,
                    rests=("hint", "local"),
                ),
                Stage(
                    f"self {number + 1}", self.self_epochs * left, restarts=False, rests=by_labels
                ),
            ]
        return tuple(stage for stage in course if stage.share)


METHOD = RONA
