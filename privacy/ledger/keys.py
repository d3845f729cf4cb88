"""The key files of a ledger's folder.

`signing-key.pem` signs receipts and heads, `public-key.pem` is for everybody, `secret.key` salts
the digests of samples and authenticates a teacher's files. The two secret ones never leave the
host and are readable by their owner only.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from privacy.errors import LedgerMismatch
from privacy.ledger.durable import create_durably

SIGNING_KEY: Final = "signing-key.pem"
PUBLIC_KEY: Final = "public-key.pem"
SECRET_KEY: Final = "secret.key"


@dataclass(frozen=True)
class LedgerKeys:
    """The signing key and the secret of one ledger."""

    signing: Ed25519PrivateKey
    secret: bytes

    def __repr__(self) -> str:
        return "LedgerKeys(…)"

    @classmethod
    def generate(cls) -> "LedgerKeys":
        """Fresh keys from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate(), secrets.token_bytes(32))

    @classmethod
    def read(cls, folder: Path) -> "LedgerKeys":
        """Raises LedgerMismatch when a key file is missing or holds something else."""
        try:
            signing = load_pem_private_key((folder / SIGNING_KEY).read_bytes(), password=None)
            secret = (folder / SECRET_KEY).read_bytes()
        except FileNotFoundError as error:
            raise LedgerMismatch(
                f"{error.filename} is missing: restore the ledger's own key files, new ones "
                "would neither sign its receipts nor find its stored answers"
            ) from None
        except (ValueError, TypeError) as error:
            raise LedgerMismatch(f"{folder / SIGNING_KEY} holds no private key: {error}") from None
        if not isinstance(signing, Ed25519PrivateKey) or len(secret) != 32:
            raise LedgerMismatch(f"the key files in {folder} are not those of a ledger")
        return cls(signing, secret)

    def write(self, folder: Path) -> None:
        """Writes the three files, which must not exist yet."""
        private = self.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = self.signing.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        create_durably(folder / SIGNING_KEY, private, mode=0o600)
        create_durably(folder / SECRET_KEY, self.secret, mode=0o600)
        create_durably(folder / PUBLIC_KEY, public)

    @property
    def public(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        return self.signing.public_key().public_bytes_raw()

    def secret_check(self) -> bytes:
        """Recognises the secret without revealing it."""
        return self._mac(b"check")

    def sample_key(self, sample: bytes, teacher_version: str, settings: bytes) -> bytes:
        """Key of a stored answer, 32 bytes; nobody without the secret can test a sample for it."""
        parts = (sample, teacher_version.encode(), settings)
        # Digests have one length: no two different triples give the same bytes.
        return self._mac(b"sample", *(hashlib.sha256(part).digest() for part in parts))

    def file_mac(self, chunks: Iterable[bytes]) -> str:
        """Keyed digest of the concatenated chunks, 64 hexadecimal digits."""
        return self._mac(b"files", *chunks).hex()

    def _mac(self, purpose: bytes, *chunks: bytes) -> bytes:
        purpose_key = hmac.digest(self.secret, b"ktan.ledger." + purpose, "sha256")
        mac = hmac.new(purpose_key, digestmod="sha256")
        for chunk in chunks:
            mac.update(chunk)
        return mac.digest()
