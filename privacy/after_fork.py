"""What a forked child must not share with its parent: keys of secret streams, noise drawn ahead."""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object that can throw its secrets away and start afresh."""

    def renew(self) -> None:
        """Forget every secret and every lock, and begin with fresh entropy."""


_alive: "weakref.WeakSet[Renewable]" = weakref.WeakSet()


def renew_after_fork(item: Renewable) -> None:
    """Have `item.renew()` run in every child, before the child's own code, while `item` lives.

    A fork that bypasses Python does not run it: such objects compare os.getpid() as well.
    """
    _alive.add(item)


def _renew_all() -> None:
    for item in list(_alive):
        item.renew()


os.register_at_fork(after_in_child=_renew_all)
