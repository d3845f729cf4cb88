"""A private certificate authority, and certificates that carry role and name.

P-256 keys, one extended key usage each (server or client), and for clients a URI subject
alternative name `ktan://<role>/<name>` that the server reads as identity (`identity.py`).
The authority's key signs; the server never needs it: keep it elsewhere.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ktan.errors import UserError
from teacher_server.identity import Role, identity_uri

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Authority:
    """A certificate authority in memory: its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(folder: Path) -> Authority:
    """A new authority written to `folder` (`certificate.pem`, `key.pem`).

    Raises UserError when the folder already holds one: a second authority would silently
    disown every certificate of the first.
    """
    if (folder / "key.pem").exists():
        raise UserError(f"{folder} already holds a certificate authority; use it or name another")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ktan private authority")])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificate_signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(certificate, key)
    _write(folder, authority.certificate, key, authority=None)
    return authority


def load_authority(folder: Path) -> Authority:
    """The authority that `make_authority` wrote. Raises UserError when there is none."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise UserError(f"no certificate authority in {folder}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"the key in {folder} is not an elliptic-curve key")
    return Authority(certificate, key)


def issue_server(authority: Authority, folder: Path, host_names: list[str]) -> None:
    """A server certificate for these host names and addresses, written to `folder`."""
    alternatives: list[x509.GeneralName] = []
    for host in host_names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            alternatives.append(x509.DNSName(host))
    _issue(authority, folder, host_names[0], alternatives, ExtendedKeyUsageOID.SERVER_AUTH)


def issue_client(authority: Authority, folder: Path, role: Role, name: str) -> None:
    """A client certificate that carries `role` and `name`, written to `folder`.

    Raises UserError for a name that is not 1 to 63 letters, digits, dots, dashes, underscores.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name}' is no client name: use up to 63 letters, digits, dots, dashes, underscores"
        )
    uri = x509.UniformResourceIdentifier(identity_uri(role, name))
    _issue(authority, folder, name, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)


def _issue(
    authority: Authority,
    folder: Path,
    common_name: str,
    alternatives: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
) -> None:
    if (folder / "key.pem").exists():
        raise UserError(f"{folder} already holds a certificate; remove it or name another")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        authority.key.public_key()
    )
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificate_signing=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(authority_key_id, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    _write(folder, certificate, key, authority.certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Hosts whose clocks differ by a few minutes must accept a fresh certificate.
        .not_valid_before(now - datetime.timedelta(minutes=10))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, certificate_signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_signing,
        key_cert_sign=certificate_signing,
        crl_sign=certificate_signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(
    folder: Path,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # O_EXCL with the mode: the key never exists readable by others, not for an instant.
    handle = os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(private)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    if authority is not None:
        (folder / "ca.pem").write_bytes(authority.public_bytes(pem))
