"""What the user has agreed to spend: asked for once, and again where it would become more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from student_client.cost import Quote
from student_client.describe import quote_text
from student_client.description import TeacherDescription
from student_client.screen import Screen


@dataclass
class Agreement:
    """A yes to the price of all rounds of one run, and what is left of it."""

    screen: Screen
    folder: Path
    """Of the answers; other runs may share it."""
    beforehand: bool
    """Prices are told, and no question is asked."""
    left: int | None = field(init=False, default=None)
    """Charge that was agreed to and is not spent yet; None before the first price."""

    def nothing(self, answers: int) -> None:
        """All `answers` that are wanted are in the folder."""
        if self.left is None:
            self.screen.fact("Cost", f"nothing: all {answers:,} answers are here already")
            self.left = 0

    def cover(self, price: Quote, own: Quote, description: TeacherDescription, chosen: int) -> None:
        """Returns once `price`, of `chosen` samples, is agreed to. Raises as `Screen.agree` does.

        `own` is the price without what another run began here; such requests go first, and may
        have come between two rounds.
        """
        if self.left is None:
            self._ask(price, description, chosen)
            self.left = price.charge
        elif price.charge > self.left:
            self.screen.fact(
                "Begun",
                f"requests of another run in {self.folder} go first; with them this round is "
                f"more than was agreed and is left ({self.left:,} charge units)",
            )
            kept = "nothing more was asked; what was answered is kept, go on with --resume"
            self._ask(price, description, chosen, kept)
            self.left = max(self.left + price.charge - own.charge, price.charge)

    def spend(self, charge: int) -> None:
        """So much of it is spent now."""
        assert self.left is not None
        self.left -= charge

    def _ask(
        self, price: Quote, description: TeacherDescription, chosen: int, *declined: str
    ) -> None:
        self.screen.say(quote_text(price, description, chosen))
        if price.charge and not self.beforehand:
            self.screen.agree("Spend it?", *declined)
