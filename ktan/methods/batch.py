"""What a step sees: a batch of samples, and what the student makes of it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ktan.parallel import ONE, Group


@dataclass(frozen=True)
class Batch:
    """One step's samples, normalised and augmented; any part may be empty."""

    labelled: Tensor
    """float [l, ...]."""
    labels: Tensor
    """int64 [l]."""
    answered: Tensor
    """float [a, ...]."""
    answers: Mapping[str, Tensor]
    """Tap name → float32 [a, ...], as released."""
    answered_labels: Tensor
    """int64 [a], -1 where the public sample has no label."""
    weak: Tensor | None = None
    """float [u, ...]: weak views of unlabelled samples; None where no term looks at them."""
    strong: Tensor | None = None
    """float [u, ...]: strong views of the same samples, in the same order."""

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def parts(self) -> list[Tensor]:
        """All samples, in the order of `View.logits`."""
        views = [] if self.weak is None or self.strong is None else [self.weak, self.strong]
        return [self.labelled, self.answered, *views]

    @property
    def samples(self) -> Tensor:
        """float [l + a + 2·u, ...]: what the student's one forward pass runs on."""
        parts = [part for part in self.parts if len(part)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def all_labels(self) -> Tensor:
        """int64 [l + a], in the order of `View.known_logits`."""
        return torch.cat([self.labels, self.answered_labels])

    def answered_classes(self, opinions: Tensor) -> Tensor:
        """int64 [a]: public labels; where there is none the arg max of `opinions` [a, classes]."""
        labels = self.answered_labels
        return torch.where(labels < 0, opinions.argmax(dim=1), labels)


@dataclass(frozen=True)
class View:
    """What the student makes of a batch in one forward pass.

    Rows stand as in `Batch.parts`: labelled, answered, weak views, strong views.
    """

    logits: Tensor
    """float32 [l + a + 2·u, classes]."""
    features: Mapping[str, Tensor]
    """Student's module path → [l + a + 2·u, ...], in the type in which the pass put it out."""
    labelled: int
    """l."""
    answered: int
    """a."""
    half: torch.dtype | None = None
    """What the pass multiplied in, where that was not float32."""
    group: Group = ONE
    """The processes whose samples together are the step's."""

    def in_its_precision(self) -> AbstractContextManager[object]:
        """Within, layers that a method puts behind the student multiply as the student did."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.logits.device.type, dtype=self.half)

    @property
    def known(self) -> slice:
        """Labelled and answered rows: all but the views of unlabelled samples."""
        return slice(0, self.labelled + self.answered)

    @property
    def known_logits(self) -> Tensor:
        """[l + a, classes]."""
        return self.logits[self.known]

    @property
    def answered_logits(self) -> Tensor:
        """[a, classes]."""
        return self.logits[self.labelled : self.labelled + self.answered]

    def answered_features(self, path: str) -> Tensor:
        """float32 [a, ...]."""
        return self.answered_output(path).float()

    def answered_output(self, path: str) -> Tensor:
        """[a, ...], in the type in which the pass put it out."""
        return self.features[path][self.labelled : self.labelled + self.answered]

    def known_features(self, path: str) -> Tensor:
        """float32 [l + a, ...]."""
        return self.known_output(path).float()

    def known_output(self, path: str) -> Tensor:
        """[l + a, ...], in the type in which the pass put it out."""
        return self.features[path][self.known]

    @property
    def weak_logits(self) -> Tensor:
        """[u, classes]."""
        start = self.labelled + self.answered
        return self.logits[start : start + (len(self.logits) - start) // 2]

    @property
    def strong_logits(self) -> Tensor:
        """[u, classes]."""
        start = self.labelled + self.answered
        return self.logits[start + (len(self.logits) - start) // 2 :]
