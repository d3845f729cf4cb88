"""Sends shots, many in flight on few channels, and holds each reply against what is right."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from benchmarks.fuzz.face import Face
from benchmarks.fuzz.kinds import draw, make
from benchmarks.fuzz.probes import Prober
from benchmarks.fuzz.shots import Shot, Status
from benchmarks.fuzz.target import Target

IN_FLIGHT: Final = 128
_CHANNELS: Final = 4
_PER_PROBE: Final = 500
"""Hostile requests between two valid ones."""
_HUNG: Final = 300.0
_LONGEST: Final = 500
"""Characters of a status's message."""
_INSIDE: Final = re.compile(r"Traceback|<class|object at 0x|Exception|Unexpected|\.py\b")
"""Words of a program, which no message to a client may hold."""


@dataclass
class Row:
    """What became of the shots of one kind."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    """Of what was wrong: status and message."""

    def add(self, status: Status, message: str, right: bool) -> None:
        """Counts one reply."""
        self.statuses[" ".join(filter(None, status))] += 1
        if not right:
            self.wrong += 1
            if len(self.examples) < 3:
                self.examples.append(f"{status}: {message[:200]}")


async def shoot(
    target: Target,
    face: Face,
    prober: Prober,
    rng: random.Random,
    count: int,
    end: float,
    table: dict[str, Row],
) -> None:
    """Sends `count` hostile requests, and a probe among every few hundred.

    end: by `time.monotonic`; no request is begun after it.
    """
    names = enumerate(draw(rng, face, count))
    channels = [target.channel("anna") for _ in range(_CHANNELS)]
    auditor = target.channel("otto")

    async def worker(number: int) -> None:
        for place, name in names:
            if time.monotonic() > end:
                return
            if place % _PER_PROBE == _PER_PROBE // 2:
                await prober.probe(rng)
            shot = make(rng, face, name)
            channel = auditor if shot.role == "auditor" else channels[number % _CHANNELS]
            status, message = await asyncio.wait_for(send(channel, shot), _HUNG)
            table.setdefault(name, Row()).add(status, message, _right(shot, status, message))

    async with asyncio.TaskGroup() as group:
        for number in range(min(IN_FLIGHT, count)):
            group.create_task(worker(number))
    for channel in (*channels, auditor):
        await channel.close()


def _right(shot: Shot, status: Status, message: str) -> bool:
    return status in shot.right and len(message) <= _LONGEST and not _INSIDE.search(message)


async def send(channel: grpc.aio.Channel, shot: Shot) -> tuple[Status, str]:
    """The status of one shot's reply, and its message."""
    options: dict[str, Any] = {
        "timeout": shot.timeout, "metadata": shot.metadata, "compression": shot.compression,
    }  # fmt: skip
    try:
        if shot.streams == "out":
            async for _ in channel.unary_stream(shot.method)(shot.body, **options):
                pass
        elif shot.streams == "both":
            async for _ in channel.stream_stream(shot.method)(iter([shot.body]), **options):
                pass
        else:
            call = channel.unary_unary(shot.method)(shot.body, **options)
            if shot.cancel is not None:
                asyncio.get_running_loop().call_later(shot.cancel, call.cancel)
            await call
    except grpc.aio.AioRpcError as error:
        return (error.code().name, _reason(error)), error.details() or ""
    except asyncio.CancelledError:
        if shot.cancel is None:
            raise
        return ("CANCELLED", ""), ""
    return ("OK", ""), ""


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
