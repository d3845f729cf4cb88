"""Images a second of a student's training step: ours beside mdistiller's own, and the bare student.

    python -m benchmarks.train --repositories DIR                     (make bench-train)

DIR holds a clone of mdistiller (`benchmarks.peers`); without it our own steps are measured alone.
For soft logits, FitNet, AT and KTAN (which no public implementation has), ResNet-32 → ResNet-8 and
ResNet-56 → ResNet-20 on images of 32 × 32, in one run, in turns:

- `step`: on a batch that lies ready. Ours: the local teacher's answers, the student's forward and
  backward pass, every player's optimiser. mdistiller's: what its `train_iter` does, in float32.
- `with data`: from drawing the samples on. Ours: uint8 rows, crops and mirror images of the batch,
  normalisation. mdistiller's: its DataLoader over PIL images with two workers.
- `cached`: ours, with answers that a remote teacher gave once of each sample, on augmented views of
  it. No teacher is run, and an answer is not of the very view: not the same training.
- `bare`: forward, cross-entropy, backward and optimiser of the student alone.

By the clock, and by this process's processor time, in which a busy machine shows less (and the
loader's workers not at all). Ratios are medians over the turns. On a GPU also the share of its
bf16 rate, by counted multiplications, and every step is run once with waiting for the device
forbidden.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.public_code import PublicCode
from benchmarks.train_ours import BareStep, OurStep, Setting
from benchmarks.train_public import DISTILLERS, SOURCE, PublicStep
from ktan.errors import UserError
from ktan.precision import has_bf16, resolve_device

RESULT = Path(__file__).parent / "results" / "train.json"
COMMAND = "python -m benchmarks.train"
PAIRS = ("resnet32:resnet8", "resnet56:resnet20")
METHODS = ("soft-logits", "fitnet", "at", "ktan")
CLASSES = 100
GOALS = {"float32": 1.5, "default": 3.0, "cached": 5.0, "of_bare": 0.9}
"""Ours over mdistiller's; the last: the bare step's time over that of ours, cached, with data."""

Step = Callable[[], None]


def contenders(
    setting: Setting, method: str, code: PublicCode | None, compiled: bool
) -> dict[str, Step]:
    """Name → one step."""
    found: dict[str, Step] = {}
    for name, precision in (("float32", "float32"), ("default", "auto")):
        ours = OurStep(setting, method, precision, "live")  # type: ignore[arg-type]
        found[f"{name} step"] = ours.step
        found[f"{name} with data"] = ours.step_with_data
        found[f"{name} bare"] = BareStep(setting, precision).step  # type: ignore[arg-type]
    found["cached with data"] = OurStep(setting, method, "auto", "cached").step_with_data
    if compiled:
        found["compiled with data"] = OurStep(
            setting, method, "auto", "cached", compiled=True
        ).step_with_data
    if code is not None and method in DISTILLERS:
        public = PublicStep(
            code, method, setting.teacher, setting.student, setting.classes, setting.images,
            setting.labels, setting.batch, setting.device,
        )  # fmt: skip
        found[f"{SOURCE} step"] = public.step
        found[f"{SOURCE} with data"] = public.step_with_data
    return found


def timed(step: Step, steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds of one step: by the clock, and of this process's processor time."""
    _wait(device)
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - clock) / steps, (time.process_time() - processor) / steps


