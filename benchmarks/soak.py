"""Hours of a bad day in minutes: the service overloaded by clients that come, go, die and cancel.

    python -m benchmarks.soak [--minutes 20] [--overload 1.5]     (make bench-soak)

Measures what the service can do for this mix of requests, then offers so many times as much,
whether it is answered or not, and in the end holds the closed ledger against what every client
kept on disk. What is done and what must hold: docs/soak.md. Ends with exit code 1 where something
did not hold; Ctrl-C ends it early, with the report of what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.fuzz.target import Target, Use
from benchmarks.soaking.books import Books, Closed, balance
from benchmarks.soaking.client import Plan
from benchmarks.soaking.crowd import (
    CLIENTS,
    Group,
    Troubles,
    all_clients,
    closed_clients,
    closed_groups,
    open_groups,
    send_home,
)
from benchmarks.soaking.figures import percentiles
from benchmarks.soaking.journal import read
from benchmarks.soaking.tally import Tally
from benchmarks.soaking.watch import HEAP, MB, Moment, Watch, growth

RESULT: Final = Path(__file__).parent / "results" / "soak.json"
_ROOT: Final = Path(__file__).parents[1]
CAPACITY_SECONDS: Final = 30.0
_WARM_UP: Final = 5.0
SAMPLE_SECONDS: Final = 10.0
FILES, THREADS = 2, 12
"""More than before anybody came, once everybody has left, at most."""
FAIR: Final = 0.9
"""Jain's index of the steady clients, who want alike, at least."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--overload", type=float, default=1.5, help="of the capacity measured")
    parser.add_argument(
        "--calls", type=int, default=100, help="that a client leaves open on its connection"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(words)
    over = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: over.set())
    with tempfile.TemporaryDirectory(prefix="ktan-soak-") as place:
        report = soak(Path(place), arguments, over)
    print(shown(report))
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for line in report["violated"]:
        print(f"VIOLATED: {line}")
    return 1 if report["violated"] else 0


def soak(folder: Path, arguments: argparse.Namespace, over: threading.Event) -> dict[str, Any]:
    """The whole of it; `over` ends the load early. The report."""
    minutes, overload, calls = arguments.minutes, arguments.overload, arguments.calls
    journals = folder / "journals"
    journals.mkdir()
    violated: list[str] = []
    with _service(folder) as target:
        watch = Watch(target)
        face = watch.describe()
        plan = partial(
            Plan, target.address, str(target.certificates), str(journals),
            tuple(face.input_shape), calls,
        )  # fmt: skip

        started = watch.look()
        measuring = closed_groups(plan)
        capacity = _capacity(measuring, journals, over)
        if not target.alive:
            raise RuntimeError(f"the service ended by itself: {target.log.read_text()}")
        measured = watch.look()
        before = measured.use
        print(f"capacity {capacity:,.0f} samples/s; {overload} times that is offered", flush=True)
        groups = open_groups(plan, overload * capacity)
        begin = time.monotonic()
        with _crowd(groups) as troubles:
            _watch_until(begin + 60 * minutes, watch, over, violated)
            end = time.monotonic()
            troubles.end()
            send_home(groups)
        loaded = watch.moments[2:]
        if target.alive:
            after = _settled_down(target, before, violated)
        else:
            after = before
            violated.append("the service ended before it was told to")
        code = target.stop()
        if code:
            violated.append(f"the service ended with exit code {code}")
        _complaints(target.log, violated)
    violated += [
        f"a process of {group.name} clients ended with exit code {code}"
        for group in (*measuring, *groups)
        for code in group.ended
        if code
    ]
    print("the service has ended; the ledger is held against the journals", flush=True)
    price = sum(tap.charge for tap in face.taps)
    books, tally = _account(folder, journals, len(face.taps), price, Tally(begin, end))
    violated += [f"{count} × {what}" for what, count in tally.wrong.items()]
    violated += books.broken
    figures = tally.report()
    if figures["fairness"]["steady clients"] < FAIR:
        violated.append(f"Jain's index of the steady clients is below {FAIR}")
    memory = growth(loaded, begin, end, violated)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.soak --minutes {minutes:g} --overload {overload:g} "
        f"--calls {calls}",
        "cores": os.cpu_count(),
        "minutes": round((end - begin) / 60, 2),
        "clients": CLIENTS,
        "capacity_samples_per_second": round(capacity, 1),
        "service_processor_ms_per_charged_sample": {
            "capacity": _work(started, measured, price),
            "soak": _work(measured, watch.moments[-1], price),
        },
        **figures,
        "done_to_clients": dict(troubles.done),
        "memory": memory,
        "threads": {"before": before.threads, "after": after.threads},
        "files": {"before": before.files, "after": after.files},
        "books": {
            "entries": books.entries,
            "samples_charged": books.charged // price,
            "units_in_entries": books.charged,
            "units_spent": books.spent,
            "receipts_verified": books.receipts,
            "settled_and_never_heard": dict(books.unheard),
            "faults": dict(books.faults),
        },
        "samples": [
            {
                "seconds": round(moment.time - begin),
                "resident_mb": round(moment.use.resident / MB, 1),
                "heap_mb": round(moment.heap / MB, 1),
                "python_blocks": moment.blocks,
                "threads": moment.use.threads,
                "files": moment.use.files,
                "spent": moment.spent,
                **percentiles(tally.windows[round((moment.time - begin) / SAMPLE_SECONDS) - 1]),
            }
            for moment in loaded
        ],
        "violated": violated,
    }


