"""The server's certificates, read again when they change: rotation without a restart.

gRPC asks before each handshake whether there are new ones. A set is taken whole or not at all: the
key must belong to the certificate, so that a folder that is half written, or broken, changes
nothing. Connections that exist go on.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from ktan.errors import UserError
from teacher_server.posture import require_secret, require_unchangeable

log = logging.getLogger(__name__)

WARNING_DAYS: Final = 30
"""A certificate that ends sooner is spoken of, once a day."""
_FILES: Final = ("ca.pem", "certificate.pem", "key.pem")
_DAY: Final = datetime.timedelta(days=1)
_HOW: Final = "`teacher-server certs --renew` issues a new one"

Stamp = tuple[tuple[int, int, int] | None, ...]
Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The host's clock, which certificates are judged by."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class CertificateSet:
    """What a server shows and demands, as PEM; `ends`: when its certificate does, in UTC."""

    authorities: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    ends: datetime.datetime

    @classmethod
    def read(cls, folder: Path, now: datetime.datetime) -> CertificateSet:
        """The set in `folder`: ca.pem (of one authority or several), certificate.pem, key.pem.

        Raises UserError for files that are missing, damaged, or that others may read or change, a
        key of another certificate, a certificate that is not valid now, and authorities that have
        ended.
        """
        try:
            authorities, certificate, key = ((folder / name).read_bytes() for name in _FILES)
            require_secret(folder / "key.pem")
            for path in (folder, folder / "ca.pem", folder / "certificate.pem"):
                require_unchangeable(path)
        except OSError as error:
            raise UserError(
                f"{folder} needs ca.pem, certificate.pem and key.pem ({error.strerror}: "
                f"{error.filename}); `teacher-server certs` makes them"
            ) from error
        own = _certificates(folder / "certificate.pem", certificate)[0]
        trusted = _certificates(folder / "ca.pem", authorities)
        if not _belong(key, own, folder):
            raise UserError(
                f"{folder / 'key.pem'} is not the key of {folder / 'certificate.pem'}; "
                "`teacher-server certs` makes a pair"
            )
        ends = own.not_valid_after_utc
        if ends <= now:
            raise UserError(
                f"the certificate in {folder} expired on {ends:%Y-%m-%d}, no client would take "
                f"it; {_HOW}"
            )
        begins = own.not_valid_before_utc
        if begins > now:
            raise UserError(
                f"the certificate in {folder} is valid from {begins:%Y-%m-%d %H:%M} UTC on; set "
                "this host's clock, or wait"
            )
        if all(authority.not_valid_after_utc <= now for authority in trusted):
            raise UserError(
                f"every authority in {folder / 'ca.pem'} has expired, no client could be "
                "recognised; `teacher-server certs` makes another"
            )
        return cls(authorities, certificate, key, ends)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The set, as gRPC takes it."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.authorities
        )


class ServerCertificates:
    """The certificates in `folder`, as they are now. Raises UserError (`CertificateSet.read`).

    Thread-safe: asked by gRPC's threads at each handshake, and by who looks from time to time.
    """

    def __init__(self, folder: Path, clock: Clock = utc_now):
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(folder)
        self._fault: str | None = None
        self._told_fault: str | None = None
        self._spoken: datetime.datetime | None = None
        self._current = CertificateSet.read(folder, clock())
        self._told = self._current

    @property
    def current(self) -> CertificateSet:
        """What new connections get."""
        return self._current

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; they follow the folder, and demand a certificate of every client."""
        return grpc.dynamic_ssl_server_credentials(
            self._told.configuration(), self._fetch, require_client_authentication=True
        )

    def look(self) -> None:
        """Takes what is new in the folder, or says why it is not taken; says, once a day, that the
        certificate ends soon.

        A handshake says nothing of a fault: it may see the instant between two renames.
        """
        with self._lock:
            self._refresh()
            if self._fault != self._told_fault:
                self._told_fault = self._fault
                log.error(
                    "the certificates in %s are not taken, the earlier ones stay in use: %s",
                    self._folder,
                    self._fault,
                )
            self._speak()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            self._refresh()
            if self._current is self._told:
                return None
            self._told = self._current
            return self._told.configuration()

    def _refresh(self) -> None:
        # Before the files are read: what changes meanwhile is seen the next time.
        stamp = _stamp(self._folder)
        if stamp == self._stamp and self._fault is None:
            return
        self._stamp = stamp
        try:
            found = CertificateSet.read(self._folder, self._clock())
        except UserError as error:
            self._fault = str(error)
            return
        self._fault = self._told_fault = None
        if found != self._current:
            self._current = found
            self._spoken = None
            log.info(
                "new connections get the new certificates in %s, valid until %s",
                self._folder,
                f"{found.ends:%Y-%m-%d}",
            )

    def _speak(self) -> None:
        now = self._clock()
        if self._spoken is not None and now - self._spoken < _DAY:
            return
        left = self._current.ends - now
        if left > WARNING_DAYS * _DAY:
            return
        self._spoken = now
        if left.total_seconds() <= 0:
            log.error("the certificate in %s has expired; %s", self._folder, _HOW)
        else:
            when = f"{self._current.ends:%Y-%m-%d}"
            log.warning("the certificate in %s ends on %s; %s", self._folder, when, _HOW)


def _belong(key: bytes, certificate: x509.Certificate, folder: Path) -> bool:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        private = load_pem_private_key(key, password=None)
        of_key = private.public_key().public_bytes(*form)
        of_certificate = certificate.public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # In these words alone: another's could quote the key.
        raise UserError(
            f"{folder / 'key.pem'} holds no private key, or one under a password"
        ) from None
    return of_key == of_certificate


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion) as error:
        raise UserError(f"{path} holds no certificate: {error}") from error


def _stamp(folder: Path) -> Stamp:
    """Differs once a file was replaced or changed, its mode included."""
    stamps: list[tuple[int, int, int] | None] = []
    for name in _FILES:
        try:
            found = (folder / name).stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_ino, found.st_ctime_ns, found.st_size))
    return tuple(stamps)
