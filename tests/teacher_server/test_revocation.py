"""Whoever is revoked is refused at the next call, on a connection that is open already too."""

import json
import logging
import math
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from ktan.errors import UserError
from protos import Reason, teacher_pb2
from protos.teacher_pb2_grpc import AuditServiceStub, TeacherServiceStub
from teacher_server import revocation
from teacher_server.certificates import Issued, load_authority, renew
from teacher_server.commands.revoke import revoke
from teacher_server.errors import RequestError, Unauthenticated
from teacher_server.listening import Transport
from teacher_server.options import ServeOptions
from teacher_server.revocation import Revocations, Revoked
from tests.teacher_server.running_service import FACE, images, query, running
from tests.teacher_server.test_service import PATIENCE, refusal

Code = grpc.StatusCode


@pytest.fixture
def folder(tmp_path, certificates):
    shutil.copytree(certificates, tmp_path / "certificates")
    return tmp_path / "certificates"


@pytest.fixture
def served(tmp_path, folder):
    """A service whose list of the revoked is this test's own."""
    yield from running(tmp_path, folder, FACE)


@pytest.fixture(autouse=True)
def _always_look(monkeypatch):
    """What is revoked is so at the next call, and not a twentieth of a second later."""
    monkeypatch.setattr(revocation, "_LOOK_SECONDS", 0.0)


def _list(folder):
    return folder / "server" / "revoked"


def _pem(folder, name):
    return (folder / name / "certificate.pem").read_bytes()


def test_a_revoked_name_is_refused_at_its_next_call_and_nobody_else_is(served, folder):
    anna = TeacherServiceStub(served.channel("anna"))
    anna.Query(query(images(1)), timeout=PATIENCE)
    before = served.spent
    revocation.add(_list(folder), ["anna", "otto"], [])
    code, reason, facts, message = refusal(anna.Query, query(images(1, seed=1)))
    assert (code, reason, facts) == (Code.UNAUTHENTICATED, Reason.REVOKED, {})
    assert "anna was revoked" in message
    # Over every method and kind of call, also by a new connection and a new certificate.
    renew(load_authority(folder / "ca"), folder / "anna")
    for call in (served.stub("anna").Describe, anna.Describe):
        assert refusal(call, teacher_pb2.DescribeRequest())[1] == Reason.REVOKED
    audit = AuditServiceStub(served.channel("otto"))
    with pytest.raises(grpc.RpcError) as caught:
        list(audit.ListEntries(teacher_pb2.ListEntriesRequest(), timeout=PATIENCE))
    assert caught.value.code() is Code.UNAUTHENTICATED
    assert served.spent == before
    served.stub("bert").Query(query(images(1, seed=2)), timeout=PATIENCE)
    # Let in again, by an editor, and at once too.
    _list(folder).write_text("# nobody\n")
    anna.Query(query(images(1)), timeout=PATIENCE)


def test_a_revoked_certificate_is_refused_and_its_successor_is_not(served, folder):
    old = TeacherServiceStub(served.channel("anna"))
    old.Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
    revocation.add(_list(folder), [], [Issued.read(folder / "anna").serial])
    renew(load_authority(folder / "ca"), folder / "anna")
    assert refusal(old.Describe, teacher_pb2.DescribeRequest())[1] == Reason.REVOKED
    served.stub("anna").Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)


def test_a_list_that_breaks_lets_nobody_back_in_and_shuts_nobody_out(folder, caplog):
    path = _list(folder)
    revocation.add(path, ["anna"], [])
    followed = Revocations(path, needed=True)
    anna, bert = (_pem(folder, name) for name in ("anna", "bert"))
    for break_it in (
        lambda: path.write_text("name anna\nbert\n"),
        lambda: path.write_bytes(b"\xff\xfe"),
        path.unlink,
    ):
        break_it()
        caplog.clear()
        for _ in range(3):
            followed.check(bert, "bert")
            with pytest.raises(RequestError, match="anna was revoked"):
                followed.check(anna, "anna")
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
    revocation.add(path, ["bert"], [])
    with pytest.raises(RequestError, match="bert was revoked"):
        followed.check(bert, "bert")
    followed.check(anna, "anna")


