"""The private authority: what its certificates carry, and that keys are never readable."""

import json
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ktan.errors import UserError
from teacher_server.certificates import (
    Issued,
    forget_authority,
    issue_client,
    issue_server,
    load_authority,
    make_authority,
    renew,
    replace_authority,
)
from teacher_server.commands.certs import certs
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


def test_what_is_renewed_keeps_names_role_and_usage_and_shares_no_key(authority, tmp_path):
    issue_server(authority, tmp_path / "server", ["teacher.example", "127.0.0.1"])
    issue_client(authority, tmp_path / "anna", Role.CLIENT, "anna")
    for folder in (tmp_path / "server", tmp_path / "anna"):
        before, key = _certificate(folder), (folder / "key.pem").read_bytes()
        renew(authority, folder)
        after = _certificate(folder)
        kinds = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.BasicConstraints)
        for kind in kinds:
            old, new = (c.extensions.get_extension_for_class(kind) for c in (before, after))
            assert new == old
        assert after.subject == before.subject
        assert after.serial_number != before.serial_number
        assert (folder / "key.pem").read_bytes() != key
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        assert sorted(path.name for path in folder.iterdir()) == [
            "ca.pem", "certificate.pem", "key.pem",
        ]  # fmt: skip
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")


def test_an_authority_that_is_replaced_signs_no_more_and_is_trusted_until_forgotten(tmp_path):
    old = make_authority(tmp_path / "ca")
    new = replace_authority(tmp_path / "ca")
    assert new.trusted == load_authority(tmp_path / "ca").trusted
    issue_client(new, tmp_path / "anna", Role.CLIENT, "anna")
    _certificate(tmp_path / "anna").verify_directly_issued_by(new.certificate)
    trusted = x509.load_pem_x509_certificates((tmp_path / "anna" / "ca.pem").read_bytes())
    assert trusted == [new.certificate, old.certificate]
    with pytest.raises(UserError, match="changing its authority already"):
        replace_authority(tmp_path / "ca")
    alone = forget_authority(tmp_path / "ca").trusted
    assert x509.load_pem_x509_certificates(alone) == [new.certificate]
    with pytest.raises(UserError, match="none to forget"):
        forget_authority(tmp_path / "ca")


def test_the_command_renews_what_is_named_and_says_how_long_all_of_it_lasts(tmp_path, capsys):
    certs(out=tmp_path, server_name=("localhost",), client=("anna",), json=True)
    first = json.loads(capsys.readouterr().out)["issued"]
    assert set(first) == {"anna", "ca", "server"}
    assert first["anna"]["serial"] == Issued.read(tmp_path / "anna").serial
    until = _certificate(tmp_path / "anna").not_valid_after_utc
    assert first["anna"]["valid_until"] == f"{until:%Y-%m-%d}"
    certs(out=tmp_path, renew=("server",), json=True)
    then = json.loads(capsys.readouterr().out)["issued"]
    assert then["anna"] == first["anna"]
    assert then["server"]["serial"] != first["server"]["serial"]
    certs(out=tmp_path, new_authority=True, json=True)
    certs(out=tmp_path, renew=("server", "anna"), json=True)
    certs(out=tmp_path, forget_authority=True, json=True)
    authority = load_authority(tmp_path / "ca")
    for name in ("anna", "server"):
        assert (tmp_path / name / "ca.pem").read_bytes() == authority.trusted
        _certificate(tmp_path / name).verify_directly_issued_by(authority.certificate)
    for name in ("ca", "otto", "../elsewhere"):
        with pytest.raises(UserError, match="holds no such certificate"):
            certs(out=tmp_path, renew=(name,), json=True)
