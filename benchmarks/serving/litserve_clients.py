"""Clients of LitServe, as `clients` are of ours: `... litserve_clients ADDRESS`."""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np

from benchmarks.serving.children import answer_each_line
from benchmarks.serving.load import Ask, closed_loop
from benchmarks.serving.models import CLASSES, SHAPE


async def load(address: str, clients: int, samples: int, seconds: float) -> dict[str, Any]:
    """See `closed_loop`."""

    @asynccontextmanager
    async def opened(number: int) -> AsyncIterator[Ask]:
        body = np.random.default_rng(number).integers(0, 256, (samples, *SHAPE), dtype=np.uint8)
        images, url = base64.b64encode(body.tobytes()).decode(), f"http://{address}/predict"
        async with aiohttp.ClientSession() as session:

            async def ask() -> None:
                async with session.post(url, json={"images": images}) as response:
                    response.raise_for_status()
                    logits = base64.b64decode((await response.json())["logits"])
                assert len(logits) == samples * CLASSES * 4

            yield ask

    return await closed_loop(opened, clients, samples, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    address = parser.parse_args().address
    answer_each_line(lambda **asked: asyncio.run(load(address, **asked)))


if __name__ == "__main__":
    main()
