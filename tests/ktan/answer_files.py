"""A store of ten requests, filled and checked, for the tests of its files."""

from pathlib import Path

import numpy as np
import torch

from ktan.answers import AnswerManifest, AnswerStore
from ktan.teacher import AnswerTap

MANIFEST = AnswerManifest(
    "ab" * 16,
    (
        AnswerTap("probabilities", "probabilities", (10,), noise_sd=0.13, temperature=3.0),
        AnswerTap("hint", "hint", (2, 3), noise_sd=0.5),
    ),
)
DIGESTS = np.random.default_rng(1).integers(0, 256, (60, 32), dtype=np.uint8)
GIVEN = {
    tap.name: np.random.default_rng(2).normal(size=(60, *tap.shape)).astype(np.float32)
    for tap in MANIFEST.taps
}


def fill(store: AnswerStore, requests: range = range(10)) -> None:
    """Six samples a request; every third request is for the hints alone."""
    for number in requests:
        part = slice(6 * number, 6 * number + 6)
        taps = ["hint"] if number % 3 == 2 else ["probabilities", "hint"]
        store.begin(f"r{number}", DIGESTS[part], taps)
        answers = {name: GIVEN[name][part] for name in taps}
        store.finish(f"r{number}", answers, {"entry": number, "signature": f"ß{number}"})


def check(store: AnswerStore, requests: int = 10) -> None:
    """Everything that `fill` put in is there, bit for bit and once."""
    digests, count = DIGESTS[: 6 * requests], 6 * requests
    assert len(store) == count
    order = np.random.default_rng(3).permutation(count)
    hints = store.rows(digests[order], ["hint"])["hint"]
    for batch in np.split(np.arange(count), 6):
        expected = GIVEN["hint"][order][batch]
        np.testing.assert_array_equal(hints[torch.from_numpy(batch)].numpy(), expected)
    labelled = np.array([number // 6 % 3 != 2 for number in range(count)])
    assert store.missing(digests, ["probabilities"]).tolist() == (~labelled).tolist()
    found = store.answers(digests[labelled], ["probabilities"])["probabilities"]
    np.testing.assert_array_equal(found.numpy(), GIVEN["probabilities"][:count][labelled])
    entries = sorted(receipt["entry"] for receipt in store.receipts())
    assert entries == list(range(requests))
    of_two = store.receipts(digests[[0, 5, 13]], ["hint"])
    assert sorted(receipt["signature"] for receipt in of_two) == ["ß0", "ß2"]


def files(folder: Path) -> tuple[int, int]:
    return len(list((folder / "shards").iterdir())), len(list((folder / "chunks").iterdir()))


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
