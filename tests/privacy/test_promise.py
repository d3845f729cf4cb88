"""The promise says what it means, and survives JSON."""

import json
import subprocess
import sys

import pytest

from privacy.promise import Adjacency, Promise


def test_sentence_names_all_five() -> None:
    sentence = Promise(3.2, 1e-5, Adjacency.REPLACE_ONE, "person", "ensemble").sentence()
    for part in ("ε = 3.2", "δ = 1e-05", "replace-one", "person", "ensemble"):
        assert part in sentence
    assert "mode" not in Promise(1.0, 1e-5, Adjacency.ADD_REMOVE, "record").sentence()


def test_json_round_trip() -> None:
    for mode in (None, "dp-sgd"):
        promise = Promise(1.0, 1e-6, Adjacency.ADD_REMOVE, "record", mode)
        assert Promise.from_json(json.loads(json.dumps(promise.to_json()))) == promise


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
