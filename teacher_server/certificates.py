"""A private certificate authority, and certificates that carry role and name.

P-256 keys, one extended key usage each (server or client), and for clients a URI subject
alternative name `ktan://<role>/<name>` that the server reads as identity (`identity.py`).
The authority's key signs; the server never needs it: keep it elsewhere.

    ca/certificate.pem, ca/key.pem      the authority
    ca/before.pem                       one that is still trusted while another takes its place
    NAME/certificate.pem, NAME/key.pem  what was issued
    NAME/ca.pem                         whom its holder trusts: the authority, and the one before
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ktan.durable import sync_folder
from ktan.errors import UserError
from teacher_server.identity import Role, identity_uri, is_name

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
_BEFORE = "before.pem"


@dataclass(frozen=True)
class Authority:
    """A certificate authority in memory: its certificate and its private key.

    before: certificates of an earlier one, trusted until it is forgotten.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    before: tuple[x509.Certificate, ...] = ()

    @property
    def trusted(self) -> bytes:
        """What `ca.pem` holds."""
        return b"".join(map(_pem, (self.certificate, *self.before)))


@dataclass(frozen=True)
class Issued:
    """What a folder's certificate says of itself; `until` in UTC, `serial` in hexadecimal."""

    until: datetime.datetime
    serial: str

    @classmethod
    def read(cls, folder: Path) -> Issued:
        """Of `folder`/certificate.pem. Raises UserError."""
        certificate = _read_certificate(folder)
        return cls(certificate.not_valid_after_utc, f"{certificate.serial_number:x}")


def make_authority(folder: Path) -> Authority:
    """A new authority written to `folder` (`certificate.pem`, `key.pem`).

    Raises UserError when the folder already holds one: a second authority would silently
    disown every certificate of the first.
    """
    if (folder / "key.pem").exists():
        raise UserError(f"{folder} already holds a certificate authority; use it or name another")
    authority = _new_authority(before=())
    _write(folder, authority.certificate, authority.key, trusted=None)
    return authority


def replace_authority(folder: Path) -> Authority:
    """A new authority in place of the one in `folder`, which stays trusted until it is forgotten.

    The old key is gone with it. Raises UserError where none is, or where one is being replaced.
    """
    old = load_authority(folder)
    if old.before:
        raise UserError(
            f"{folder} is changing its authority already; let everybody have the new ca.pem and "
            "a renewed certificate, then --forget-authority"
        )
    authority = _new_authority(before=(old.certificate,))
    _replace(
        folder,
        {
            _BEFORE: _pem(old.certificate),
            "key.pem": _private(authority.key),
            "certificate.pem": _pem(authority.certificate),
        },
    )
    return authority


def forget_authority(folder: Path) -> Authority:
    """The authority in `folder`, without the one before it. Raises UserError where none was."""
    authority = load_authority(folder)
    if not authority.before:
        raise UserError(f"{folder} trusts one authority only; there is none to forget")
    (folder / _BEFORE).unlink()
    return replace(authority, before=())


def tell_trusted(authority: Authority, folder: Path) -> None:
    """Has the holder of `folder` trust `authority`, and the one before it where there is one."""
    _replace(folder, {"ca.pem": authority.trusted})


def _new_authority(before: tuple[x509.Certificate, ...]) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ktan private authority")])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificate_signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key, before)


def load_authority(folder: Path) -> Authority:
    """The authority that `make_authority` wrote. Raises UserError when there is none."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
        before = (folder / _BEFORE).read_bytes() if (folder / _BEFORE).exists() else None
        earlier = x509.load_pem_x509_certificates(before) if before is not None else []
    except (OSError, ValueError) as error:
        raise UserError(f"no certificate authority in {folder}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"the key in {folder} is not an elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise UserError(f"key and certificate in {folder} are of two authorities; restore them")
    return Authority(certificate, key, tuple(earlier))


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
    if not is_name(name):
        raise UserError(
            f"'{name}' is no client name: use up to 63 letters, digits, dots, dashes, underscores"
        )
    uri = x509.UniformResourceIdentifier(identity_uri(role, name))
    _issue(authority, folder, name, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)


def renew(authority: Authority, folder: Path) -> None:
    """A new certificate and key in place of those in `folder`, under the same names and role.

    Files are replaced whole, at once: who serves by them goes on, and takes the new ones. Raises
    UserError where `folder` holds no certificate.
    """
    old = _read_certificate(folder)
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (usage,) = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    certificate, key = _signed(authority, old.subject, list(names), usage)
    _replace(
        folder,
        {
            "ca.pem": authority.trusted,
            "key.pem": _private(key),
            "certificate.pem": _pem(certificate),
        },
    )


def _issue(
    authority: Authority,
    folder: Path,
    common_name: str,
    alternatives: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
) -> None:
    if (folder / "key.pem").exists():
        raise UserError(
            f"{folder} already holds a certificate; remove it, name another, or issue it anew by "
            f"--renew {folder.name}"
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate, key = _signed(authority, subject, alternatives, usage)
    _write(folder, certificate, key, authority.trusted)


def _signed(
    authority: Authority,
    subject: x509.Name,
    alternatives: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
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
    return certificate, key


def _read_certificate(folder: Path) -> x509.Certificate:
    path = folder / "certificate.pem"
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no certificate") from None
    except (ValueError, x509.InvalidVersion) as error:
        raise UserError(f"{path} holds no certificate: {error}") from error


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
    trusted: bytes | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # O_EXCL with the mode: the key never exists readable by others, not for an instant.
    handle = os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(_private(key))
    (folder / "certificate.pem").write_bytes(_pem(certificate))
    if trusted is not None:
        (folder / "ca.pem").write_bytes(trusted)


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replaces files whole. All are on disk before the first takes its name, so that they change
    within an instant; a reader of that instant sees a key of another certificate."""
    written = {}
    try:
        for name, content in contents.items():
            temporary = written[name] = folder / f".{name}.{os.getpid()}.tmp"
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if name != "key.pem":
                temporary.chmod(0o644)
        for name, temporary in written.items():
            temporary.replace(folder / name)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
    sync_folder(folder)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
