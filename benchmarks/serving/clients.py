"""Clients of the service.

    python -m benchmarks.serving.clients ADDRESS FOLDER

Reads {"clients": k, "samples": n, "seconds": s}: each of k clients has a certificate and a channel
of its own and one request of n new images under way at a time. Prints images a second and the
latencies. Every answer is parsed and its receipt looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.serving.children import answer_each_line
from benchmarks.serving.load import Ask, closed_loop
from benchmarks.serving.models import SHAPE
from protos import teacher_pb2, teacher_pb2_grpc
from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES


class Images:
    """Requests of images that nobody has asked about."""

    _count = itertools.count()

    def __init__(self, client: int, samples: int) -> None:
        generator = np.random.default_rng()
        self._images = generator.integers(0, 256, (samples, *SHAPE), dtype=np.uint8)
        self._flat = self._images.reshape(samples, -1)
        self._flat[:, :4] = np.frombuffer(np.uint32(client).tobytes(), np.uint8)
        self._marks = self._flat[:, 4:12].view(np.int64)

    def request(self) -> teacher_pb2.QueryRequest:
        self._marks[:, 0] = [next(self._count) for _ in self._marks]
        tensor = teacher_pb2.Tensor(
            name="samples",
            dtype=teacher_pb2.DATA_TYPE_UINT8,
            shape=self._images.shape,
            data=self._images.tobytes(),
        )
        return teacher_pb2.QueryRequest(request_id=str(uuid.uuid4()), samples=[tensor])


def channel(address: str, folder: Path, client: int) -> grpc.aio.Channel:
    """With a certificate of the client's own, over a connection of its own."""
    own = folder / f"client-{client}"
    credentials = grpc.ssl_channel_credentials(
        *((own / name).read_bytes() for name in ("ca.pem", "key.pem", "certificate.pem"))
    )
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ]
    return grpc.aio.secure_channel(address, credentials, options)


async def load(
    address: str, folder: Path, clients: int, samples: int, seconds: float
) -> dict[str, Any]:
    """See `closed_loop`."""

    @asynccontextmanager
    async def opened(number: int) -> AsyncIterator[Ask]:
        images = Images(number, samples)
        async with channel(address, folder, number) as own:
            stub = teacher_pb2_grpc.TeacherServiceStub(own)

            async def ask() -> None:
                response = await stub.Query(images.request(), timeout=60)
                assert response.charged_samples == samples
                assert response.receipt

            yield ask

    return await closed_loop(opened, clients, samples, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    answer_each_line(lambda **asked: asyncio.run(load(**vars(arguments), **asked)))


if __name__ == "__main__":
    main()
