"""What a method is bound to: one student, and what one teacher answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from ktan.data_parts import Rows
from ktan.errors import UserError
from ktan.methods.needs import Need, taps_for
from ktan.networks import NetworkStages
from ktan.tap_reader import tap_shapes
from ktan.teacher import AnswerTap


@dataclass(frozen=True, eq=False)
class Binding:
    """A student, a teacher's taps, and which points of the student imitate which tap."""

    student: nn.Module
    input_shape: tuple[int, ...]
    """Of one sample."""
    classes: int
    taps: Mapping[str, AnswerTap] = field(default_factory=dict)
    """What the teacher answers: name → tap."""
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tap name → the student's module paths that imitate it: two for products, else one; see
    `ktan.pairing`."""
    answers: Mapping[str, Rows] = field(default_factory=dict)
    """Answers at hand, tap name → float32 [n, *shape], maybe more than memory holds: from which
    scales are measured."""
    stages: NetworkStages = field(default_factory=lambda: NetworkStages((), (), ""))
    """The student's own stages, for methods that look at them without a teacher's tap."""
    teacher_stages: NetworkStages | None = None
    """Of a local teacher that answers exactly the `Method.teacher_taps` of its methods."""

    def taps_for(self, need: Need) -> list[AnswerTap]:
        """The taps that serve a need; those that the student has paths for, where it needs some."""
        found = taps_for(need, self.taps)
        if need.kind in ("response", "logits"):
            return found
        return [tap for tap in found if tap.name in self.paths]

    def shapes(self, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The student's module path → shape of its output for one sample, by a dry run."""
        wanted = list(dict.fromkeys(paths))
        unknown = [path for path in wanted if path not in self._shapes]
        if unknown:
            self._shapes.update(tap_shapes(self.student, self.input_shape, unknown))
        return {path: self._shapes[path] for path in wanted}

    def map_shapes(self, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """`shapes` of paths that put out maps [c, h, w]. Raises UserError for one that does not."""
        found = self.shapes(paths)
        for path, shape in found.items():
            if len(shape) != 3:
                raise UserError(
                    f"the student's {path} puts out {list(shape)}, and a map [c, h, w] is needed; "
                    "name a module that puts one out with --hint TAP=PATH"
                )
        return found

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {}


def module_key(name: str) -> str:
    """A tap's name or a path as a module's name, which may hold no dot."""
    return name.replace(".", "_")
