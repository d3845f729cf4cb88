"""What methods read in a local teacher, by its stages."""

import pytest

from ktan.errors import UserError
from ktan.methods import METHODS
from ktan.methods.teacher_taps import local_tap, map_taps, middle_tap, response_tap
from ktan.networks import NetworkSpec, NetworkStages, stages_of
from ktan.taps import parse_tap

MAPS = NetworkStages(("a", "b", "c", "d"), ("a.in", "b.in", "c.in", "d.in"), "e")
VECTORS = stages_of(NetworkSpec("mlp-small", (5,), 3))


def test_a_tap_is_called_what_the_command_line_calls_it() -> None:
    taps = [
        local_tap("attention", "a"),
        local_tap("products", "a", "b"),
        response_tap(4.0),
        *map_taps(MAPS),
    ]
    assert [tap.name for tap in taps] == [
        "attention=a", "products=a,b", "probabilities@T=4",
        "hint=a:map", "hint=b:map", "hint=c:map", "hint=d:map",
    ]  # fmt: skip
    for tap in taps:
        parsed = parse_tap(tap.name)
        assert (parsed.kind, parsed.paths, parsed.temperature, parsed.whole_map) == (
            tap.kind, tap.paths, tap.temperature, tap.whole_map
        )  # fmt: skip


def test_a_temperature_is_above_0() -> None:
    for mistake in (0.0, -1.0):
        with pytest.raises(UserError, match="it must be above 0"):
            response_tap(mistake)
        with pytest.raises(UserError, match="it must be above 0"):
            METHODS["dkd"](temperature=mistake)  # type: ignore[call-arg]


def test_the_middle_one_is_a_map_or_where_there_is_none_the_vector_before_the_classifier() -> None:
    assert middle_tap(MAPS).name == "hint=c:map"
    assert not VECTORS.maps
    assert middle_tap(VECTORS).name == f"hint={VECTORS.pooled}"


@pytest.mark.parametrize("name", METHODS)
def test_no_method_stumbles_over_a_teacher_of_vectors(name: str) -> None:
    """What it cannot read is missing from its taps, and is told of when it is bound."""
    method = METHODS[name]()
    kinds = {tap.kind for tap in method.teacher_taps(VECTORS)}
    assert kinds <= {"logits", "probabilities", "hint"}
    assert all(tap.name == tap.text for tap in method.teacher_taps(MAPS))
