"""What each client may ask, from a file that can be changed while the service runs.

    [default]                 # of every client without a table of its own, setting by setting
    rate = 200                # samples a second, in the long run
    burst = 1000              # samples at once, after a pause; by default one second's
    waiting = 512             # samples in the service at once, until their answers are read

    [clients.anna]
    rate = 50
    cap.epsilon = 0.5         # what anna alone may reach, at the ledger's δ; or, in units,
    # cap.units = 200000000   # of μ²·2⁴⁰

What is not named is not limited. A cap becomes an entry of the ledger where it differs from the one
in force: the way to raise it while a service holds the ledger. One that leaves the file stays.
"""

from __future__ import annotations

import logging
import math
import os
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ktan.errors import UserError
from privacy.budget import BudgetPlan
from privacy.ledger import Ledger
from protos import Reason
from teacher_server.caps import cap_units
from teacher_server.errors import Unavailable
from teacher_server.identity import is_name
from teacher_server.posture import require_unchangeable

log = logging.getLogger(__name__)

_OWN_BACKLOG_SECONDS: Final = 0.5
_LARGEST_UNITS: Final = 2**62
_ROUNDING: Final = 1e-6
"""Samples: whoever comes back just when told is not told to come back once more."""


@dataclass(frozen=True)
class Allowance:
    """What one client may ask; None: no limit.

    rate: samples a second. burst: samples at once. waiting: samples in the service at once.
    """

    rate: float | None = None
    burst: float | None = None
    waiting: int | None = None

    @property
    def depth(self) -> float:
        """Samples that the bucket of a client with a rate holds."""
        assert self.rate is not None
        return max(1.0, self.rate) if self.burst is None else self.burst


@dataclass(frozen=True)
class _Rules:
    """A file's content."""

    default: Allowance = field(default_factory=Allowance)
    clients: Mapping[str, Allowance] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    """Client → units."""

    def of(self, client: str) -> Allowance:
        return self.clients.get(client, self.default)


@dataclass
class _Bucket:
    samples: float
    """That may be asked now; below 0 after a request larger than the bucket."""
    at: float


