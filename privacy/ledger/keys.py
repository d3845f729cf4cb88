"""The key files of a ledger's folder.

`signing-key.pem` signs receipts and heads, `public-key.pem` is for everybody, `secret.key` salts
the digests of samples and authenticates a teacher's files. The two secret ones never leave the
host and are readable by their owner only.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
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
_RESTORE: Final = (
    "restore the ledger's own key files, new ones would neither sign its receipts nor find its "
    "stored answers"
)


@dataclass(frozen=True)
class LedgerKeys:
    """The signing key and the secret of one ledger."""

    signing: Ed25519PrivateKey
    secret: bytes
    _begun: dict[bytes, hmac.HMAC] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By purpose, a digest that has taken in its key: that costs more than a short message."""

    def __repr__(self) -> str:
        return "LedgerKeys(…)"

    @classmethod
    def generate(cls) -> "LedgerKeys":
        """Fresh keys from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate(), secrets.token_bytes(32))

    @classmethod
    def read(cls, folder: Path, signing_key: str = SIGNING_KEY) -> "LedgerKeys":
        """Raises LedgerMismatch when a key file is missing or holds something else."""
        signing = cls.read_signing(folder / signing_key)
        try:
            secret = (folder / SECRET_KEY).read_bytes()
        except FileNotFoundError as error:
            raise LedgerMismatch(f"{error.filename} is missing: {_RESTORE}") from None
        if len(secret) != 32:
            raise LedgerMismatch(f"the key files in {folder} are not those of a ledger")
        return cls(signing, secret)

    @staticmethod
    def read_signing(path: Path) -> Ed25519PrivateKey:
        """Raises LedgerMismatch when the file is missing or holds something else."""
        try:
            signing = load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            raise LedgerMismatch(f"{path} is missing: {_RESTORE}") from None
        except (ValueError, TypeError) as error:
            raise LedgerMismatch(f"{path} holds no private key: {error}") from None
        if not isinstance(signing, Ed25519PrivateKey):
            raise LedgerMismatch(f"{path} is not the signing key of a ledger")
        return signing

    def with_fresh_signing_key(self) -> "LedgerKeys":
        """A new signing key with the same secret: stored answers stay found."""
        return LedgerKeys(Ed25519PrivateKey.generate(), self.secret)

    def signing_pem(self) -> bytes:
        """The private signing key, as its file holds it."""
        return self.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path) -> None:
        """Writes the three files, which must not exist yet."""
        create_durably(folder / SIGNING_KEY, self.signing_pem(), mode=0o600)
        create_durably(folder / SECRET_KEY, self.secret, mode=0o600)
        create_durably(folder / PUBLIC_KEY, public_pem(self.public))

    @property
    def public(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        return self.signing.public_key().public_bytes_raw()

    def secret_check(self) -> bytes:
        """Recognises the secret without revealing it."""
        return self._mac(b"check")

    def sample_keys(
        self, samples: Sequence[bytes], teacher_version: str, settings: Sequence[bytes]
    ) -> list[bytes]:
        """Keys of stored answers, 32 bytes each: every sample under every setting, samples
        outermost. Nobody without the secret can test a sample for its key."""
        version = hashlib.sha256(teacher_version.encode()).digest()
        # Digests have one length: no two different triples give the same bytes.
        rest = [version + hashlib.sha256(part).digest() for part in settings]
        begin = self._begin(b"sample")
        keys = []
        for sample in samples:
            digest = hashlib.sha256(sample).digest()
            for part in rest:
                mac = begin()
                mac.update(digest + part)
                keys.append(mac.digest())
        return keys

    def file_mac(self, chunks: Iterable[bytes]) -> str:
        """Keyed digest of the concatenated chunks, 64 hexadecimal digits."""
        return self._mac(b"files", *chunks).hex()

    def _mac(self, purpose: bytes, *chunks: bytes) -> bytes:
        mac = self._begin(purpose)()
        for chunk in chunks:
            mac.update(chunk)
        return mac.digest()

    def _begin(self, purpose: bytes) -> Callable[[], hmac.HMAC]:
        """A fresh HMAC under the purpose's own key, each time it is called."""
        begun = self._begun.get(purpose)
        if begun is None:
            key = hmac.digest(self.secret, b"ktan.ledger." + purpose, "sha256")
            begun = self._begun[purpose] = hmac.new(key, digestmod="sha256")
        return begun.copy


def public_pem(public_key: bytes) -> bytes:
    """A raw public key as PEM, as everybody's tools read it."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
