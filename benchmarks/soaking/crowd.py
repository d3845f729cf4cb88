"""Processes of clients, and what is done to them: killed, sent home, frozen, and back again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.soaking.client import LEAVING, Member, Plan

ROOT: Final = Path(__file__).parents[2]
CLASSES: Final = {"bulk": 64, "medium": 8, "single": 1}
"""Class of client → samples in each of its requests."""
_OF_EACH: Final = (("bulk", 2), ("medium", 2), ("single", 1))
GROUPS: Final = ("steady", "steady", "killed", "leaving", "unruly", "frozen")
"""A process each; every client of every one wants as many samples a second."""
CLIENTS: Final = len(GROUPS) * sum(count for _, count in _OF_EACH)
_FIRST_CLOSED: Final = 32
_CLOSED: Final = (2, 4, 12)
"""Processes, clients in each and requests that each has under way, where capacity is measured."""


@dataclass
class Group:
    """One process of clients. ended: exit codes of those that nobody killed."""

    name: str
    plan: Plan
    ended: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Returns at once; its clients ask as soon as they can."""
        command = [sys.executable, "-m", "benchmarks.soaking.client", self.plan.to_json()]
        # A session of its own: an interrupt from the keyboard is for the soak alone.
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._ready = False

    def wait_ready(self) -> None:
        """Until its clients ask, or it has ended."""
        if not self._ready:
            assert self.process.stdout is not None
            self.process.stdout.readline()
            self._ready = True

    def tell_to_leave(self) -> None:
        """Politely: it waits for what is under way."""
        # Told before it can listen, it would die of it.
        self.wait_ready()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_gone(self) -> None:
        """Until it has left."""
        code = self.process.wait(2 * LEAVING)
        if (self.name, code) != ("killed", -signal.SIGKILL):
            self.ended.append(code)

    def kill(self) -> None:
        """In the middle of whatever it does."""
        self.process.kill()
        code = self.process.wait()
        if code != -signal.SIGKILL:
            self.ended.append(code)


def _numbered(place: int) -> dict[int, str]:
    """Number → class of the clients of the group in this place."""
    kinds = [kind for kind, count in _OF_EACH for _ in range(count)]
    return dict(enumerate(kinds, start=place * len(kinds)))


def send_home(groups: Sequence[Group]) -> None:
    """All of them at once."""
    for group in groups:
        group.tell_to_leave()
    for group in groups:
        group.wait_gone()


def group_of(number: int) -> str:
    """Name of the group that this client of the open loop belongs to."""
    return GROUPS[number * len(GROUPS) // CLIENTS]


def steady_clients() -> dict[int, str]:
    """Number → class of the clients that nothing is done to."""
    return {
        number: kind
        for place, name in enumerate(GROUPS)
        if name == "steady"
        for number, kind in _numbered(place).items()
    }


def all_clients() -> dict[int, str]:
    """Number → class of everybody who asks in the open loop."""
    return {n: kind for place in range(len(GROUPS)) for n, kind in _numbered(place).items()}


def open_groups(plan: Callable[..., Plan], samples_per_second: float) -> list[Group]:
    """Groups that together want so much, every client alike, whatever they get."""
    each = samples_per_second / CLIENTS
    return [
        Group(
            name,
            plan(
                members=tuple(
                    Member(number, {CLASSES[kind]: 1.0}, rate=each / CLASSES[kind])
                    for number, kind in _numbered(place).items()
                ),
                unruly=name == "unruly",
            ),
        )
        for place, name in enumerate(GROUPS)
    ]


def closed_groups(plan: Callable[..., Plan]) -> list[Group]:
    """Groups that ask without a pause for requests of the same mix of sizes."""
    processes, clients, flights = _CLOSED
    sizes = {CLASSES[kind]: count / CLASSES[kind] for kind, count in _OF_EACH}
    first = range(_FIRST_CLOSED, _FIRST_CLOSED + processes * clients, clients)
    return [
        Group(
            "closed",
            plan(members=tuple(Member(n + i, sizes, flights=flights) for i in range(clients))),
        )
        for n in first
    ]


def closed_clients() -> list[int]:
    """Their numbers."""
    return list(range(_FIRST_CLOSED, _FIRST_CLOSED + _CLOSED[0] * _CLOSED[1]))


class Troubles:
    """What is done to the groups that are not steady, each by a thread of its own."""

    def __init__(self, groups: Sequence[Group], chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._over = threading.Event()
        ways = {"killed": self._kill, "leaving": self._send_home, "frozen": self._freeze}
        self._threads = [
            threading.Thread(
                target=ways[group.name], args=(group, random.Random(chance.random())), daemon=True
            )
            for group in groups
            if group.name in ways
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """No more of them; whoever is frozen is thawed, whoever is away stays away."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _kill(self, group: Group, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(5, 20)):
            group.kill()
            self.done["killed and came back"] += 1
            if self._over.wait(chance.uniform(0.2, 3)):
                return
            group.start()

    def _send_home(self, group: Group, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(10, 30)):
            group.tell_to_leave()
            group.wait_gone()
            self.done["left and came back"] += 1
            if self._over.wait(chance.uniform(1, 5)):
                return
            group.start()

    def _freeze(self, group: Group, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(5, 15)):
            group.process.send_signal(signal.SIGSTOP)
            # Nothing is read meanwhile: the service's sends pile up.
            self._over.wait(chance.uniform(1, 5))
            group.process.send_signal(signal.SIGCONT)
            self.done["read nothing for seconds"] += 1
