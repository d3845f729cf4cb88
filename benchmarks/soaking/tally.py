"""What the journals of all clients say together, read one client at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soaking.crowd import CLASSES, all_clients, group_of, steady_clients
from benchmarks.soaking.figures import fairness, percentiles
from benchmarks.soaking.journal import Asked

EXPECTED = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
"""Statuses that clients who overload, hurry and go away may get."""


@dataclass
class Tally:
    """Of what was asked between `begin` and `end`, by `time.monotonic`."""

    begin: float
    end: float
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    texts: dict[str, Counter[str]] = field(default_factory=dict)
    """Group of clients → what gRPC said where the service gave no reason."""
    given_up: Counter[str] = field(default_factory=Counter)
    served: Counter[int] = field(default_factory=Counter)
    """Client's number → samples charged and received."""
    asked: Counter[int] = field(default_factory=Counter)
    """Client's number → samples wanted."""
    calls: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waits: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    windows: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Ten seconds → milliseconds of steady clients' answered calls."""
    minutes: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, number: int, request: Asked) -> None:
        """One request of one client of the open loop."""
        kind, steady = all_clients()[number], number in steady_clients()
        self.counts["requests"] += 1
        self.counts["calls"] += request.sends
        self.counts["cancelled or connection broken by the client"] += request.cuts
        self.counts["calls whose client died"] += request.died
        self.refused.update(request.refused)
        self.texts.setdefault(group_of(number), Counter()).update(request.texts)
        if request.due < self.end:
            self.asked[number] += request.count
        if request.unhinted:
            self.wrong["a refusal as UNAVAILABLE without RetryInfo and pushback"] += 1
        if steady and "UNAVAILABLE" in request.refused:
            self.wrong["a steady client's request was UNAVAILABLE without a reason"] += 1
        for status in request.refused:
            if status.partition(" ")[0] not in EXPECTED:
                self.wrong[f"a request ended in {status}"] += 1
        if not request.got:
            self.given_up[request.end or "asked until the end"] += 1
            return
        first = request.got[0]
        self.counts["answered"] += 1
        self.counts["answered again"] += len(request.got) - 1
        if self.begin <= first.time < self.end:
            self.served[number] += request.count
            self.minutes[int((first.time - self.begin) // 60)] += request.count
        if steady:
            self.calls[kind].append(1e3 * first.seconds)
            self.waits[kind].append(1e3 * (first.time - request.due))
            self.windows[int((first.time - self.begin) // 10)].append(1e3 * first.seconds)

    def report(self) -> dict[str, Any]:
        """For the record."""
        seconds = self.end - self.begin
        everybody, steady = all_clients(), steady_clients()
        total = max(self.served.total(), 1)

        def of(kind: str, clients: dict[int, str]) -> list[int]:
            return [number for number, name in clients.items() if name == kind]

        lengths = {m: min(60.0, seconds - 60 * m) for m in range(int(seconds // 60) + 1)}
        return {
            "requests": dict(self.counts),
            "refused": dict(self.refused.most_common()),
            "refused_without_a_reason": {
                group: dict(texts.most_common(4)) for group, texts in self.texts.items() if texts
            },
            "not_answered": dict(self.given_up.most_common()),
            "wanted_samples_per_second": round(self.asked.total() / seconds, 1),
            "served_samples_per_second": round(self.served.total() / seconds, 1),
            "served_by_minute": [
                round(self.minutes[m] / length, 1) for m, length in lengths.items() if length >= 10
            ],
            "latency_ms": {
                kind: {
                    "answered": len(self.calls[kind]),
                    "call": percentiles(self.calls[kind]),
                    "with_retries": percentiles(self.waits[kind]),
                }
                for kind in CLASSES
            },
            "fairness": {
                "steady clients": round(fairness([self.served[n] for n in steady]), 4),
                **{
                    f"steady {kind} clients": round(
                        fairness([self.served[n] for n in of(kind, steady)]), 4
                    )
                    for kind in CLASSES
                },
            },
            "share": {
                kind: {
                    "of_clients": len(of(kind, everybody)) / len(everybody),
                    "of_served_samples": round(
                        sum(self.served[n] for n in of(kind, everybody)) / total, 4
                    ),
                    "served_of_wanted_steady": round(
                        sum(self.served[n] for n in of(kind, steady))
                        / max(sum(self.asked[n] for n in of(kind, steady)), 1),
                        4,
                    ),
                }
                for kind in CLASSES
            },
        }
