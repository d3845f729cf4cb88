"""The systemd unit: what systemd says of it, what it starts, and what that may reach."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import PurePosixPath

import pytest

from privacy.budget import open_plan
from teacher_server.limits import Limits
from tests.deploy.command_lines import FILES, parsed

FOLDER = FILES.parent / "teacher" / "systemd"
UNIT = FOLDER / "ktan-teacher@.service"
DROP_INS = ("gpu.conf", "postgresql.conf")
INSTANCE = "scans"
PROGRAM = "/opt/ktan/bin/teacher-server"
analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed here"
)


def settings(path):
    """Name → values in their order, of all sections; an empty value takes back those before."""
    found = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.replace("%i", INSTANCE).partition("=")
        if line.startswith(("#", "[")) or not equals:
            continue
        if value:
            found[name].append(value)
        else:
            found[name].clear()
    return found


@pytest.fixture
def installed(tmp_path):
    """The unit as systemd would find it, where a program stands in for ours."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(PROGRAM) == 1
    (tmp_path / UNIT.name).write_text(text.replace(PROGRAM, "/bin/true"))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    return tmp_path / UNIT.name


def say(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


@analyze
@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
def test_systemd_has_nothing_to_say_against_the_unit(installed, drop_in):
    if drop_in is not None:
        shutil.copy(FOLDER / drop_in, installed.parent / f"{installed.name}.d")
    assert say("systemd-analyze", "--man=no", "verify", installed) == (0, "")


@analyze
def test_a_mistake_in_the_unit_would_be_noticed(installed):
    installed.write_text(installed.read_text() + "\n[Service]\nProtectHouse=yes\n")
    _, said = say("systemd-analyze", "--man=no", "verify", installed)
    assert "ProtectHouse" in said


@analyze
def test_the_sandbox_is_tight(installed):
    security = ("systemd-analyze", "--no-pager", "--offline=true", "security")
    code, said = say(*security, "--threshold=15", installed)
    assert code == 0, said
    code, _ = say(*security, "--threshold=5", installed)
    assert code != 0  # the threshold is one


@pytest.fixture(scope="module")
def unit():
    return settings(UNIT)


@pytest.fixture(scope="module")
def serving(unit):
    """The arguments of the function that the unit's command calls."""
    (command,) = unit["ExecStart"]
    program, *words = command.split()
    assert program == PROGRAM
    assert words[:3] == ["serve", "--config", f"/etc/ktan/{INSTANCE}/serve.toml"]
    return parsed(["teacher-server", *words], FOLDER / "serve.toml")


def test_it_reaches_what_its_options_name_and_may_write_what_it_must(unit, serving):
    seen = {path for line in unit["BindReadOnlyPaths"] for path in line.split()}
    written = {path for line in unit["BindPaths"] for path in line.split()}
    written |= {f"/var/log/{name}" for name in unit["LogsDirectory"]}
    options = serving["options"]

    def within(path, folders):
        return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)

    assert within(serving["ledger"], written)
    assert within(options.request_log, written)
    assert within(serving["teacher"], written | seen)
    (read_only,) = unit["ReadOnlyPaths"]
    assert within(serving["teacher"], [read_only.removeprefix("-")])
    for path in (options.certs, options.limits):
        assert within(path, seen)
        assert not within(path, written)
    assert not {path for path in written if INSTANCE not in path}


def test_it_drains_before_it_is_killed(unit, serving):
    (seconds,) = unit["TimeoutStopSec"]
    assert int(seconds) > serving["options"].grace + 15
    assert unit["KillSignal"] == ["SIGTERM"]


def test_a_mistake_is_not_tried_again(unit):
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    retried = settings(FOLDER / "postgresql.conf")
    assert retried["RestartPreventExitStatus"] == []


def test_certificates_are_followed_and_not_copied_once(unit):
    assert not {name for name in unit if name.startswith(("LoadCredential", "SetCredential"))}


def test_nobody_is_root(unit):
    assert unit["User"] == unit["Group"] == ["ktan"]
    assert unit["CapabilityBoundingSet"] == []
    users = (FOLDER / "ktan.sysusers.conf").read_text(encoding="utf-8")
    assert [line.split()[:3] for line in users.splitlines() if not line.startswith("#")] == [
        ["u", "ktan", "-"]
    ]


def test_the_metrics_stay_on_the_host(serving):
    assert serving["options"].metrics.startswith("127.0.0.1:")
    assert not serving["options"].metrics_open


def test_what_is_moved_away_is_opened_anew(serving):
    rotating = (FOLDER / "ktan-teacher.logrotate").read_text(encoding="utf-8")
    pattern = next(line for line in rotating.splitlines() if line.startswith("/")).split()[0]
    assert PurePosixPath(serving["options"].request_log).match(pattern)
    assert "kill --signal=HUP --kill-whom=main 'ktan-teacher@*.service'" in rotating


def test_the_limits_are_read():
    limits = Limits(FOLDER / "limits.toml", open_plan(8.0, 1e-5))
    limits.admit("anna", 1000)
