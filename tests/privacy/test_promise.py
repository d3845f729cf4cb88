"""The promise says what it means, and survives JSON."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from privacy import gaussian
from privacy.errors import InvalidPlan
from privacy.promise import Adjacency, Promise


def test_sentence_names_all_five() -> None:
    sentence = Promise(3.2, 1e-5, Adjacency.REPLACE_ONE, "person", "ensemble").sentence()
    for part in ("ε = 3.2", "δ = 1e-5", "replace-one", "person", "ensemble"):
        assert part in sentence
    assert "mode" not in Promise(1.0, 1e-5, Adjacency.ADD_REMOVE, "record").sentence()


def test_json_round_trip() -> None:
    for mode in (None, "dp-sgd"):
        promise = Promise(1.0, 1e-6, Adjacency.ADD_REMOVE, "record", mode)
        assert Promise.from_json(json.loads(json.dumps(promise.to_json()))) == promise


def test_add_remove_gives_replace_one_by_group_privacy_and_nothing_gives_the_reverse() -> None:
    promise = Promise(0.5, 1e-6, Adjacency.ADD_REMOVE, "record")
    replaced = promise.under(Adjacency.REPLACE_ONE)
    assert (replaced.epsilon, replaced.adjacency) == (1.0, Adjacency.REPLACE_ONE)
    assert replaced.delta == pytest.approx(1e-6 * (1.0 + math.exp(0.5)), rel=1e-15)
    assert promise.under(Adjacency.ADD_REMOVE) == promise
    assert replaced.under(Adjacency.REPLACE_ONE) == replaced
    with pytest.raises(InvalidPlan, match="nothing follows"):
        replaced.under(Adjacency.ADD_REMOVE)
    for epsilon in (14.0, 1000.0):
        with pytest.raises(InvalidPlan, match="promises nothing"):
            replace(promise, epsilon=epsilon).under(Adjacency.REPLACE_ONE)


def test_group_privacy_holds_for_the_gaussian_and_is_not_tight() -> None:
    """A sum of vectors of norm 1: a removal moves it by 1, a replacement by up to 2."""
    for mu in (0.1, 0.5, 1.0):
        for epsilon in (0.1, 1.0, 2.0):
            once = Promise(epsilon, gaussian.delta(epsilon, mu), Adjacency.ADD_REMOVE, "record")
            twice = once.under(Adjacency.REPLACE_ONE)
            assert gaussian.delta(twice.epsilon, 2.0 * mu) <= twice.delta


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": -1.0},
        {"epsilon": "nan"},
        {"delta": 1.0},
        {"unit": ""},
        {"adjacency": "zero-out"},
    ],
)
def test_nonsense_is_refused(change: dict[str, object]) -> None:
    good = Promise(1.0, 1e-6, Adjacency.REPLACE_ONE, "record").to_json()
    with pytest.raises(ValueError):  # noqa: PT011 - one message per field
        Promise.from_json(good | change)


def test_the_core_loads_without_torch_or_privacy_libraries() -> None:
    modules = "bounding calibration composition gaussian noise promise quantising release budget"
    imports = "; ".join(f"import privacy.{name}" for name in modules.split())
    heavy = "{'torch', 'opendp', 'dp_accounting', 'grpc'} & set(sys.modules)"
    code = f"import sys; {imports}; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
