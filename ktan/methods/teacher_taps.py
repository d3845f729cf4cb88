"""What methods read in a local teacher (`Method.teacher_taps`); a tap's name is its `Tap.text`."""

from dataclasses import replace

from ktan.errors import UserError
from ktan.networks import NetworkStages
from ktan.tap_kinds import TapKind
from ktan.taps import Tap


def local_tap(kind: TapKind, path: str, second: str | None = None) -> Tap:
    """One tap of a path, or of two; whole, without a reduction."""
    return _named(Tap("", kind, path, second=second))


def response_tap(temperature: float) -> Tap:
    """Probabilities at a temperature. Raises UserError for one that is not above 0."""
    if temperature <= 0:
        raise UserError(f"temperature is {temperature:g}; it must be above 0")
    return _named(Tap("", "probabilities", temperature=temperature))


def map_taps(stages: NetworkStages) -> tuple[Tap, ...]:
    """The whole map of every stage; none for a network of vectors."""
    return tuple(_named(Tap("", "hint", path, whole_map=True)) for path in stages.maps)


def middle_tap(stages: NetworkStages) -> Tap:
    """The whole map of the middle stage; of a network of vectors the one before its classifier."""
    maps = map_taps(stages)
    return maps[len(maps) // 2] if maps else local_tap("hint", stages.pooled)


def _named(tap: Tap) -> Tap:
    return replace(tap, name=tap.text)
