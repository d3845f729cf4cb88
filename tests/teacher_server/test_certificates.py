"""The private authority: what its certificates carry, and that keys are never readable."""

import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ktan.errors import UserError
from teacher_server.certificates import (
    issue_client,
    issue_server,
    load_authority,
    make_authority,
)
from teacher_server.identity import Role


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path / "ca")


def _certificate(folder):
    return x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())


def test_keys_are_readable_by_their_owner_only(authority, tmp_path):
    issue_server(authority, tmp_path / "server", ["localhost"])
    issue_client(authority, tmp_path / "client", Role.CLIENT, "anna")
    for name in ("ca", "server", "client"):
        assert stat.S_IMODE((tmp_path / name / "key.pem").stat().st_mode) == 0o600


def test_a_client_certificate_carries_role_and_name_signed_by_the_authority(authority, tmp_path):
    issue_client(authority, tmp_path / "a", Role.AUDITOR, "anna")
    certificate = _certificate(tmp_path / "a")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["ktan://auditor/anna"]
    certificate.verify_directly_issued_by(authority.certificate)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_a_client_certificate_cannot_serve_and_cannot_sign(authority, tmp_path):
    issue_client(authority, tmp_path / "a", Role.CLIENT, "anna")
    extensions = _certificate(tmp_path / "a").extensions
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_server_certificate_names_hosts_and_addresses(authority, tmp_path):
    issue_server(authority, tmp_path / "s", ["teacher.example", "127.0.0.1"])
    names = (
        _certificate(tmp_path / "s")
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert names.get_values_for_type(x509.DNSName) == ["teacher.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_an_authority_read_back_signs_what_the_first_one_verifies(authority, tmp_path):
    issue_client(load_authority(tmp_path / "ca"), tmp_path / "a", Role.CLIENT, "anna")
    _certificate(tmp_path / "a").verify_directly_issued_by(authority.certificate)


def test_the_standard_library_accepts_the_chain(authority, tmp_path):
    issue_server(authority, tmp_path / "s", ["localhost"])
    context = ssl.create_default_context(cafile=str(tmp_path / "s" / "ca.pem"))
    context.load_cert_chain(tmp_path / "s" / "certificate.pem", tmp_path / "s" / "key.pem")


def test_nothing_is_overwritten(authority, tmp_path):
    with pytest.raises(UserError, match="already holds a certificate authority"):
        make_authority(tmp_path / "ca")
    issue_client(authority, tmp_path / "a", Role.CLIENT, "anna")
    with pytest.raises(UserError, match="already holds a certificate"):
        issue_client(authority, tmp_path / "a", Role.CLIENT, "anna")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "-a", "a" * 64, "ä"])
def test_names_that_could_be_taken_for_something_else_are_refused(authority, tmp_path, name):
    with pytest.raises(UserError, match="no client name"):
        issue_client(authority, tmp_path / "a", Role.CLIENT, name)
