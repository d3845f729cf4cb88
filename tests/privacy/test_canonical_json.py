"""One value, one byte form; everything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy import canonical_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values))
def test_reads_back_what_it_wrote(value: dict[str, object]) -> None:
    data = canonical_json.encode(value)
    assert data.isascii()
    assert canonical_json.decode(data) == value


def test_the_order_of_insertion_does_not_matter() -> None:
    assert canonical_json.encode({"b": 1, "a": 2}) == canonical_json.encode({"a": 2, "b": 1})


def test_is_the_form_that_the_documentation_shows() -> None:
    value = {"charge": 40, "client": "é", "epsilon_spent": 0.1, "list": [1, None, True]}
    expected = rb'{"charge":40,"client":"\u00e9","epsilon_spent":0.1,"list":[1,null,true]}'
    assert canonical_json.encode(value) == expected


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1} ',
        b'{"a":1}{"a":1}',
        b'{"a":1.0e0}',
        b'{"a":NaN}',
        b"[1]",
        b"1",
        b"",
        '{"a":"é"}'.encode(),
        b"[" * 100_000,
    ],
)
def test_refuses_any_other_form(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is one
        canonical_json.decode(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}])
def test_refuses_what_has_no_one_form(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is one
        canonical_json.encode({"value": value})


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1])
def test_an_integer_is_nothing_else(value: object) -> None:
    with pytest.raises(ValueError, match="non-negative integer"):
        canonical_json.integer(value)


def test_a_digest_has_one_spelling() -> None:
    assert canonical_json.digest("ab" * 32) == b"\xab" * 32
    for text in ("AB" * 32, "ab" * 31, "ab" * 33, " " + "ab" * 32):
        with pytest.raises(ValueError):  # noqa: PT011
            canonical_json.digest(text)


def test_the_value_is_plain_json() -> None:
    value = {"x": [1.5, {"y": "z"}]}
    assert json.loads(canonical_json.encode(value)) == value
