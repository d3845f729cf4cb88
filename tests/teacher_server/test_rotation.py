"""Certificates and authorities change under a running service; TLS is never weaker than it says."""

import datetime
import logging
import shutil
import socket
import ssl
import threading

import grpc
import pytest
from cryptography import x509

from ktan.errors import UserError
from protos import teacher_pb2
from protos.teacher_pb2_grpc import TeacherServiceStub
from teacher_server.certificates import (
    forget_authority,
    issue_client,
    load_authority,
    renew,
    replace_authority,
    tell_trusted,
)
from teacher_server.credentials import ServerCertificates, utc_now
from teacher_server.identity import Role
from tests.teacher_server.running_service import FACE, running

PATIENCE = 120.0
STRONG = "ECDHE-ECDSA-AES128-GCM-SHA256"
WEAK = "ECDHE-ECDSA-AES128-SHA"


@pytest.fixture
def folder(tmp_path, certificates):
    """Certificates of this test's own."""
    shutil.copytree(certificates, tmp_path / "certificates")
    return tmp_path / "certificates"


@pytest.fixture
def rotating(tmp_path, folder):
    """A service by `folder`."""
    yield from running(tmp_path, folder, FACE)


def _context(folder, least, most, ciphers=None, certificate="anna"):
    context = ssl.create_default_context(cafile=str(folder / "server" / "ca.pem"))
    # Of this side's own rules none may be what refuses.
    context.set_ciphers(f"{ciphers or 'ALL'}:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        own = folder / certificate
        context.load_cert_chain(own / "certificate.pem", own / "key.pem")
    return context


def _connect(address, context):
    """(TLS version, the server's certificate), once the server has taken ours."""
    host, port = address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        # Under TLS 1.3 a client certificate is judged after the handshake; then comes HTTP/2.
        if not secured.recv(1):
            raise ssl.SSLError("closed")
        shown = secured.getpeercert(binary_form=True)
        return secured.version(), x509.load_der_x509_certificate(shown)


def _shown(service):
    """Serial number of the certificate that a new connection gets."""
    context = _context(service.certificates, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
    return _connect(service.address, context)[1].serial_number


def _serial(folder):
    pem = (folder / "server" / "certificate.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


def _describe(stub):
    return stub.Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE).teacher_version


def _taken_where_all_is_allowed(folder, offered):
    """The TLS version that a server without rules agrees on: the offer itself is sound."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version = ssl.TLSVersion.TLSv1
    own = folder / "server"
    server.load_cert_chain(own / "certificate.pem", own / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet():
            with (
                listening.accept()[0] as accepted,
                server.wrap_socket(accepted, server_side=True) as secured,
            ):
                secured.sendall(b"x")
                # Until the other side has closed.
                secured.recv(1)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        spoken, _ = _connect(f"127.0.0.1:{listening.getsockname()[1]}", offered)
        thread.join(PATIENCE)
    return spoken


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today_is_spoken_with_whoever_has_a_certificate(service, version):
    spoken, _ = _connect(service.address, _context(service.certificates, version, version))
    assert spoken == version.name.replace("_", ".")
    without = _context(service.certificates, version, version, certificate=None)
    with pytest.raises(ssl.SSLError):
        _connect(service.address, without)


# Python warns of the versions that this test offers.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_tls_before_1_2_is_refused(service, version):
    offered = _context(service.certificates, version, version)
    with pytest.raises(ssl.SSLError):
        _connect(service.address, offered)
    spoken = _taken_where_all_is_allowed(service.certificates, offered)
    assert spoken in ("TLSv1", "TLSv1.1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ciphers_that_authenticate_by_a_weaker_mode_are_refused(service):
    tls_1_2 = ssl.TLSVersion.TLSv1_2
    _connect(service.address, _context(service.certificates, tls_1_2, tls_1_2, STRONG))
    offered = _context(service.certificates, tls_1_2, tls_1_2, WEAK)
    with pytest.raises(ssl.SSLError):
        _connect(service.address, offered)
    assert _taken_where_all_is_allowed(service.certificates, offered) == "TLSv1.2"


def test_a_renewed_certificate_is_shown_at_once_and_connections_go_on(rotating, folder):
    states = []
    with rotating.channel("anna") as channel:
        stub = TeacherServiceStub(channel)
        _describe(stub)
        channel.subscribe(states.append)
        before = _serial(folder)
        assert _shown(rotating) == before
        renew(load_authority(folder / "ca"), folder / "server")
        assert _serial(folder) != before
        assert _shown(rotating) == _serial(folder)
        _describe(stub)
        # Nothing but what it was when asked first: the old connection is the one in use.
        assert set(states) <= {grpc.ChannelConnectivity.READY}


def test_a_half_written_folder_changes_nothing(rotating, folder):
    before, aside = _serial(folder), folder / "aside"
    shutil.copytree(folder / "server", aside)
    renew(load_authority(folder / "ca"), aside)
    shutil.copy(aside / "key.pem", folder / "server" / "key.pem")
    assert _shown(rotating) == before
    (folder / "server" / "certificate.pem").write_bytes(b"-----BEGIN")
    assert _shown(rotating) == before
    (folder / "server" / "certificate.pem").unlink()
    assert _shown(rotating) == before
    shutil.copy(aside / "certificate.pem", folder / "server" / "certificate.pem")
    assert _shown(rotating) == _serial(folder) != before


def test_what_is_not_taken_is_told_of_once(folder, caplog):
    caplog.set_level(logging.INFO, "teacher_server.credentials")
    served, server = ServerCertificates(folder / "server"), folder / "server"
    kept = {path.name: path.read_bytes() for path in server.iterdir()}
    other = (folder / "anna" / "key.pem").read_bytes()
    for name, content, words in (
        ("key.pem", other, "is not the key of"),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----", "holds no private key"),
        ("certificate.pem", b"nothing", "holds no certificate"),
        ("ca.pem", b"", "holds no certificate"),
        ("ca.pem", None, "needs ca.pem"),
    ):
        caplog.clear()
        before = served.current
        (server / name).unlink() if content is None else (server / name).write_bytes(content)
        for _ in range(3):
            served.look()
        (record,) = caplog.records
        assert words in record.message
        assert "the earlier ones stay in use" in record.message
        assert served.current is before
        (server / name).write_bytes(kept[name])
        served.look()
        served.look()
        assert len(caplog.records) == 1
    renew(load_authority(folder / "ca"), server)
    served.look()
    assert "new connections get the new certificates" in caplog.records[-1].message
    assert "BEGIN" not in caplog.text


def test_an_authority_is_changed_without_an_hour_in_which_anybody_is_shut_out(rotating, folder):
    old = rotating.channel("anna")
    _describe(TeacherServiceStub(old))
    authority = replace_authority(folder / "ca")
    for name in ("server", "anna", "bert"):
        tell_trusted(authority, folder / name)
    # Both sides trust both: who is still as before, who is new, and a server that is.
    _describe(rotating.stub("anna"))
    issue_client(authority, folder / "clara", Role.CLIENT, "clara")
    _describe(rotating.stub("clara"))
    renew(authority, folder / "server")
    assert _shown(rotating) == _serial(folder)
    _describe(rotating.stub("anna"))
    renew(authority, folder / "anna")
    authority = forget_authority(folder / "ca")
    for name in ("server", "anna", "clara"):
        tell_trusted(authority, folder / name)
    _describe(rotating.stub("anna"))
    _describe(rotating.stub("clara"))
    with pytest.raises(grpc.RpcError) as caught:
        _describe(rotating.stub("bert"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # A connection that stands is not broken; who must go at once is revoked.
    _describe(TeacherServiceStub(old))
    old.close()


def test_an_expired_certificate_is_not_served_and_one_that_ends_is_spoken_of_daily(folder, caplog):
    now = utc_now()

    def clock():
        return now

    served = ServerCertificates(folder / "server", clock)
    served.look()
    assert not caplog.records
    for days, words in ((340, "ends on"), (340.5, None), (341.1, "ends on"), (366.2, "expired")):
        caplog.clear()
        now = utc_now() + datetime.timedelta(days=days)
        served.look()
        served.look()
        assert [words in record.message for record in caplog.records] == ([True] if words else [])
    with pytest.raises(UserError, match=r"expired on 20.*--renew"):
        ServerCertificates(folder / "server", clock)
    now = utc_now() - datetime.timedelta(days=1)
    with pytest.raises(UserError, match="set this host's clock"):
        ServerCertificates(folder / "server", clock)


def test_a_key_that_others_can_read_is_neither_served_nor_taken(folder, caplog):
    served = ServerCertificates(folder / "server")
    before = served.current
    renew(load_authority(folder / "ca"), folder / "server")
    (folder / "server" / "key.pem").chmod(0o640)
    served.look()
    assert served.current is before
    assert "chmod 600" in caplog.text
    with pytest.raises(UserError, match="chmod 600"):
        ServerCertificates(folder / "server")
    (folder / "server" / "key.pem").chmod(0o600)
    served.look()
    assert served.current is not before
