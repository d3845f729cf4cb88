"""The record of a run's options: what a resumed run may change, and what is not recorded."""

from pathlib import Path

import pytest

from ktan.errors import UserError
from student_client.config import check_config, write_config
from tests.student_client.commands import forget

BEGUN = {
    "teacher": "host:1",
    "out": Path("run"),
    "queries": 24,
    "select": "margin",
    "rounds": None,
    "hint": ("hint=features",),
    "deadline": 10.0,
    "data-on": "auto",
}
DEFAULTS = {"queries": 300, "select": "random", "rounds": None, "hint": (), "deadline": 10.0}


@pytest.fixture
def folder(tmp_path):
    write_config(tmp_path, BEGUN)
    return tmp_path


def test_the_same_options_go_on_and_others_do_not(folder):
    check_config(folder, BEGUN, DEFAULTS)
    for name, value, shown in (
        ("queries", 25, "24, now it is 25"),
        ("rounds", 2, "not given, now it is 2"),
        ("hint", (), r"\['hint=features'\], now it is \[\]"),
    ):
        with pytest.raises(UserError, match=f"was begun with --{name} {shown}"):
            check_config(folder, {**BEGUN, name: value}, DEFAULTS)
    check_config(folder, {**BEGUN, "deadline": 20.0, "data-on": "host"}, DEFAULTS)
    check_config(folder, {**BEGUN, "queries": 25}, DEFAULTS, free=frozenset({"queries"}))


def test_an_option_that_is_not_recorded_was_its_default(folder):
    forget(folder / "config.toml", "queries", "select", "hint")
    old = {**BEGUN, "queries": 300, "select": "random", "hint": ()}
    check_config(folder, old, DEFAULTS)
    for name, value, shown in (
        ("queries", 24, "300, now it is 24"),
        ("select", "margin", "random, now it is margin"),
        ("hint", ("hint=features",), r"\[\], now it is \['hint=features'\]"),
    ):
        with pytest.raises(UserError, match=f"was begun with --{name} {shown}"):
            check_config(folder, {**old, name: value}, DEFAULTS)


def test_an_option_that_is_there_no_more_is_named(folder):
    fewer = {name: value for name, value in BEGUN.items() if name != "select"}
    with pytest.raises(UserError, match="was begun with --select margin, now it is not given"):
        check_config(folder, fewer, {})