def race(
    steps_of: dict[str, Step], steps: int, turns: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Name → its times, a pair a turn; all take part in each turn, one after another."""
    for step in steps_of.values():
        timed(step, 2, device)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in steps_of}
    for _ in range(turns):
        for name, step in steps_of.items():
            found[name].append(timed(step, steps, device))
    return found


def summary(times: dict[str, list[tuple[float, float]]], batch: int) -> dict[str, Any]:
    """Images a second of each, and the ratios that the goals speak of."""

    def ratio(fast: str, slow: str) -> dict[str, float] | None:
        if slow not in times:
            return None
        return {
            kind: round(
                statistics.median(
                    b[place] / a[place] for a, b in zip(times[fast], times[slow], strict=True)
                ),
                3,
            )
            for place, kind in enumerate(("clock", "processor"))
        }

    rates = {
        name: {
            kind: round(batch / statistics.median(turn[place] for turn in turns), 1)
            for place, kind in enumerate(("clock", "processor"))
        }
        for name, turns in times.items()
    }
    return {
        "images_per_second": rates,
        "over_public": {
            "float32 step": ratio("float32 step", f"{SOURCE} step"),
            "float32 with data": ratio("float32 with data", f"{SOURCE} with data"),
            "default step": ratio("default step", f"{SOURCE} step"),
            "default with data": ratio("default with data", f"{SOURCE} with data"),
            "cached with data": ratio("cached with data", f"{SOURCE} with data"),
        },
        "of_bare": {
            "cached with data": ratio("cached with data", "default bare"),
            "live, default": ratio("default with data", "default bare"),
            "live, float32": ratio("float32 with data", "float32 bare"),
        },
    }


def measure(
    pairs: Sequence[str],
    methods: Sequence[str],
    code: PublicCode | None,
    device: torch.device,
    *,
    batch: int,
    steps: int,
    turns: int,
    compiled: bool,
) -> list[dict[str, Any]]:
    """Every pair and method; prints a line for each."""
    found = []
    images, labels = drawn(max(1024, 2 * batch))
    for pair in pairs:
        teacher, student = pair.split(":")
        setting = Setting(teacher, student, CLASSES, images, labels, batch, device)
        for method in methods:
            made = contenders(setting, method, code, compiled)
            row: dict[str, Any] = {"pair": pair, "method": method}
            if device.type == "cuda":
                row["gpu"] = on_gpu(made, batch)
            row |= summary(race(made, steps, turns, device), batch)
            found.append(row)
            print(line(row), flush=True)
    return found


def on_gpu(steps_of: dict[str, Step], batch: int) -> dict[str, Any]:
    """FLOPs of our steps, and that none of them waits for the device."""
    flops, waits = {}, []
    for name, step in steps_of.items():
        if name.startswith((SOURCE, "compiled")):
            continue
        timed(step, 2, torch.device("cuda"))
        with FlopCounterMode(display=False) as counter:
            step()
        flops[name] = counter.get_total_flops() / batch
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        except RuntimeError as error:
            waits.append(f"{name}: {str(error).splitlines()[0]}")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"flops_per_image": flops, "waits_for_device": waits}


def peak(device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a large bf16 matrix product: what the GPU gives at its best."""
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = [timed(partial(torch.mm, one, one), 10, device)[0] for _ in range(5)]  # type: ignore[arg-type]
    return 2 * size**3 / min(seconds)


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """Images and labels; what they show changes no step's time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    return images, torch.randint(0, CLASSES, (count,), generator=generator)


def line(row: dict[str, Any]) -> str:
    """One row in 80 columns."""
    rates = row["images_per_second"]
    over, bare = row["over_public"], row["of_bare"]["cached with data"]
    ratios = [
        f"{over[name]['clock']:.1f}×" if over[name] else "–"
        for name in ("float32 with data", "default with data", "cached with data")
    ]
    speed = rates["default with data"]["clock"]
    return (
        f"{row['pair']:18} {row['method']:12} {speed:7.0f} images/s "
        f"{ratios[0]:>6} {ratios[1]:>6} {ratios[2]:>6} {bare['clock']:6.2f}"
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repositories", type=Path, help="where a clone of mdistiller lies")
    parser.add_argument("--pairs", default=",".join(PAIRS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--batch", type=int, default=64, help="64 is mdistiller's")
    parser.add_argument("--steps", type=int, default=5, help="of a contender in a turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="a compiled student, too")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    code = None if given.repositories is None else PublicCode(given.repositories)
    print(f"{'':31} {'ours, default':>16}  float32 default cached of bare")
    print(f"{'':31} {'with data':>16}  over mdistiller's (goals)", flush=True)
    load = os.getloadavg()[0]
    rows = measure(
        given.pairs.split(","), given.methods.split(","), code, device, batch=given.batch,
        steps=given.steps, turns=given.turns, compiled=given.compile,
    )  # fmt: skip
    goals = [GOALS[name] for name in ("float32", "default", "cached", "of_bare")]
    print(f"{'goal':48} {goals[0]:.1f}×   {goals[1]:.1f}×   {goals[2]:.1f}×   {goals[3]:.2f}")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join([COMMAND, *_options(given)]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": given.threads,
        "load_before": round(load, 1),
        "default_precision": "bf16" if has_bf16(device) else "float32",
        "versions": {"torch": torch.__version__} if code is None else code.versions(),
        "batch": given.batch,
        "goals": GOALS,
        "rows": rows,
    }
    if device.type == "cuda":
        result["bf16_flops_per_second"] = peak(device)
        for row in rows:
            row["gpu"]["share_of_bf16_rate"] = {
                name: round(
                    flops * row["images_per_second"][name]["clock"]
                    / result["bf16_flops_per_second"], 4,
                )
                for name, flops in row["gpu"]["flops_per_image"].items()
            }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"→ {given.out}")


def _options(given: argparse.Namespace) -> list[str]:
    """As typed, but for folders."""
    shown = ("pairs", "methods", "batch", "steps", "turns", "threads")
    options = [f"--{name} {getattr(given, name)}" for name in shown]
    return [*options, *(["--compile"] if given.compile else [])]


def _processor() -> str:
    try:
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                return f"{entry.partition(':')[2].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
