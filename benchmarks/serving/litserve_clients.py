"""Clients of LitServe, as `clients` are of ours: ADDRESS CLIENTS SAMPLES SECONDS."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import aiohttp
import numpy as np

from benchmarks.serving.models import SHAPE


async def load(address: str, clients: int, samples: int, seconds: float) -> dict[str, Any]:
    """Images a second while everybody asks, and the latencies in milliseconds."""
    begin = time.perf_counter() + seconds / 4
    end = begin + seconds
    done: list[tuple[float, float]] = []

    async def ask(client: int) -> None:
        body = np.random.default_rng(client).integers(0, 256, (samples, *SHAPE), dtype=np.uint8)
        async with aiohttp.ClientSession() as session:
            while (started := time.perf_counter()) < end:
                async with session.post(
                    f"http://{address}/predict", data=body.tobytes()
                ) as response:
                    response.raise_for_status()
                    assert len(await response.read()) == samples * 10 * 4
                done.append((started, time.perf_counter()))

    await asyncio.gather(*(ask(client) for client in range(clients)))
    latencies = [1e3 * (last - first) for first, last in done if begin <= last < end]
    return {
        "images_per_second": len(latencies) * samples / seconds,
        "requests": len(latencies),
        **{f"p{q}_ms": float(np.percentile(latencies, q)) for q in (50, 95, 99)},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("clients", type=int)
    parser.add_argument("samples", type=int)
    parser.add_argument("seconds", type=float)
    print(json.dumps(asyncio.run(load(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
