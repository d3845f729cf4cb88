"""Trains the teacher-to-student layers of teachers in this process (`ktan.teachers.tsl`).

For private teachers see `teacher_server.training`: there no layer may know of another's records.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.data import Augment, AugmentName, Normalisation
from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.optimisers import learning_rate, make_optimiser
from ktan.precision import Precision, autocast
from ktan.tap_reader import TapReader
from ktan.taps import Tap
from ktan.teachers.tsl import PARTS, TeacherToStudentLayer, new_layer

Weights = Mapping[str, Tensor]
"""Of one layer, by part."""
Watch = Callable[[Tap, int], Iterable[int]]
"""Tap and number of steps → the steps' numbers from 0: a caller that shows them stands between."""
_UNPROTECTED: Final = (
    "unprotected: trained behind a teacher without noise and under no promise; do not give it to "
    "anybody who may not see the private records"
)


@dataclass(frozen=True)
class LayerRecipe:
    """How layers are trained."""

    steps: int = 300
    batch: int = 64
    learning_rate: float = 3e-3
    """Peak of Adam's: warm-up over 5 % of the steps, then cosine to 0."""
    augment: AugmentName = "none"
    seed: int = 0
    precision: Precision = "auto"
    """Of the teachers' pass; the layers themselves are float32."""


def train_layers(
    readers: Sequence[TapReader],
    tap: Tap,
    channels: int,
    classes: int,
    normalise: Normalisation,
    samples: Tensor,
    labels: Tensor,
    recipe: LayerRecipe,
    device: torch.device,
    watch: Watch | None = None,
) -> list[Weights]:
    """A layer on `device` for each of the frozen networks behind `readers`.

    `channels`: of the teachers' map; `samples` [N, ...] not normalised, `labels` int64 [N]: where
    one is -1 the teacher's own opinion stands for it. The same arguments give the same layers.
    Several layers share one classifier, so that their channels mean the same to it, and the mean
    over the teachers means something, too.

    Raises UserError when there is nothing to train on.
    """
    if not len(samples):
        raise UserError(f"tap {tap.text}: its layer is trained on samples, and there are none")
    fresh = [new_layer(channels, tap.shape, recipe.seed + i) for i in range(len(readers))]
    layers = [
        {part: nn.Parameter(value.to(device)) for part, value in layer.items()} for layer in fresh
    ]
    weight = nn.Parameter(torch.zeros(classes, tap.shape[0], device=device))
    bias = nn.Parameter(torch.zeros(classes, device=device))
    trained = [value for layer in layers for value in layer.values()]
    optimiser = make_optimiser([*trained, weight, bias], "adam")
    generator = torch.Generator().manual_seed(recipe.seed)
    passes = math.ceil(recipe.steps * recipe.batch / len(samples))
    order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(passes)])
    for step in range(recipe.steps) if watch is None else watch(tap, recipe.steps):
        places = order[step * recipe.batch : (step + 1) * recipe.batch]
        views = Augment(recipe.augment)(samples[places].to(device), generator)
        inputs = channels_last(normalise(views))
        targets = labels[places].to(device)
        losses = []
        for reader, layer in zip(readers, layers, strict=True):
            with torch.no_grad(), autocast(device, recipe.precision):
                logits, features = reader(inputs)
            values = TeacherToStudentLayer(tap.shape, layer)(features[str(tap.path)].float())
            pooled = values.mean(dim=(2, 3)) if values.ndim == 4 else values
            known = torch.where(targets < 0, logits.argmax(dim=1), targets)
            losses.append(F.cross_entropy(F.linear(pooled, weight, bias), known))
        optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe.learning_rate, step, recipe.steps)
        optimiser.step()
    return [{part: layer[part].detach() for part in PARTS} for layer in layers]


@dataclass(frozen=True)
class LayerFile:
    """Where layers are kept for the next time, and of what they are.

    As secret as the teachers: layers and fingerprint come from their weights without noise.
    """

    path: Path
    fingerprint: str

    @classmethod
    def of(
        cls,
        folder: Path,
        tap: Tap,
        networks: Sequence[nn.Module],
        samples: Tensor,
        labels: Tensor,
        recipe: LayerRecipe,
    ) -> "LayerFile":
        """Of these teachers' layers, trained on these samples by this recipe."""
        content = sha256(f"{tap.text} {asdict(recipe)}".encode())
        states = [value for network in networks for value in network.state_dict().values()]
        for value in (*states, samples, labels):
            plain = value.detach().cpu().contiguous()
            content.update(f"{plain.dtype} {list(plain.shape)}".encode())
            content.update(plain.reshape(-1).view(torch.uint8).numpy())
        name = sha256(tap.text.encode()).hexdigest()[:12]
        return cls(folder / f"tsl-{name}.safetensors", content.hexdigest())

    def read(self, device: torch.device) -> list[Weights] | None:
        """The layers, one for each teacher; None where others, or none, were kept."""
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                if (file.metadata() or {}).get("of") != self.fingerprint:
                    return None
                found = {part: file.get_tensor(part).to(device) for part in PARTS}
        except (FileNotFoundError, safetensors.SafetensorError):
            return None
        count = len(found[PARTS[0]])
        return [{part: found[part][i] for part in PARTS} for i in range(count)]

    def write(self, layers: Sequence[Weights]) -> None:
        """Keeps the layers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stacked = {part: torch.stack([layer[part].cpu() for layer in layers]) for part in PARTS}
        notes = {"of": self.fingerprint, "privacy": _UNPROTECTED}
        write_durably(self.path, safetensors.torch.save(stacked, notes), mode=0o600)
