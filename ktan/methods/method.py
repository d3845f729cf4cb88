"""What a distillation method is.

A method is a frozen dataclass of its options in a file of its own. It says what it `needs` of a
teacher, which taps it would read in a local one, and `build` binds it to one student and one
teacher's answers: that gives an `Objective`, which the trainer (`ktan.trainer`) or a loop of one's
own (`ktan.distiller`) minimises.
"""

from typing import Protocol

from ktan.methods.binding import Binding
from ktan.methods.needs import Need
from ktan.methods.objective import Objective
from ktan.networks import NetworkStages
from ktan.taps import Tap


class Method(Protocol):
    """Options of a method, and how it binds to a student."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it cannot do without, or (`optional`) uses where it is there; empty for a method
        that asks no teacher."""
        ...

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """What it reads in a local teacher with these stages; names are `Tap.text`.

        A remote teacher answers what its custodian serves.
        """
        ...

    def build(self, binding: Binding) -> Objective:
        """Binds the method. Raises UserError naming what it needs and the teacher does not give."""
        ...
