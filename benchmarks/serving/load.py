"""A closed loop: everybody asks, and asks again once answered. And what it came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
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

    opened: a client by its number. A quarter of `seconds` more, before, is to warm up.
    """
    begin = time.perf_counter() + seconds / 4
    end = begin + seconds
    done: list[tuple[float, float]] = []

    async def client(number: int) -> None:
        async with opened(number) as ask:
            while (started := time.perf_counter()) < end:
                await ask()
                done.append((started, time.perf_counter()))

    await asyncio.gather(*(client(number) for number in range(clients)))
    latencies = [1e3 * (last - first) for first, last in done if begin <= last < end]
    return {
        "images_per_second": len(latencies) * samples / seconds,
        "requests": len(latencies),
        **{f"p{q}_ms": float(np.percentile(latencies, q)) for q in (50, 95, 99)},
    }
