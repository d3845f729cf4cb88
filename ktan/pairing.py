"""Which points of the student imitate which tap of the teacher, where nobody says otherwise."""

from collections.abc import Mapping, Sequence

from torch import nn

from ktan.errors import UserError
from ktan.networks import NetworkStages
from ktan.tap_reader import tap_shapes
from ktan.teacher import AnswerTap


def pair_taps(
    taps: Mapping[str, AnswerTap],
    student: nn.Module,
    input_shape: tuple[int, ...],
    stages: NetworkStages,
    given: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Tap name → the student's module paths: as `given`, else what suits the tap's kind and shape.

    A vector is imitated by the features before the classifier. A map, attention or signs are
    imitated by the student's stage of the same height and width; where no stage has it, by order
    from the last. Products, which show no size, go by order from the last two stages. Taps of
    logits and probabilities need no path. Raises UserError for a path given to a tap that there is
    not, and where the student has too few stages.
    """
    given = given or {}
    for name, chosen in given.items():
        if name not in taps or taps[name].kind in ("logits", "probabilities"):
            raise UserError(
                f"--hint {name}={','.join(chosen)}: the teacher answers no hint '{name}'; it "
                f"answers {', '.join(taps)}"
            )
    paths = {name: tuple(chosen) for name, chosen in given.items()}
    sizes = _sizes(student, input_shape, stages.maps)
    for kind in ("hint", "tsl", "attention", "signs", "products"):
        of_kind = [tap for tap in taps.values() if tap.kind == kind]
        # Order is among maps alone: a vector beside them takes no stage.
        staged = [tap.name for tap in of_kind if not _is_vector(tap)]
        for tap in of_kind:
            if tap.name not in paths:
                place = staged.index(tap.name) if tap.name in staged else 0
                paths[tap.name] = _path(tap, len(staged) - place, stages, sizes)
    return paths


def _is_vector(tap: AnswerTap) -> bool:
    return tap.kind in ("hint", "tsl") and len(tap.shape) == 1


def _path(
    tap: AnswerTap, from_last: int, stages: NetworkStages, sizes: Sequence[tuple[int, ...]]
) -> tuple[str, ...]:
    if _is_vector(tap):
        if not stages.pooled:
            raise UserError(
                f"the student does not end in a linear layer; name the module that imitates the "
                f"tap '{tap.name}' with --hint {tap.name}=PATH"
            )
        return (stages.pooled,)
    if tap.kind == "products":
        first = len(stages.maps) - 1 - from_last
        if first < 0:
            raise _too_few(tap, stages)
        return (stages.maps[first], stages.maps[first + 1])
    fitting = [place for place, size in enumerate(sizes) if size == tap.shape[-2:]]
    place = fitting[-1] if fitting else len(sizes) - from_last
    if place < 0:
        raise _too_few(tap, stages)
    return ((stages.before_activation if tap.kind == "signs" else stages.maps)[place],)


def _sizes(
    student: nn.Module, input_shape: tuple[int, ...], maps: Sequence[str]
) -> list[tuple[int, ...]]:
    shapes = tap_shapes(student, input_shape, maps) if maps else {}
    return [shapes[path][-2:] for path in maps]


def _too_few(tap: AnswerTap, stages: NetworkStages) -> UserError:
    return UserError(
        f"the student has {len(stages.maps)} stages of maps, too few to imitate the tap "
        f"'{tap.name}'; name the student's module with --hint {tap.name}=PATH, or choose another "
        "network"
    )
