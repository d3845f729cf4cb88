"""A network of one's own in a loop of one's own, taught by a network at hand or a private service.

python -m examples.plain_loop
python -m examples.plain_loop --teacher teacher.example.org:50051 --certs certs/anna
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ktan.data import DataSource, Normalisation, SplitRecipe, split
from ktan.distil import distil
from ktan.methods import METHODS
from ktan.methods.combination import parse_method
from ktan.methods.needs import serving

EPOCHS = 40
SHOWN = 5
"""Epochs between two lines on screen."""
SPLIT = SplitRecipe(labelled=100, unlabelled=1000, test=1000)


class Network(nn.Module):
    """Written without a thought of distillation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 5, stride=2, padding=2)
        self.second = nn.Conv2d(width, 2 * width, 5, stride=2, padding=2)
        self.head = nn.Linear(2 * width * 7 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.second(F.relu(self.first(images))))
        logits: Tensor = self.head(maps.flatten(1))
        return logits


@dataclass(frozen=True)
class Public:
    """What the trainer has: few labels, and samples to ask a teacher about."""

    known: tuple[Tensor, Tensor]
    queries: Tensor
    test: tuple[Tensor, Tensor]
    raw_queries: Tensor
    """uint8, as a service takes them."""


def load(data_root: Path) -> tuple[Public, tuple[Tensor, Tensor]]:
    """The public part of the embedded digits, and the private one."""
    data = DataSource("glyphs", data_root, size=7200).load()
    parts = split(data, SPLIT)
    raw = data.samples[parts.unlabelled[:300]]
    ready = Normalisation.of_public(raw)
    known, test, private = (
        (ready(data.samples[rows]), data.labels[rows])
        for rows in (parts.labelled, parts.test, parts.private)
    )
    return Public(known, ready(raw), test, raw), private


@dataclass(frozen=True)
class Answered(Dataset[tuple[Tensor, int, dict[str, Tensor]]]):
    """Samples, their label (-1: none) and the answers to them, as DataLoader collates them."""

    samples: Tensor
    answers: dict[str, Tensor] = field(default_factory=dict)
    """Empty where the teacher answers each batch as it comes."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        return self.samples[row], -1, {tap: values[row] for tap, values in self.answers.items()}


def train_teacher(samples: Tensor, labels: Tensor) -> nn.Module:
    """A larger network, trained on the private part for a few seconds."""
    teacher = Network(width=16)
    optimiser = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(2):
        for rows in torch.split(torch.randperm(len(samples)), 64):
            optimiser.zero_grad()
            F.cross_entropy(teacher(samples[rows]), labels[rows]).backward()
            optimiser.step()
    return teacher


def ask(  # type: ignore[no-untyped-def]
    address: str, certs: Path, queries: Tensor, store: Path, method: str
):
    """A private teacher and its answers to what the method uses: paid for once, kept in `store`."""
    from student_client import Connection, FetchingTeacher, RemoteTeacher

    with RemoteTeacher(address, Connection(certs=certs)) as service:
        taps = {tap.name: tap for tap in service.describe().answer_taps}
        used = list(serving(parse_method(method, {}).needs, taps))
        teacher = FetchingTeacher.open(service, store, asks=used)
        return teacher, teacher.answer(queries)


def accuracy(network: nn.Module, samples: Tensor, labels: Tensor) -> float:
    """On samples that nobody learnt from."""
    network.eval()
    with torch.no_grad():
        return float((network(samples).argmax(dim=1) == labels).float().mean())


def main() -> None:
    """Trains one student and says what it has learnt."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--teacher", help="HOST:PORT of a private service")
    options.add_argument("--certs", type=Path, help="the folder that its custodian sent")
    options.add_argument("--method", default="ktan", help=f"{', '.join(METHODS)}, or A+B")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--data-root", type=Path, default=Path("data"))
    options.add_argument("--answers", type=Path, default=Path("answers"), help="kept there")
    chosen = options.parse_args()

    torch.manual_seed(0)
    public, private = load(chosen.data_root)
    if chosen.teacher:
        teacher, answers = ask(
            chosen.teacher, chosen.certs, public.raw_queries, chosen.answers, chosen.method
        )
    else:
        teacher, answers = train_teacher(*private), {}
        print(f"teacher: accuracy {accuracy(teacher, *public.test):.3f}")

    student = Network(width=6)
    loader = DataLoader(Answered(public.queries, answers), batch_size=50, shuffle=True)
    method = distil(
        chosen.method, student, teacher, public.queries, answers, steps=chosen.epochs * len(loader)
    )
    optimiser = torch.optim.Adam([*student.parameters(), *method.parameters()], lr=3e-3)
    for epoch in range(chosen.epochs):
        student.train()
        total = 0.0
        for samples, labels, answered in loader:
            loss = method(student, (samples, labels), answered, labelled=public.known)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            total += loss.item()
        if epoch % SHOWN == SHOWN - 1:
            print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}")
    print(f"student: accuracy {accuracy(student, *public.test):.3f}")


if __name__ == "__main__":
    main()
