"""KTAN: knowledge transfer adversarial network (Liu et al. 2018), under a private teacher.

    L_s = λ_local·CE(z_s, y) + λ_kd·KD + λ_hint·mean (r(F_s) − F_t)² + λ_adv·(−log D(r(F_s) + n))
    L_D = −log D(F_t) − log(1 − D(r(F_s) + n))

D and the student move in turns, each by its own optimiser; D rests while it is well ahead (as
KSANC keeps its D from winning too early). F_t is TSL(F), what the teacher-to-student layer makes of
the teacher's map (`ktan.teachers.tsl`), in the shape of the student's last map; or any other hint
that a teacher releases; on unit scale (`ktan.hints`). n is fresh noise of the sd published for F_t
(matched noise), so that what separates real from fake is the signal alone. r scales each channel of
the student's for a TSL, which has its channels already, and is a linear connector for other hints.
KD is the expected cross-entropy for released probabilities, the centred squared error for released
logits.

The paper's weights are not public; ours were measured (docs/methods/ktan.md).
"""

from dataclasses import dataclass
from typing import ClassVar

from ktan.denoising import Denoising
from ktan.methods.adversarial_terms import HintGame
from ktan.methods.binding import Binding
from ktan.methods.hint_pairs import HINT, HintPairs, hint_term
from ktan.methods.needs import Need, require
from ktan.methods.objective import DISCRIMINATOR, STUDENT, Objective
from ktan.methods.teacher_taps import local_tap, response_tap
from ktan.methods.terms import RESPONSE, distillation_term, local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class KTAN:
    """Needs: probabilities or logits, and one or more hints or TSLs."""

    name: ClassVar[str] = "ktan"
    needs: ClassVar[tuple[Need, ...]] = (RESPONSE, HINT)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    kd_weight: float = 3.0
    """λ_kd: weight of the distillation loss."""
    hint_weight: float = 0.3
    """λ_hint: weight of the squared error on standardised hints."""
    adversarial_weight: float = 1.0
    """λ_adv: weight of the student's side of the adversarial game."""
    discriminator_width: int = 64
    """Hidden units (channels, for a map) of each discriminator."""
    discriminator_rest: float = 0.7
    """A discriminator rests while it tells this share of a batch's hints right; 1 for never."""
    temperature: float = 4.0
    """T of a local teacher; a remote one has its own."""
    denoise: Denoising = "posterior"
    """Shrinkage of noisy probabilities before they are imitated."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: a TSL behind the last map, in the student's shape; the vector
        before the classifier of a network without maps."""
        response = response_tap(self.temperature)
        if not stages.maps:
            return (response, local_tap("hint", stages.pooled))
        return (response, local_tap("tsl", stages.maps[-1]))

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        require(self.needs, binding.taps, self.name)
        pairs = HintPairs(binding)
        game = HintGame(pairs, self.discriminator_width, self.discriminator_rest)
        return Objective(
            [
                local_term(self.local_weight),
                distillation_term(self.kd_weight, binding, self.denoise),
                hint_term(self.hint_weight, pairs),
                *game.terms(self.adversarial_weight),
            ],
            {DISCRIMINATOR: game.judges, STUDENT: pairs.connectors},
            paths=pairs.paths,
            measures=game.measures,
        )


METHOD = KTAN
