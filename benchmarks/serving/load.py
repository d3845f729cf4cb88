"""A closed loop: everybody asks, and asks again once answered. And what it came to."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np

Ask = Callable[[], Awaitable[None]]
"""One request, answered and looked at."""


async def closed_loop(
    opened: Callable[[int], AbstractAsyncContextManager[Ask]],
    clients: int,
    samples: int,
    seconds: float,
) -> dict[str, Any]:
    """Images a second while all clients ask, and the latencies in milliseconds.

    opened: a client by its number. Begins once each was answered, and a quarter of `seconds` later,
    so that no handshake is counted.
    """
    begin = end = math.inf
    greeted = 0
    done: list[tuple[float, float]] = []

    async def client(number: int) -> None:
        nonlocal begin, end, greeted
        async with opened(number) as ask:
            await ask()
            greeted += 1
            if greeted == clients:
                begin = time.perf_counter() + seconds / 4
                end = begin + seconds
            while (started := time.perf_counter()) < end:
                await ask()
                done.append((started, time.perf_counter()))

    await asyncio.gather(*(client(number) for number in range(clients)))
    within = [(first, last) for first, last in done if begin <= last < end]
    # None, where a request takes longer than the turn.
    latencies = [1e3 * (last - first) for first, last in within or done]
    return {
        "images_per_second": throughput(done, begin, end) * samples,
        "requests": len(within),
        **{f"p{q}_ms": float(np.percentile(latencies, q)) for q in (50, 95, 99)},
    }


def throughput(done: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Requests a second between `begin` and `end`; `done`: when each was sent and answered.

    One that reaches beyond counts by the part of its time that lies within: what is counted whole
    or not at all makes a short turn a matter of luck where few, large requests are under way.
    """
    parts = (max(0.0, min(last, end) - max(first, begin)) / (last - first) for first, last in done)
    return sum(parts) / (end - begin)
