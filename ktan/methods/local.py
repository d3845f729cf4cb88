"""The student alone: L = CE(z_s, y) on public labels. What every method is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from ktan.methods.binding import Binding
from ktan.methods.needs import Need
from ktan.methods.objective import Objective
from ktan.methods.terms import local_term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class Local:
    """Needs no tap of any teacher."""

    name: ClassVar[str] = "local"
    needs: ClassVar[tuple[Need, ...]] = ()

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        return ()

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`."""
        return Objective([local_term(1.0)])


METHOD = Local
