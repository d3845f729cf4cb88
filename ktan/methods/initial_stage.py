"""The two stages of methods that first bring a student near its teacher's maps, then train it."""

from ktan.errors import UserError
from ktan.methods.objective import Stage


def initial_stage(term: str, share: float, method: str) -> tuple[Stage, Stage]:
    """One term alone for this share of the run's steps, then all others without it.

    The last stage is open to the terms of methods in combination (`ab+soft-logits`). Raises
    UserError for a share that leaves one of the two no steps.
    """
    if not 0 < share < 1:
        raise UserError(
            f"{method}: initialisation is {share:g}; it is the first stage's share of the steps, "
            "above 0 and below 1"
        )
    return (
        Stage("initialisation", share, (term,)),
        Stage("training", 1 - share, rests=(term,)),
    )
