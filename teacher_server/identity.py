"""Who calls, and what each role may call: a table per method, everything else denied.

Identity comes from the client certificate's URI subject alternative name, `ktan://role/name`,
which only the private authority can put there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from teacher_server.errors import PermissionDenied, Unauthenticated

_SCHEME: Final = "ktan://"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Role(StrEnum):
    """What a certificate entitles to."""

    CLIENT = "client"
    AUDITOR = "auditor"


@dataclass(frozen=True)
class Identity:
    """An authenticated caller. `name` is what the ledger attributes charges to."""

    roles: frozenset[Role]
    name: str


LOOPBACK: Final = Identity(frozenset(Role), "loopback")
"""Every caller of a plaintext server, which listens on the loopback interface only."""

_BOTH: Final = frozenset(Role)
_CLIENT: Final = frozenset({Role.CLIENT})
_AUDITOR: Final = frozenset({Role.AUDITOR})

_POLICY: Final[dict[str, frozenset[Role]]] = {
    "/ktan.teacher.v1.TeacherService/Describe": _BOTH,
    "/ktan.teacher.v1.TeacherService/Query": _CLIENT,
    "/ktan.teacher.v1.TeacherService/GetBudget": _BOTH,
    "/ktan.teacher.v1.AuditService/ListEntries": _AUDITOR,
    "/grpc.health.v1.Health/Check": _BOTH,
    "/grpc.health.v1.Health/Watch": _BOTH,
    "/grpc.health.v1.Health/List": _BOTH,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _BOTH,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _BOTH,
}


def is_name(text: str) -> bool:
    """Whether `text` may name a caller: up to 63 letters, digits, dots, dashes, underscores."""
    return _NAME.fullmatch(text) is not None


def identity_uri(role: Role, name: str) -> str:
    """The URI subject alternative name that stands for `name` in `role`."""
    return f"{_SCHEME}{role}/{name}"


def identify(uris: list[bytes]) -> Identity:
    """The identity in a peer certificate's URIs. Raises Unauthenticated when there is not one."""
    named = [uri.decode("ascii", "replace") for uri in uris if uri.startswith(b"ktan://")]
    if len(named) != 1:
        raise Unauthenticated("the certificate must carry exactly one ktan:// identity")
    role, _, name = named[0].removeprefix(_SCHEME).partition("/")
    if role not in set(Role) or not is_name(name):
        raise Unauthenticated("the certificate's identity names no role and client of this service")
    return Identity(frozenset({Role(role)}), name)


def authorise(identity: Identity, method: str) -> None:
    """Raises PermissionDenied unless one of the caller's roles may call `method`."""
    allowed = _POLICY.get(method, frozenset())
    if not identity.roles & allowed:
        needed = " or ".join(sorted(allowed)) or "no"
        held = ", ".join(sorted(identity.roles))
        raise PermissionDenied(f"this method needs the {needed} role; the caller is {held}")
