"""Certificates for a scenario: a server's that ends within seconds, and its renewal."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from teacher_server.certificates import (
    Authority,
    issue_client,
    issue_server,
    load_authority,
    make_authority,
    renew,
)
from teacher_server.identity import Role

CLIENT = "anna"


def make_certificates(folder: Path) -> None:
    """An authority, a server's certificate for localhost, and a client's."""
    authority = make_authority(folder / "ca")
    issue_server(authority, folder / "server", ["localhost"])
    issue_client(authority, folder / CLIENT, Role.CLIENT, CLIENT)


def client_files(folder: Path) -> dict[str, bytes]:
    """The client's files, name → content."""
    return {path.name: path.read_bytes() for path in (folder / CLIENT).iterdir()}


def end_server_certificate(folder: Path, seconds: float) -> datetime.datetime:
    """Has the server's certificate end so soon; when that is."""
    authority: Authority = load_authority(folder / "ca")
    path = folder / "server" / "certificate.pem"
    old = x509.load_pem_x509_certificate(path.read_bytes())
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    short = builder.sign(authority.key, hashes.SHA256())
    path.write_bytes(short.public_bytes(serialization.Encoding.PEM))
    return end


def renew_server_certificate(folder: Path) -> None:
    """What `teacher-server certs --renew server` does."""
    renew(load_authority(folder / "ca"), folder / "server")
