"""Every way of failing to reach a teacher says what to do, over real sockets and real TLS."""

import math
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from ktan.errors import UserError
from protos import teacher_pb2, teacher_pb2_grpc
from student_client.connection import Connection, open_channel
from student_client.errors import TeacherError, TeacherUnavailable
from student_client.remote import RemoteTeacher
from teacher_server.certificates import issue_client, issue_server, make_authority
from teacher_server.identity import Role


class _Mute(teacher_pb2_grpc.TeacherServiceServicer):
    """Answers GetBudget with ε spent = 0.5 and implements nothing else."""

    def GetBudget(self, request, context):
        return teacher_pb2.GetBudgetResponse(
            budget=teacher_pb2.Budget(epsilon_spent=0.5),
            promise=teacher_pb2.Promise(
                epsilon=4, delta=1e-5, adjacency="replace-one", unit="record", mode="ensemble"
            ),
        )


class Hosts(NamedTuple):
    folder: Path
    tls: str
    """Serves mTLS for localhost and 127.0.0.1."""
    elsewhere: str
    """Serves mTLS with a certificate for example.org."""
    plain: str


def _serve(credentials, servicer=None):
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer or _Mute(), server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    authority, stranger = make_authority(folder / "ca"), make_authority(folder / "other-ca")
    issue_server(authority, folder / "server", ["localhost", "127.0.0.1"])
    issue_server(authority, folder / "elsewhere", ["example.org"])
    issue_client(authority, folder / "student", Role.CLIENT, "student")
    issue_client(stranger, folder / "stranger", Role.CLIENT, "student")
    # A stranger that trusts this service, yet is not trusted by it.
    issue_client(stranger, folder / "uninvited", Role.CLIENT, "student")
    (folder / "uninvited" / "ca.pem").write_bytes((folder / "student" / "ca.pem").read_bytes())

    def credentials(name):
        pair = [(folder / name / part).read_bytes() for part in ("key.pem", "certificate.pem")]
        root = (folder / "server" / "ca.pem").read_bytes()
        return grpc.ssl_server_credentials([tuple(pair)], root, require_client_auth=True)

    servers = [_serve(credentials("server")), _serve(credentials("elsewhere")), _serve(None)]
    ports = [port for _, port in servers]
    yield Hosts(folder, *(f"localhost:{port}" for port in ports))
    for server, _ in servers:
        server.stop(None)


def _failure(address, connection):
    with (
        RemoteTeacher(address, connection) as teacher,
        pytest.raises((TeacherError, TeacherUnavailable)) as caught,
    ):
        teacher.budget()
    return caught.value


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_issued_folder_opens_the_door(hosts, host):
    address = hosts.tls.replace("localhost", host)
    with RemoteTeacher(address, Connection(certs=hosts.folder / "student")) as teacher:
        budget, promise = teacher.budget()
    assert budget.epsilon_spent == 0.5
    assert promise.sentence().startswith("ε = 4 at δ = 1e-5, replace-one")


def test_a_certificate_of_another_authority_is_no_passing_fault(hosts):
    error = _failure(hosts.tls, Connection(certs=hosts.folder / "uninvited"))
    assert isinstance(error, TeacherError)
    assert "it does not accept the client certificate" in str(error)
    assert "from another authority" in str(error)


def test_a_service_of_another_authority_is_named_so(hosts):
    error = _failure(hosts.tls, Connection(certs=hosts.folder / "stranger"))
    assert isinstance(error, TeacherError)
    assert "unable to get local issuer certificate" in str(error)


def test_a_certificate_for_another_host_is_named_so(hosts):
    error = _failure(hosts.elsewhere, Connection(certs=hosts.folder / "student"))
    assert isinstance(error, TeacherError)
    assert "certificate is not for localhost" in str(error)


def test_tls_towards_a_plaintext_service(hosts):
    error = _failure(hosts.plain, Connection(certs=hosts.folder / "student"))
    assert isinstance(error, TeacherError)
    assert "does not speak TLS" in str(error)


def test_plaintext_towards_a_tls_service(hosts):
    error = _failure(hosts.tls, Connection(plaintext=True))
    assert isinstance(error, TeacherError)
    assert "expects TLS; use --certs" in str(error)


def test_nobody_there_may_pass(hosts):
    error = _failure("localhost:1", Connection(certs=hosts.folder / "student"))
    assert isinstance(error, TeacherUnavailable)
    assert str(error) == "no teacher service answers at localhost:1 (Connection refused)"


def test_a_server_of_something_else_is_named_so(hosts):
    with (
        RemoteTeacher(hosts.plain, Connection(plaintext=True)) as teacher,
        pytest.raises(TeacherError, match="not a teacher service"),
    ):
        teacher.describe()


@pytest.mark.parametrize("host", ["10.0.0.1", "teacher.example.org", "0.0.0.0"])
def test_plaintext_never_leaves_this_machine(host):
    with pytest.raises(UserError, match=rf"{host} is not: .*use --certs DIR"):
        open_channel(f"{host}:50051", Connection(plaintext=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_plaintext_on_loopback_by_name(host):
    open_channel(f"{host}:50051", Connection(plaintext=True)).close()


def test_neither_or_both_ways_of_connecting(hosts):
    with pytest.raises(UserError, match=r"asks for a client certificate.*--certs DIR"):
        open_channel("localhost:50051", Connection())
    with pytest.raises(UserError, match="--certs or --plaintext, not both"):
        open_channel("localhost:50051", Connection(certs=hosts.folder, plaintext=True))


@pytest.mark.parametrize("missing", ["ca.pem", "certificate.pem", "key.pem"])
def test_an_incomplete_folder_names_the_file(hosts, tmp_path, missing):
    for name in {"ca.pem", "certificate.pem", "key.pem"} - {missing}:
        (tmp_path / name).write_bytes((hosts.folder / "student" / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    with pytest.raises(UserError, match=f"holds no {missing}"):
        open_channel("localhost:50051", Connection(certs=tmp_path))


def test_a_key_that_others_may_read_is_refused(hosts, tmp_path):
    for name in ("ca.pem", "certificate.pem", "key.pem"):
        (tmp_path / name).write_bytes((hosts.folder / "student" / name).read_bytes())
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        open_channel("localhost:50051", Connection(certs=tmp_path))


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":50051", "localhost:0", "localhost:70000", "a b:1", ""]
)
def test_a_malformed_address_shows_the_form(address):
    with pytest.raises(UserError, match="write HOST:PORT"):
        open_channel(address, Connection(plaintext=True))


@pytest.mark.parametrize("deadline", [0.0, -1.0, 600.1, math.inf, math.nan])
def test_a_deadline_that_the_service_would_refuse_is_refused_here(deadline):
    with pytest.raises(UserError, match=r"--deadline is .*above 0 seconds, and 600 at most"):
        Connection(deadline=deadline)