def test_a_list_that_cannot_be_read_at_the_start_is_no_list(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Revocations(tmp_path / "none", needed=True)
    Revocations(tmp_path / "none", needed=False)
    path = tmp_path / "revoked"
    path.write_text("anna\n")
    for needed in (True, False):
        with pytest.raises(UserError, match="line 1: write `name NAME`"):
            Revocations(path, needed=needed)
    with pytest.raises(UserError, match="line 1"):
        revocation.add(path, ["bert"], [])
    with pytest.raises(UserError, match="line 1"):
        Transport("localhost:0", tmp_path, False, 1, 0.0, path).revocations()
    assert Transport("localhost:0", None, False, 1, 0.0).revocations() is None


def test_what_is_written_is_read_and_adding_is_adding(tmp_path):
    path = tmp_path / "revoked"
    revocation.add(path, ["anna"], ["00ff"])
    found = revocation.add(path, ["bert", "anna"], ["FF", "1"])
    assert found == Revoked(frozenset({"anna", "bert"}), frozenset({255, 1}))
    assert Revoked.parse(path.read_text(), "") == found
    assert Revoked.parse("", "") == Revoked()
    before = path.read_bytes()
    assert revocation.add(path, ["anna"], ["ff"]) == found
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", ["anna", "name", "name a b", "serial xyz", "serial " + "1" * 41, "name ../x", "role x"]
)
def test_a_line_that_could_mean_something_else_is_refused(line):
    with pytest.raises(UserError, match="line 2"):
        Revoked.parse(f"name anna # lost\n{line}", "list")


def test_a_certificate_that_has_ended_is_refused_on_the_connection_it_opened(folder, monkeypatch):
    followed, pem = Revocations(_list(folder), needed=False), _pem(folder, "anna")
    followed.check(pem, "anna")
    ends = Issued.read(folder / "anna").until.timestamp()
    monkeypatch.setattr(time, "time", lambda: ends + 1)
    with pytest.raises(Unauthenticated, match="has expired"):
        followed.check(pem, "anna")


def test_one_check_reads_neither_file_nor_certificate(folder, monkeypatch):
    """Once for all calls: what a call pays is one look at the file's stamp."""
    revocation.add(_list(folder), ["bert"], [])
    followed, pem = Revocations(_list(folder), needed=True), _pem(folder, "anna")
    followed.check(pem, "anna")
    looks = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path: looks.append(path) or real(path))
    monkeypatch.setattr(revocation, "_read", None)
    monkeypatch.setattr(revocation.x509, "load_pem_x509_certificate", None)
    for _ in range(10):
        followed.check(bytes(bytearray(pem)), "anna")
    assert len(looks) == 10


def test_calls_in_quick_succession_share_a_look(folder, monkeypatch):
    monkeypatch.setattr(revocation, "_LOOK_SECONDS", 1000.0)
    followed, pem = Revocations(_list(folder), needed=False), _pem(folder, "anna")
    followed.check(pem, "anna")
    revocation.add(_list(folder), ["anna"], [])
    followed.check(pem, "anna")
    monkeypatch.setattr(revocation.time, "monotonic", lambda: math.inf)
    with pytest.raises(RequestError, match="anna was revoked"):
        followed.check(pem, "anna")


def test_of_several_that_revoke_at_once_nobody_is_lost(tmp_path):
    path, names = tmp_path / "list", [f"client-{number}" for number in range(16)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: revocation.add(path, [name], []), names))
    assert Revoked.parse(path.read_text(), "list").names == set(names)


def test_the_command_adds_to_the_list_that_the_server_follows(folder, tmp_path, capsys):
    server = folder / "server"
    revoke(certs=server, name=("anna",), serial=("ff",), json=True)
    assert json.loads(capsys.readouterr().out) == {
        "list": str(_list(folder)), "names": ["anna"], "certificates": 1,
    }  # fmt: skip
    followed = ServeOptions(certs=server).transport(1).revocations()
    with pytest.raises(RequestError, match="anna was revoked"):
        followed.check(_pem(folder, "anna"), "anna")
    other = tmp_path / "other"
    revoke(revoked=other, name=("bert",), json=True)
    followed = ServeOptions(certs=server, revoked=other).transport(1).revocations()
    followed.check(_pem(folder, "anna"), "anna")
    with pytest.raises(RequestError, match="bert was revoked"):
        followed.check(_pem(folder, "bert"), "bert")


@pytest.mark.parametrize("given", [{}, {"both": True}, {"certs": "nowhere"}])
def test_the_command_asks_which_list(given, tmp_path):
    places = {name: tmp_path / str(place) for name, place in given.items() if name == "certs"}
    if "both" in given:
        places = {"certs": tmp_path, "revoked": tmp_path / "list"}
    with pytest.raises(UserError, match="--certs"):
        revoke(name=("anna",), **places)
    assert not (tmp_path / "list").exists()


def test_nobody_is_revoked_by_name_where_nobody_has_one(tmp_path):
    with pytest.raises(UserError, match="--revoked with --certs"):
        _ = ServeOptions(plaintext=True, revoked=tmp_path / "list").transport(1)
