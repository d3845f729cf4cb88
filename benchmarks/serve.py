"""The service beside the bare model: images a second and latency, with everything on.

    python -m benchmarks.serve [--models resnet20] [--precisions float32] [--seconds 3] [--turns 8]
        [--litserve PYTHON] [--rounds 3] [--out FILE]                            (make bench-serve)

A ResNet-20 and an ensemble of 50 small CNNs are served with bound, noise, a durable ledger and mTLS
on, to 8 clients that ask about 64 images at a time (`bulk`) and to 64 clients that ask about one
(`single`), on the same cores. The bare forward pass, in the precision that is served, has its own
best batch size, layout and thread count.

The speed of a machine that others share changes within seconds. So service, clients and bare model
stay up, work one at a time, and take short turns: bare, bulk, bare, single, bare, and for the
latency one image bare, an idle service, one image bare. A ratio is of neighbours: a load's images/s
over the mean of the bare model's before and after. Medians over the turns are judged.

`added_ms`: the median latency of one client that asks about one image of an idle service, beyond
the bare model's. LitServe (PYTHON: an interpreter that has it; `make bench-serve` sets one up)
serves the same bare model in float32 over its own protocol, without any of the rest. Its workers
spin while they wait, so that nothing can be measured beside it: each round starts it anew, between
our service and the bare model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.children import Child
from benchmarks.serving.figures import GOALS, LOADS, Found, added_ms, beside, summary, table
from benchmarks.serving.models import MODELS

RESULT = Path(__file__).parent / "results" / "serve.json"
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    seconds: float
    """Of a load; the bare model and the idle service get half."""
    turns: int
    rounds: int
    """Beside LitServe."""
    litserve: str | None
    """An interpreter that has it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a load in a turn")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--litserve", help="a Python interpreter that has litserve and torch")
    parser.add_argument("--rounds", type=int, default=3, help="beside LitServe")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    plan = Plan(arguments.seconds, arguments.turns, arguments.rounds, arguments.litserve)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.serve",
        "options": {
            "seconds": plan.seconds, "turns": plan.turns,
            "rounds": plan.rounds if plan.litserve else 0,
        },
        "machine": {"cores": os.cpu_count(), "processor": platform.processor()},
        "goals": dict(GOALS),
        "models": {},
    }  # fmt: skip
    for name in arguments.models:
        found = report["models"][name] = {}
        for precision in arguments.precisions:
            found[precision] = measure(name, precision, plan)
            print(table(name, precision, found[precision]), flush=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(model: str, precision: str, plan: Plan) -> Found:
    """All figures of one model in one precision."""
    with Child("bare", model) as child:
        best = child(seconds=plan.seconds, precision=precision)
        pair = _Pair(child, best["setting"], plan.seconds)
        with (
            _service("server", model, "--precision", precision) as (address, folder),
            Child("clients", address, str(folder)) as clients,
        ):
            for load in LOADS:
                # Who asks for the first time waits for what is made once.
                _ask(clients, load, plan.seconds / 4)
            turns = [_turn(pair, clients) for _ in range(plan.turns)]
            rounds = []
            if plan.litserve and precision == "float32":
                rounds = [_round(pair, clients, model, plan.litserve) for _ in range(plan.rounds)]
    return {"bare_best": best, **summary(turns, rounds), "turns": turns, "rounds": rounds}


class _Pair:
    """The bare model at its best, and with one image."""

    def __init__(self, child: Child, setting: dict[str, Any], seconds: float) -> None:
        self._child = child
        self._best = setting
        self._one = setting | {"batch": 1, "callers": 1, "torch_threads": 1}
        self.seconds = seconds

    def best(self) -> Found:
        return self._child(seconds=self.seconds / 2, setting=self._best)

    def one(self) -> Found:
        return self._child(seconds=self.seconds / 4, setting=self._one)


def _turn(pair: _Pair, clients: Child) -> Found:
    turn: Found = {"bare": [pair.best()], "ratios": {}}
    for load in LOADS:
        turn[load] = _ask(clients, load, pair.seconds)
        turn["bare"].append(pair.best())
        turn["ratios"][load] = beside(turn[load], *turn["bare"][-2:])
    before = pair.one()
    turn["idle"] = clients(clients=1, samples=1, seconds=pair.seconds / 2)
    turn["one"] = [before, pair.one()]
    turn["added_ms"] = added_ms(turn["idle"], *turn["one"])
    return turn


def _round(pair: _Pair, clients: Child, model: str, python: str) -> Found:
    """Ours, bare, LitServe, bare, ours, for each load; LitServe is gone before the next begins."""
    found: Found = {}
    for load in LOADS:
        ours, bare = [_ask(clients, load, pair.seconds)], [pair.best()]
        # It counts requests: as many as make 64 images.
        requests = str(64 // LOADS[load][1])
        with (
            _service("litserve_server", model, "--requests", requests, python=python) as (at, _),
            Child("litserve_clients", at, python=python) as its_clients,
        ):
            _ask(its_clients, load, pair.seconds / 2)
            its = _ask(its_clients, load, pair.seconds)
        bare.append(pair.best())
        ours.append(_ask(clients, load, pair.seconds))
        found[load] = {
            "ours": ours, "bare": bare, "litserve": its,
            "litserve_of_bare": beside(its, *bare), "ours_of_litserve": 1 / beside(its, *ours),
        }  # fmt: skip
    return found


def _ask(child: Child, load: str, seconds: float) -> Found:
    clients, samples = LOADS[load]
    return child(clients=clients, samples=samples, seconds=seconds)


@contextmanager
def _service(
    module: str, model: str, *words: str, python: str = sys.executable
) -> Iterator[tuple[str, Path]]:
    """A server of `benchmarks.serving`, its address and its folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", f"benchmarks.serving.{module}", model, folder, *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"{module} did not start; its own words are above")
                yield json.loads(line)["listening"], Path(folder)
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                # LitServe's workers outlive it, and would keep the cores from whoever comes next.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
