"""Names in one array of bytes are the strings that they were made of; units are numpy's own."""

import numpy as np
import pytest

from ktan.data import names, units
from ktan.data.names import (
    NamePlaces,
    Names,
    ids_at,
    names_of,
    repeated_names,
    string_array,
)

WORDS = ["b/10.png", "a", "", "zürich/ä.png", "b/1.png", "a", "caf\udce9", "b/10.png", "日本"]


@pytest.fixture(params=[1, 4, 1000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_BLOCK", request.param)
    monkeypatch.setattr(units, "_BLOCK", request.param)


@pytest.fixture(params=[0, 1 << 20], ids=["in a file", "in memory"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_IN_MEMORY", request.param)


@pytest.mark.usefixtures("block")
def test_names_are_what_was_put_in() -> None:
    found = Names(WORDS)
    assert (len(found), list(found)) == (len(WORDS), WORDS)
    assert [found[place] for place in (3, 0, 8)] == [WORDS[3], WORDS[0], WORDS[8]]
    places = np.array([8, 8, 0, 5])
    assert list(found.at(places)) == [WORDS[place] for place in places]
    found.extend(["more"])
    assert list(found) == [*WORDS, "more"]


@pytest.mark.usefixtures("block", "room")
def test_arrays_of_strings_are_those_of_numpy() -> None:
    for words in (WORDS, [""], ["x" * 300, "y"]):
        expected, found = np.array(words), string_array(Names(words))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert list(names_of(expected)) == words
    places = np.array([3, 3, 0, 7])
    for ids in (np.array(WORDS), np.arange(20)):
        taken = ids_at(ids, places)
        assert taken.dtype == ids.dtype
        np.testing.assert_array_equal(taken, ids[places])


@pytest.mark.usefixtures("block")
def test_names_are_found_at_every_place_and_in_order() -> None:
    wanted = ["a", "nowhere", "b/10.png", "日本"]
    pairs = list(NamePlaces(Names(WORDS)).find(wanted))
    assert pairs == [(0, 1), (0, 5), (2, 0), (2, 7), (3, 8)]
    assert repeated_names(Names(WORDS)) == ["b/10.png", "a"]
    assert repeated_names(Names(sorted(set(WORDS)))) == []


def test_a_shared_hash_is_not_a_shared_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "hash", lambda name: len(name), raising=False)
    assert repeated_names(Names(WORDS)) == ["b/10.png", "a"]
    assert list(NamePlaces(Names(WORDS)).find(["a", "x", "b/1.png"])) == [(0, 1), (0, 5), (2, 4)]


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("count", [1, 2, 40])
def test_units_are_those_of_numpy(count: int) -> None:
    numbers = np.random.default_rng(count).integers(0, 12, count)
    for ids in (numbers, np.array([f"person-{number}" for number in numbers])):
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        found = units.distinct_units(ids)
        np.testing.assert_array_equal(found[0], first)
        np.testing.assert_array_equal(found[1], inverse)
