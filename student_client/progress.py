"""What a screen is told while answers come in."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A screen, as the one who fetches answers sees it."""

    def advance(self, samples: int, epsilon_spent: float) -> None:
        """`samples` more are stored; the service has now spent `epsilon_spent` in all."""

    def wait(self, reason: str, seconds: float) -> None:
        """The service is out of reach; it is asked again after `seconds`."""

    def forget(self, reason: str) -> None:
        """A request that an earlier run began is given up; what is wanted now goes on."""


class Silent:
    """No screen."""

    def advance(self, samples: int, epsilon_spent: float) -> None:
        pass

    def wait(self, reason: str, seconds: float) -> None:
        pass

    def forget(self, reason: str) -> None:
        pass
