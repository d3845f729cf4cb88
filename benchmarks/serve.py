"""The service beside the bare model: images a second and latency, with everything on.

    python -m benchmarks.serve [--seconds 8] [--turns 3] [--litserve PYTHON]     (make bench-serve)

A ResNet-20 and an ensemble of 50 small CNNs are served with bound, noise, a durable ledger and mTLS
on, to 8 clients that ask about 64 images at a time and to 64 clients that ask about one; service,
clients and bare model on the same cores, in turns. The bare forward pass is measured at its own
best batch size, layout and thread count, in float32, which is what is served, and in bf16.

`added`: the median latency of one client that asks about one image of an idle server, less that of
the bare model. LitServe (PYTHON: an interpreter that has it; `make bench-serve` sets one up) serves
the same bare model over its own protocol, without any of the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.serving.models import MODELS

RESULT = Path(__file__).parent / "results" / "serve.json"
GOALS = {"bulk": 0.95, "single": 0.45, "added_ms": 5.0}
LOADS = {"bulk": (8, 64), "single": (64, 1)}
"""Clients, and images in each of their requests."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--litserve", help="a Python interpreter that has litserve and torch")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": "make bench-serve",
        "machine": {"cores": os.cpu_count(), "processor": platform.processor()},
        "goals": GOALS,
        "models": {},
    }
    for name in arguments.models:
        found = measure(name, arguments.seconds, arguments.turns, arguments.litserve)
        report["models"][name] = found
        print(table(name, found), flush=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(model: str, seconds: float, turns: int, litserve: str | None) -> dict[str, Any]:
    """All figures of one model; ratios are medians over the turns."""
    bare = {
        # Long enough for several passes of the slowest: a short look chose a wrong setting once.
        precision: _child("bare", model, "3", "--precision", precision)
        for precision in ("float32", "bf16")
    }
    setting = json.dumps(bare["float32"]["setting"])
    one = json.dumps(bare["float32"]["setting"] | {"batch": 1, "callers": 1, "torch_threads": 1})
    found: list[dict[str, Any]] = []
    for _ in range(turns):
        turn: dict[str, Any] = {}
        turn["bare"] = _child("bare", model, str(seconds), "--setting", setting)
        with _service("server", model) as (address, folder):
            for load, (clients, samples) in LOADS.items():
                turn[load] = _clients(address, folder, clients, samples, seconds)
            turn["idle"] = _clients(address, folder, 1, 1, seconds / 2)
        turn["bare_ms"] = 1e3 / _child("bare", model, "2", "--setting", one)["images_per_second"]
        if litserve:
            for load, (clients, samples) in LOADS.items():
                # It counts requests: as many as make 64 images.
                requests = "--requests", str(64 // samples)
                with _service("litserve_server", model, *requests, python=litserve) as (address, _):
                    turn[f"litserve_{load}"] = json.loads(
                        _run(
                            litserve, "-m", "benchmarks.serving.litserve_clients", address,
                            str(clients), str(samples), str(seconds),
                        )
                    )  # fmt: skip
        found.append(turn)

    def ratio(load: str) -> float:
        return statistics.median(
            turn[load]["images_per_second"] / turn["bare"]["images_per_second"] for turn in found
        )

    loads = [load for load in found[0] if load.removeprefix("litserve_") in LOADS]
    return {
        "bare_best": bare,
        "ratios": {load: ratio(load) for load in loads},
        "added_ms": statistics.median(turn["idle"]["p50_ms"] - turn["bare_ms"] for turn in found),
        "turns": found,
    }


def table(model: str, found: dict[str, Any]) -> str:
    """The figures beside their goals."""
    best = found["bare_best"]
    lines = [f"{model}: bare {best['float32']['images_per_second']:,.0f} images/s in float32,"]
    lines[0] += f" {best['bf16']['images_per_second']:,.0f} in bf16"
    for load, ratio in found["ratios"].items():
        goal = GOALS.get(load)
        speeds = [turn[load]["images_per_second"] for turn in found["turns"]]
        beside = f"  (goal {goal})" if goal else ""
        lines.append(f"  {load:16} {ratio:5.2f} of bare, {max(speeds):7,.0f} images/s{beside}")
    lines.append(f"  added latency    {found['added_ms']:5.2f} ms  (goal {GOALS['added_ms']})")
    return "\n".join(lines)


def _clients(
    address: str, folder: Path, clients: int, samples: int, seconds: float
) -> dict[str, Any]:
    return _child("clients", address, str(folder), str(clients), str(samples), str(seconds))


def _child(module: str, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        _run(sys.executable, "-m", f"benchmarks.serving.{module}", *words)
    )
    return found


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


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
                yield json.loads(process.stdout.readline())["listening"], Path(folder)
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                # LitServe's workers outlive it, and would keep the cores from whoever comes next.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
