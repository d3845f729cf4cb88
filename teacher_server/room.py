"""Whether a ledger has room for what a service is to release; from public settings alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ktan.errors import UserError
from privacy.ledger import BudgetState
from teacher_server.menu import ServedTap

log = logging.getLogger(__name__)


def require_room(menu: Sequence[ServedTap], draws: int, answers: int, state: BudgetState) -> None:
    """Raises UserError where the ledger can never give so many answers of the whole menu.

    draws: noise draws of the ledger's whole life. Radii are chosen so that the charges of `answers`
    fit (`build_menu`); draws are counted apart. Warns where what is left gives fewer, or none: a
    service that has answered goes on, and sends stored answers again free.
    """
    charge = sum(tap.release.charge for tap in menu)
    each = sum(tap.release.draws for tap in menu)
    if each * answers > draws:
        raise UserError(
            f"--answers {answers} needs {each * answers:,} noise draws, {each:,} an answer, and "
            f"this ledger was opened for {draws:,}, which is {draws // each} answers: say so, or "
            "serve fewer or smaller taps (--share)"
        )
    if state.rolled_back is not None or not charge:
        return
    left = min(state.left // charge, state.draws_left // each)
    if left == 0:
        log.warning(
            "the budget is spent: what is left gives no answer of this menu (an answer costs %d "
            "units, %d are left); stored answers are sent again, free",
            charge,
            state.left,
        )
    elif left < answers:
        log.warning(
            "the budget that is left gives %d answers of this menu, where --answers says %d",
            left,
            answers,
        )
