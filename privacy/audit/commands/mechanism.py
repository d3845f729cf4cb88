"""`privacy-audit mechanism`: does a running service leak what its receipts claim, and no more?"""

import json as jsonlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from cyclopts import Parameter
from tqdm import tqdm

from privacy.audit.commands.failing import fail
from privacy.audit.commands.options import Flag
from privacy.audit.mechanism.audit import Settings, audit
from privacy.audit.mechanism.screen import audit_text


@dataclass(frozen=True)
class Rehearsed:
    """The service under audit, as the rehearsal's own options have it."""

    teachers: int = 4
    """k, the replaced one included."""
    tap: tuple[str, ...] = ("logits:4:2", "probabilities:4", "hint:8:1")
    """NAME:DIMENSION:BOUND; NAME is logits, probabilities, hint or hint.ANY."""
    like: Path | None = None
    """A trained teacher's folder: k, taps and bounds from its public card."""
    radius: int | None = None
    """Grid radius R of every tap. When neither this nor --answers is given, a sample of three taps
    costs μ² = 1/2."""
    answers: int | None = None
    """Radii as a service has them whose budget should last for so many samples; with --epsilon."""
    share: tuple[str, ...] = ()
    """TAP=WEIGHT of an answer's charge, with --answers."""
    epsilon: float = 8.0
    """ε of the served budget, with --answers."""
    delta: float = 1e-5
    """δ of the served budget, with --answers."""
    noise: str | None = None
    """Which sampler, by name; the service's default when not given."""

    def arguments(self) -> list[str]:
        """For the rehearsal's command line."""
        words = ["--teachers", str(self.teachers)]
        for tap in self.tap:
            words += ["--tap", tap]
        if self.like is not None:
            words = ["--like", str(self.like)]
        if self.answers is None:
            words += ["--radius", str(self.radius or _RADIUS)]
        else:
            words += ["--answers", str(self.answers), "--epsilon", str(self.epsilon)]
            words += ["--delta", str(self.delta)]
            for share in self.share:
                words += ["--share", share]
        return words if self.noise is None else [*words, "--noise", self.noise]


_RADIUS = 234_468
"""√(2⁴⁰/20): 4R² + 2R² + 4R² is μ² = 1/2, to the integer below."""


class _Bar:
    """A line for each case on a terminal; nothing where stderr is none."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def begin(self, what: str, samples: int) -> None:
        self.__exit__()
        # tqdm shows nothing on a terminal that does not say how large it is.
        size = shutil.get_terminal_size()
        self._bar = tqdm(
            total=samples,
            desc=what,
            unit=" samples",
            disable=None,
            leave=False,
            ncols=size.columns - 1,
            nrows=size.lines,
            bar_format=None if samples else "{desc} …",
        )

    def advance(self, samples: int) -> None:
        if self._bar is not None:
            self._bar.update(samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


Service = Annotated[Rehearsed, Parameter(name="*", negative="", group="Service")]
Trials = Annotated[Settings, Parameter(name="*", negative="", group="Trials")]
_SERVICE = Rehearsed()
_TRIALS = Settings()


def mechanism(
    *,
    service: Service = _SERVICE,
    settings: Trials = _TRIALS,
    server_command: str | None = None,
    certs: Path | None = None,
    json: Flag = False,
) -> None:
    """Measure what a running service leaks, between worst-case adjacent worlds, on the real path.

    Starts the rehearsal twice, with two contents of one shard and throw-away ledgers, and asks both
    over the wire. Exit code 0 when the claim stands, 1 when it does not, 2 when no audit was made.
    An audit of too few trials to show 0.9 of the claim says "inconclusive", with exit code 0.

    Parameters
    ----------
    server_command
        What starts the rehearsal of another installation, such as "/opt/ktan/bin/teacher-server
        rehearse"; this installation's when not given.
    certs
        A client's certificate folder, where the server command serves with TLS on localhost
        (its own --certs among its words); plaintext on loopback when not given.
    json
        Print one JSON object.
    """
    try:
        with _Bar() as bar:
            found = audit(server_command, service.arguments(), settings, certs, bar)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the services were ended and their throw-away ledgers removed"
        ) from None
    print(jsonlib.dumps(found.to_json()) if json else audit_text(found))
    if found.faults:
        fail(f"{len(found.faults)} FAIL")
    if found.inconclusive is not None:
        print(f"privacy-audit: inconclusive: {found.inconclusive}", file=sys.stderr)
