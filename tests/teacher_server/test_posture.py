"""A host that gives secrets away, and options that the budget contradicts, are refused at start."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ktan.errors import UserError
from privacy.budget import open_plan
from privacy.ledger import Ledger
from teacher_server import posture
from teacher_server.credentials import CertificateSet, utc_now
from teacher_server.limits import Limits
from teacher_server.options import ServeOptions
from teacher_server.posture import require_safe, require_secret, require_unchangeable
from teacher_server.revocation import Revocations
from teacher_server.room import require_room
from teacher_server.serving import run_service
from tests.teacher_server.running_service import CHARGE, MENU


@pytest.fixture
def host(tmp_path):
    """A teacher's folder and a ledger as `train` and `open-ledger` leave them."""
    teacher = tmp_path / "teacher"
    teacher.mkdir(mode=0o700)
    plan = open_plan(4.0, 1e-5)
    witness = tmp_path / "elsewhere" / "head.json"
    ledger = tmp_path / "ledger"
    Ledger.create(ledger, dataset_id="some", plan=plan, witness=witness).close()
    return teacher, ledger


@pytest.fixture
def nobody(monkeypatch):
    """Not root, whoever runs the tests."""
    monkeypatch.setattr(posture.os, "geteuid", lambda: os.getuid() or 1000)
    monkeypatch.setattr(posture, "require_secret", lambda path: None)


def test_what_the_commands_write_is_safe(host, caplog, nobody):
    require_safe(*host, {})
    assert not caplog.records


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("mode", [0o701, 0o704, 0o705, 0o755, 0o777])
def test_a_folder_that_anybody_may_enter_is_refused(host, which, mode):
    host[which].chmod(mode)
    with pytest.raises(UserError, match=f"by anybody .*chmod -R go-rwx {host[which]}"):
        require_safe(*host, {})
    host[which].chmod(0o700)
    require_safe(*host, {})


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_that_a_group_may_enter_is_spoken_of(host, which, caplog, nobody):
    host[which].chmod(0o750)
    require_safe(*host, {})
    (record,) = caplog.records
    assert "members of group" in record.message
    assert str(host[which]) in record.message


@pytest.mark.parametrize("name", ["signing-key.pem", "secret.key", "database-url"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_of_the_ledger_that_others_may_read_is_refused(host, name, mode):
    path = host[1] / name
    path.touch()
    path.chmod(mode)
    with pytest.raises(UserError, match=f"run: chmod 600 {path}"):
        require_safe(*host, {})


@pytest.mark.parametrize(
    ("owner", "mode", "fits"),
    [
        ("own", 0o600, True),
        ("own", 0o400, True),
        ("own", 0o640, False),
        ("own", 0o604, False),
        ("root", 0o600, True),
        ("root", 0o440, True),
        ("root", 0o640, True),
        ("root", 0o660, False),
        ("root", 0o644, False),
        ("another", 0o600, False),
    ],
)
def test_a_secret_is_its_users_or_is_handed_over_by_root(owner, mode, fits, monkeypatch):
    user = {"own": 1000, "root": 0, "another": 1001}[owner]
    found = SimpleNamespace(st_uid=user, st_mode=0o100000 | mode)
    monkeypatch.setattr(posture.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "stat", lambda path: found)
    if fits:
        require_secret(Path("key.pem"))
        return
    with pytest.raises(UserError, match=r"chmod 6[04]0 key.pem|belongs to user 1001"):
        require_secret(Path("key.pem"))


@pytest.mark.parametrize(
    ("owner", "mode", "fits"),
    [
        ("own", 0o100644, True),
        ("own", 0o100664, False),
        ("own", 0o100646, False),
        ("root", 0o100640, True),
        ("root", 0o100660, True),
        ("root", 0o100646, False),
        ("own", 0o040755, True),
        ("own", 0o040770, False),
        ("root", 0o040750, True),
        ("root", 0o040777, False),
        ("root", 0o043777, True),
    ],
)
def test_who_may_ask_is_not_for_others_to_say(owner, mode, fits, monkeypatch):
    found = SimpleNamespace(st_uid={"own": 1000, "root": 0}[owner], st_mode=mode)
    monkeypatch.setattr(Path, "stat", lambda path: found)
    if fits:
        require_unchangeable(Path("revoked"))
        return
    with pytest.raises(UserError, match=r"changed by others .* chmod go-w revoked"):
        require_unchangeable(Path("revoked"))


@pytest.mark.parametrize("name", ["", "ca.pem", "certificate.pem", "revoked", "limits"])
def test_each_file_that_says_who_may_ask_is_looked_at(tmp_path, certificates, name):
    folder = tmp_path / "server"
    shutil.copytree(certificates / "server", folder)
    for other in ("revoked", "limits"):
        (folder / other).write_text("")

    def read():
        CertificateSet.read(folder, utc_now())
        Revocations(folder / "revoked", needed=False)
        Limits(folder / "limits", open_plan(4.0, 1e-5))

    read()
    (folder / name).chmod(0o707)
    with pytest.raises(UserError, match=f"{folder / name} can be changed by others"):
        read()


def test_root_is_warned_and_serves(host, monkeypatch, caplog):
    monkeypatch.setattr(posture.os, "geteuid", lambda: 0)
    monkeypatch.setattr(posture, "require_secret", lambda path: None)
    require_safe(*host, {})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "runs as root" in caplog.text


def test_tls_is_not_weakened_from_outside(host, caplog, nobody):
    with pytest.raises(UserError, match="unset it"):
        require_safe(*host, {"GRPC_SSL_CIPHER_SUITES": "ALL"})
    require_safe(*host, {"GRPC_VERBOSITY": "NONE"})
    assert not caplog.records
    require_safe(*host, {"GRPC_TRACE": "all"})
    assert "may hold requests and answers" in caplog.text


def test_serve_looks_at_the_host_before_it_reads_anything(host):
    teacher, ledger = host
    ledger.chmod(0o755)
    options = ServeOptions(plaintext=True)
    with pytest.raises(UserError, match="chmod -R go-rwx"):
        run_service(teacher, ledger, None, None, options, "cpu", "rounded-gaussian", print)


def _state(left, draws_left):
    return SimpleNamespace(left=left, draws_left=draws_left, rolled_back=None)


EACH = sum(tap.release.draws for tap in MENU)


def test_more_answers_than_draws_are_refused(caplog):
    require_room(MENU, 10 * EACH, 10, _state(10 * CHARGE, 10 * EACH))
    with pytest.raises(UserError, match=r"needs 55 noise draws, 5 an answer.* is 10 answers"):
        require_room(MENU, 11 * EACH - 1, 11, _state(10 * CHARGE, 10 * EACH))
    assert not caplog.records


@pytest.mark.parametrize(
    ("left", "draws_left", "words"),
    [
        (CHARGE - 1, 10 * EACH, "the budget is spent"),
        (10 * CHARGE, EACH - 1, "the budget is spent"),
        (3 * CHARGE, 10 * EACH, "gives 3 answers"),
        (10 * CHARGE, 2 * EACH, "gives 2 answers"),
    ],
)
def test_what_is_left_is_told_where_it_is_less_than_promised(left, draws_left, words, caplog):
    require_room(MENU, 10 * EACH, 10, _state(left, draws_left))
    (record,) = caplog.records
    assert words in record.message


def test_answers_that_cost_nothing_need_no_room(caplog):
    free = [replace(tap, release=tap.release.free("a", "hint", 3)) for tap in MENU]
    require_room(free, 0, 10**9, _state(0, 0))
    assert not caplog.records