class Limits:
    """The limits in force. `admit` is for one thread at a time; the rest for any."""

    def __init__(
        self, path: Path, plan: BudgetPlan, *, clock: Callable[[], float] = time.monotonic
    ):
        """Reads `path`; plan: of the ledger that is served. Raises UserError for a broken file."""
        self._path = path
        self._plan = plan
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._unset = False
        """Whether caps of the file are not in force yet, and"""
        self._why = ""
        """what was said of it last."""
        self._seen = self._signature()
        self._rules = _read(path, plan)

    def changed(self) -> bool:
        """Whether the file is another than was read last; looks at its size and times alone."""
        return self._signature() != self._seen

    def reload(self) -> bool:
        """Reads the file again; True where its limits are in force now.

        A file that is broken, or not there, is said in the log and changes nothing.
        """
        self._seen = self._signature()
        try:
            rules = _read(self._path, self._plan)
        except UserError as error:
            log.error("the limits stay as they were: %s", error)
            return False
        self._rules = rules
        log.info("the limits are those that %s has now", self._path)
        return True

    def admit(self, client: str, samples: int, held: int = 0) -> None:
        """Lets so many samples pass, and counts them.

        held: samples of this client in the service, until the answers are read. Fits `Desk`'s gate.
        Raises Unavailable with RATE_LIMITED: the same request passes once the hint is over, if no
        other of this client takes its place. One larger than the burst passes when all of that is
        there, and is made up for afterwards; one larger than what may wait, when nothing does.
        """
        allowed = self._rules.of(client)
        if held and allowed.waiting is not None and held + samples > allowed.waiting:
            raise Unavailable(
                Reason.RATE_LIMITED,
                f"this client may have {allowed.waiting} samples waiting at once; retry later",
                _OWN_BACKLOG_SECONDS,
            )
        if allowed.rate is None:
            return
        now = self._clock()
        bucket = self._buckets.get(client) or _Bucket(allowed.depth, now)
        there = min(allowed.depth, bucket.samples + (now - bucket.at) * allowed.rate)
        needed = min(samples, allowed.depth)
        if there < needed - _ROUNDING:
            raise Unavailable(
                Reason.RATE_LIMITED,
                f"this client may ask {allowed.rate:g} samples a second; retry later",
                (needed - there) / allowed.rate,
            )
        self._buckets[client] = _Bucket(there - samples, now)

    def look(self, ledger: Ledger) -> None:
        """Has a changed file in force; a cap that the ledger did not take is set at a later look.

        Called again and again while a service runs; writes to the ledger's disk.
        """
        try:
            if self.changed() and self.reload():
                self._unset, self._why = True, ""
            if self._unset:
                self.apply_caps(ledger)
                self._unset = False
        except Exception as error:
            # Whatever it is: it must not end the looking. What a caller may learn of it, it meets.
            why = type(error).__name__
            if why != self._why:
                log.error("the caps of the limits could not be set (%s); trying again", why)
            self._why = why

    def apply_caps(self, ledger: Ledger) -> None:
        """Sets the caps of the file that differ from those in force; writes to the ledger's disk.

        Raises LedgerFault.
        """
        caps = self._rules.caps
        if caps and ledger.rolled_back is not None:
            log.warning("no cap is set: the ledger was restored from a copy")
            return
        for client, units in sorted(caps.items()):
            before = ledger.budget(client).cap
            if before != units:
                ledger.set_cap(client, units)
                was = "the budget alone limited it" if before is None else f"it was {before:,}"
                log.info("the cap of client %s is now %s units; %s", client, f"{units:,}", was)

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path, plan: BudgetPlan) -> _Rules:
    """Raises UserError naming the file and the line or the key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        require_unchangeable(path)
    except OSError as error:
        raise UserError(f"--limits {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--limits {path} is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--limits {path} is no TOML: {error}") from None
    try:
        return _rules(content, plan)
    except UserError as error:
        raise UserError(f"--limits {path}: {error}") from None


def _rules(content: Mapping[str, Any], plan: BudgetPlan) -> _Rules:
    _only(content, "", ("default", "clients"))
    default_table = _table(content.get("default", {}), "default")
    if "cap" in default_table:
        raise UserError(
            "[default] has a cap; that of all clients is fixed when a ledger is opened "
            "(open-ledger --client-epsilon). Name clients one by one"
        )
    default = _allowance(default_table, "default", Allowance())
    clients, caps = {}, {}
    for client, values in _table(content.get("clients", {}), "clients").items():
        where = f"clients.{client}"
        if not is_name(client):
            raise UserError(
                f"[clients] has {client!r}, which can be nobody's name: up to 63 letters, digits, "
                "dots, dashes, underscores"
            )
        table = _table(values, where)
        clients[client] = _allowance(table, where, default)
        if "cap" in table:
            caps[client] = _cap(_table(table["cap"], f"{where}.cap"), f"{where}.cap", plan)
    return _Rules(default, clients, caps)


def _allowance(table: Mapping[str, Any], where: str, default: Allowance) -> Allowance:
    _only(table, where, ("rate", "burst", "waiting", "cap"))
    rate = _number(table, where, "rate", 0, above=True)
    burst = _number(table, where, "burst", 1)
    waiting = _number(table, where, "waiting", 1)
    if waiting is not None and not isinstance(waiting, int):
        raise UserError(f"{where}.waiting is {waiting:g}; it must be a whole number of samples")
    # A rate of its own comes with a burst of its own.
    inherited = default.burst if rate is None else None
    allowed = Allowance(
        default.rate if rate is None else rate,
        inherited if burst is None else burst,
        default.waiting if waiting is None else waiting,
    )
    if burst is not None and allowed.rate is None:
        raise UserError(f"{where}.burst is given without a rate")
    return allowed


def _cap(table: Mapping[str, Any], where: str, plan: BudgetPlan) -> int:
    _only(table, where, ("epsilon", "units"))
    if len(table) != 1:
        raise UserError(f"{where} must have epsilon or units, one of them")
    if "epsilon" in table:
        epsilon = _number(table, where, "epsilon", 0, above=True)
        assert epsilon is not None
        try:
            return cap_units(plan, epsilon)
        except UserError as error:
            raise UserError(f"{where}.epsilon: {error}") from None
    units = _number(table, where, "units", 0)
    if not isinstance(units, int) or units >= _LARGEST_UNITS:
        raise UserError(f"{where}.units must be a whole number below 2^62")
    return units


def _number(
    table: Mapping[str, Any], where: str, key: str, least: int, *, above: bool = False
) -> int | float | None:
    """None where it is not there."""
    value = table.get(key)
    if value is None:
        return None
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value < least or (above and value == least):
        bound = f"above {least}" if above else f"at least {least}"
        raise UserError(f"{where}.{key} is {value!r}; it must be a number {bound}")
    return value  # type: ignore[no-any-return]  # what TOML holds is found to be a number above


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {value!r}; it must be a table")
    return value


def _only(table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            path = f"{where}.{key}" if where else key
            raise UserError(f"there is no {path}; there may be {', '.join(known)}")