def shown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['minutes']} minutes, {report['clients']} clients, capacity "
        f"{report['capacity_samples_per_second']:,.0f} samples/s",
        f"wanted {report['wanted_samples_per_second']:,.0f} samples/s, served "
        f"{report['served_samples_per_second']:,.0f}; by minute "
        + " ".join(f"{rate:,.0f}" for rate in report["served_by_minute"]),
    ]
    lines += [
        f"{name}: " + ", ".join(f"{value:,} {what}" for what, value in report[name].items())
        for name in ("requests", "refused", "not_answered", "done_to_clients", "fairness")
    ]
    for kind, found in report["latency_ms"].items():
        for what in ("call", "with_retries"):
            figures = ", ".join(f"{name} {value:,}" for name, value in found[what].items())
            lines.append(f"{kind}, {what}, ms: {figures or 'none answered'}")
    for kind, share in report["share"].items():
        lines.append(
            f"{kind}: {share['of_clients']:.0%} of clients, {share['of_served_samples']:.1%} of "
            f"served samples; steady ones got {share['served_of_wanted_steady']:.1%} of theirs"
        )
    lines += [
        f"{name}: {json.dumps(report[name])}"
        for name in (
            "service_processor_ms_per_charged_sample",
            "memory",
            "threads",
            "files",
            "books",
        )
    ]
    return "\n".join(lines)


@contextmanager
def _service(folder: Path) -> Iterator[Target]:
    """`benchmarks.serving.server` with a ResNet-20."""
    served, log = folder / "service", folder / "log"
    served.mkdir()
    command = [
        sys.executable, "-m", "benchmarks.serving.server", "resnet20", str(served),
        "--heap", str(folder / HEAP),
    ]  # fmt: skip
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True,
            start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            code = process.wait(60)
            raise RuntimeError(f"the service did not start, exit code {code}: {log.read_text()}")
        yield Target(process, json.loads(line)["listening"], served, log)
    finally:
        process.kill()
        process.communicate()


def _capacity(groups: list[Group], journals: Path, over: threading.Event) -> float:
    """Samples a second that a closed loop gets."""
    with _crowd(groups):
        for group in groups:
            group.wait_ready()
        begin = time.monotonic() + _WARM_UP
        over.wait(_WARM_UP + CAPACITY_SECONDS)
        end = time.monotonic()
        send_home(groups)
    served = sum(
        request.count
        for number in closed_clients()
        for request in read(journals / f"client-{number}").values()
        for got in request.got[:1]
        if begin <= got.time < end
    )
    return served / max(end - begin, 1.0)


@contextmanager
def _crowd(groups: list[Group]) -> Iterator[Troubles]:
    """Started, and in any case gone in the end."""
    with ExitStack() as stack:
        for group in groups:
            group.start()
            stack.callback(group.kill)
        troubles = Troubles(groups, random.Random())
        stack.callback(troubles.end)
        yield troubles


def _watch_until(end: float, watch: Watch, over: threading.Event, violated: list[str]) -> None:
    """Looks at the service each ten seconds, and says a line each minute."""
    looks = 0
    while not over.is_set() and (left := end - time.monotonic()) > 0:
        over.wait(min(SAMPLE_SECONDS, left))
        try:
            moment = watch.look()
        except (grpc.RpcError, OSError) as error:
            violated.append(f"the service could not be looked at: {type(error).__name__}")
            return
        looks += 1
        if looks % 6 == 0:
            use = moment.use
            print(
                f"minute {looks // 6}: {use.resident / MB:,.0f} MB, of the heap "
                f"{moment.heap / MB:,.0f} in use, {use.threads} threads, "
                f"{use.files} files",
                flush=True,
            )


def _settled_down(target: Target, before: Use, violated: list[str]) -> Use:
    """What the service holds once everybody has left; connections take a moment to be gone."""
    deadline = time.monotonic() + 30
    while True:
        use = target.use()
        files, threads = use.files - before.files, use.threads - before.threads
        if files <= FILES and threads <= THREADS:
            return use
        if time.monotonic() > deadline:
            violated.append(f"{files} files and {threads} threads more than before, all being gone")
            return use
        time.sleep(0.5)


def _complaints(log: Path, violated: list[str]) -> None:
    """The service's own log, where it holds an error."""
    for line in log.read_text(errors="replace").splitlines():
        if "Traceback" in line or "ERROR" in line:
            violated.append(f"the service's log: {line[:200]}")
            return


def _account(
    folder: Path, journals: Path, taps: int, price: int, tally: Tally
) -> tuple[Books, Tally]:
    """Every client's journal against the ledger, one client after the other."""
    books, served = Books(), folder / "service"
    closed = Closed(served / "ledger", served / "witness.json", books)
    open_loop = all_clients()
    for number in (*open_loop, *closed_clients()):
        client = f"client-{number}"
        asked = read(journals / client)
        balance(books, client, asked, closed.settled(client), taps, price)
        for request in asked.values():
            closed.check_receipt(client, request)
            if number in open_loop:
                tally.note(number, request)
    closed.close()
    return books, tally


def _work(first: Moment, last: Moment, price: int) -> float:
    """Milliseconds of the service's processor for each sample that was charged in between."""
    charged = max((last.spent - first.spent) / price, 1.0)
    return round(1e3 * (last.seconds - first.seconds) / charged, 3)


if __name__ == "__main__":
    sys.exit(main())
