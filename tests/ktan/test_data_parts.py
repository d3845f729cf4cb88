"""Parts of the data: read by position, a batch at a time, wherever they lie."""

import torch
from torch import Tensor

from ktan.data import Augment, Normalisation
from ktan.data_parts import fits
from ktan.training_data import BatchStream, TrainingData

CPU = torch.device("cpu")


class Mapped:
    """As a memory map: knows its size, and reads what is asked for."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self.shape, self.dtype = tuple(values.shape), values.dtype
        self.most = 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, positions: Tensor) -> Tensor:
        assert positions.dtype == torch.int64
        assert positions.device == CPU
        self.most = max(self.most, len(positions))
        return self._values[positions].clone()


def stream(data: TrainingData) -> BatchStream:
    return BatchStream(
        data, labelled_batch=3, answered_batch=4, unlabelled_batch=2, seed=5, device=CPU,
        normalise=Normalisation((1.0,), (2.0,)), augment=Augment("shift"),
    )  # fmt: skip


def test_what_is_mapped_gives_the_batches_of_what_is_in_memory_and_no_more_is_read() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 256, (30, 1, 8, 8), generator=generator).to(torch.uint8)
    hints, labels = torch.randn(12, 5, generator=generator), torch.arange(10)
    parts = [samples[:10], samples[10:22], hints, samples[22:]]
    mapped = [Mapped(part) for part in parts]
    held = stream(TrainingData(parts[0], labels, parts[1], {"hint": hints}, unlabelled=parts[3]))
    read = stream(
        TrainingData(mapped[0], labels, mapped[1], {"hint": mapped[2]}, unlabelled=mapped[3])
    )
    for step in range(7):
        one, other = held.batch(step), read.batch(step)
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.answers["hint"], other.answers["hint"])
        assert torch.equal(one.labels, other.labels)
    assert [part.most for part in mapped] == [3, 4, 4, 2]


def test_asked_for_or_on_a_cpu_nothing_is_weighed() -> None:
    columns = [torch.empty(3, 2)]
    assert fits(columns, CPU, "auto")
    assert fits(columns, torch.device("cuda"), "device")
    assert not fits(columns, torch.device("cuda"), "host")
