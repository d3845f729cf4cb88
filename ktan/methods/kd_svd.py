"""KD-SVD: knowledge distillation by singular value decomposition (Lee, Kim & Song 2018).

    L = λ_local·CE(z_s, y) + λ_svd·Σ_i ‖R_s^i − R_t^i‖² / B

R^i relates the first right singular vectors of map i to those of map i − 1
(`ktan.losses.singular_vectors`); k = 1 of the teacher's, matched among 4 of the student's. As in
the original, the distillation gradient is clipped to the norm of the task's (`clip`).

Vectors of one length only can be compared, and the original has pairs of equal widths: a map of
another width than its teacher's goes through a 1×1 convolution, dropped at export. Singular
vectors of a noisy map are not those of the map, so maps must come without noise.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ktan.errors import UserError
from ktan.losses import singular_vector_loss
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding, module_key
from ktan.methods.needs import Need, require
from ktan.methods.objective import STUDENT, Objective, Term
from ktan.methods.teacher_taps import map_taps
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap

MAPS = Need("maps", least=2)


@dataclass(frozen=True)
class SingularVectors:
    """Needs: at least two whole maps without noise."""

    name: ClassVar[str] = "kd-svd"
    needs: ClassVar[tuple[Need, ...]] = (MAPS,)

    local_weight: float = 1.0
    """λ_local: weight of the cross-entropy with public labels."""
    svd_weight: float = 1.0
    """λ_svd: weight of the relations' squared difference, a sum over pairs of channels."""
    vectors: int = 1
    """k: singular vectors of each of the teacher's maps."""
    clip: bool = True
    """The gradient of the relations is scaled down to the norm of the cross-entropy's where it is
    larger; a batch without any label then moves nothing."""

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`: the maps of all stages."""
        return map_taps(stages)

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`. Raises UserError too for fewer than one vector, and for a gradient
        that is to be clipped to that of a loss of no weight."""
        require(self.needs, binding.taps, self.name)
        if self.vectors < 1:
            raise UserError(f"kd-svd: vectors is {self.vectors}; it must be at least 1")
        if self.clip and not self.local_weight:
            raise UserError(
                "kd-svd: clip scales the gradient down to that of the cross-entropy, and "
                "local_weight is 0; set clip=false, or a local_weight"
            )
        taps = binding.taps_for(MAPS)
        path_of = {tap.name: binding.paths[tap.name][0] for tap in taps}
        shapes = binding.map_shapes(path_of.values())
        widths = {tap.name: (shapes[path_of[tap.name]][0], tap.shape[0]) for tap in taps}
        connectors = {
            module_key(name): nn.Conv2d(own, theirs, 1, bias=False)
            for name, (own, theirs) in widths.items()
            if own != theirs
        }

        def student(view: View, name: str) -> Tensor:
            feature = view.answered_features(path_of[name])
            connect = connectors.get(module_key(name))
            return feature if connect is None else connect(feature)

        def relations(view: View, batch: Batch) -> Tensor:
            return singular_vector_loss(
                [student(view, name) for name in path_of],
                [batch.answers[name] for name in path_of],
                self.vectors,
            )

        bound = "local" if self.clip else None
        return Objective(
            [
                local_term(self.local_weight),
                Term("relations", STUDENT, self.svd_weight, relations, bounded_by=bound),
            ],
            {STUDENT: connectors},
            paths=path_of.values(),
        )


METHOD = SingularVectors
