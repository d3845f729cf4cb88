"""LitServe with the same bare model.

    python -m benchmarks.serving.litserve_server MODEL FOLDER --requests N

Its own batching and protocol: JSON over HTTP, no TLS, no ledger, no noise, no receipt. Built
as its documentation says: up to N requests a batch, a worker a core with one torch thread each.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import threading
import time
import urllib.request

import litserve
import numpy as np
import torch

from benchmarks.serving.bare import networks
from benchmarks.serving.models import MODELS, SHAPE
from ktan.heap import keep_freed_memory


class Api(litserve.LitAPI):
    """Images as uint8 to logits as float32, both as base64 in JSON, the mean over the networks."""

    def __init__(self, model: str, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.0)
        self._model = model

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._networks = networks(MODELS[self._model], True)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        return np.frombuffer(base64.b64decode(request["images"]), np.uint8).reshape(-1, *SHAPE)

    def batch(self, inputs: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        return np.concatenate(inputs), [len(one) for one in inputs]

    @torch.inference_mode()
    def predict(
        self, x: tuple[np.ndarray, list[int]] | np.ndarray
    ) -> list[np.ndarray] | np.ndarray:
        # Where a batch is one request, it calls neither `batch` nor `unbatch`.
        samples, counts = x if isinstance(x, tuple) else (x, [])
        images = (torch.from_numpy(samples).float() - 127.5) / 64.0
        images = images.contiguous(memory_format=torch.channels_last)
        logits = torch.stack([network(images) for network in self._networks]).mean(dim=0).numpy()
        return np.split(logits, np.cumsum(counts)[:-1]) if counts else logits

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output: np.ndarray) -> dict[str, str]:
        return {"logits": base64.b64encode(output.tobytes()).decode()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder")
    parser.add_argument("--requests", type=int, required=True)
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = litserve.LitServer(
        Api(arguments.model, arguments.requests),
        accelerator="cpu",
        workers_per_device=os.cpu_count() or 1,
        timeout=60,
    )

    def tell() -> None:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
            except OSError:
                time.sleep(0.2)
                continue
            print(json.dumps({"listening": f"127.0.0.1:{port}"}), flush=True)
            return

    threading.Thread(target=tell, daemon=True).start()
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
