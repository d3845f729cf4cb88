"""The table of our methods beside public implementations of them."""

import copy
from typing import Any

import pytest

from benchmarks.peers.beside import beside, markdown
from ktan.errors import UserError

COMPARISON: dict[str, Any] = {
    "test_samples": 100,
    "network": "resnet8",
    "dataset": "fake",
    "seeds": [0, 1],
    "teacher": {"name": "resnet32", "accuracy": 0.9},
    "rows": [
        {
            "method": "at", "steps": 5, "accuracies": {"0": 0.5, "1": 0.6},
            "differences": {"0": 0.1, "1": 0.1},
        },
        {
            "method": "kd-svd", "steps": 5, "accuracies": {"0": 0.4, "1": 0.4},
            "differences": {"0": 0.0, "1": -0.1},
        },
        {"method": "ktan", "steps": 5, "accuracies": {"0": 0.4}, "differences": {"0": 0.0}},
        {"method": "local", "steps": 5, "accuracies": {"0": 0.4, "1": 0.5}, "differences": {}},
    ],
}  # fmt: skip


def peer(method: str, first: float, second: float | None) -> dict[str, Any]:
    return {
        "method": method, "source": f"public {method}", "steps": 5,
        "accuracies": {"0": first, "1": second}, "accuracy": None,
        "difference": {"mean": 0.05, "sd": 0.01},
    }  # fmt: skip


PEERS: dict[str, Any] = {
    "date": "2000-01-01",
    "versions": {},
    "test_samples": 100,
    "student": "resnet8",
    "teacher": {"test_accuracy": 0.9},
    "rows": [
        peer("alone", 0.4, 0.5), peer("at", 0.55, 0.66), peer("kd-svd", 0.9, None),
        peer("kd-svd-finite", 0.4, None),
    ],
}  # fmt: skip


def test_a_method_is_compared_with_its_peer_seed_by_seed() -> None:
    attention, svd, own, *rest = beside(COMPARISON, PEERS)["rows"]
    assert rest == []
    # -0.05 and -0.06: behind by more than their spread of 0.007.
    assert attention["to_peer"]["mean"] == pytest.approx(-0.055)
    assert attention["to_peer"]["sd"] == pytest.approx(0.01 / 2**0.5)
    assert attention["behind"]
    # The peer that can be trained, on the seed that it finished.
    assert svd["peer"]["source"] == "public kd-svd-finite"
    assert svd["to_peer"] == {"mean": 0.0, "sd": None}
    assert not svd["behind"]
    assert "peer" not in own


def test_the_table_says_who_is_behind() -> None:
    lines = markdown(beside(COMPARISON, PEERS)).splitlines()
    assert lines[2] == (
        "| `at` | 55.00 ± 7.07 | +10.00 ± 0.00 | public at | +5.00 ± 1.00 | −5.50 ± 0.71 (behind) |"
    )
    assert lines[4] == "| `ktan` | 40.00 | +0.00 | – |  |  |"


@pytest.mark.parametrize(
    ("path", "value"),
    [(("test_samples",), 99), (("teacher", "test_accuracy"), 0.8), (("rows", 1, "steps"), 6)],
)
def test_trainings_of_two_kinds_are_not_compared(path: tuple[Any, ...], value: Any) -> None:
    peers: Any = copy.deepcopy(PEERS)
    place = peers
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError):
        beside(COMPARISON, peers)
