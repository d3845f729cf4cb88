"""`teacher-server revoke`: shuts a caller out of a service that runs."""

from __future__ import annotations

from pathlib import Path

from ktan.errors import UserError
from teacher_server import revocation
from teacher_server.commands.options import Flag, Names
from teacher_server.commands.screen import print_facts


def revoke(
    *,
    certs: Path | None = None,
    revoked: Path | None = None,
    name: Names = (),
    serial: Names = (),
    json: Flag = False,
) -> None:
    """Refuse a caller, or one certificate; while serving, within a twentieth of a second.

    Without a name or a serial, the list is checked and counted. Whoever is to be let in again is
    taken from the list by an editor.

    Parameters
    ----------
    certs
        The server's certificate folder, whose file `revoked` is the list.
    revoked
        The list, where the service was started with --revoked.
    name
        Name in a certificate: every certificate of that name, in every role; repeat for several.
    serial
        Serial number of one certificate, as `teacher-server certs` prints it; repeat for several.
    json
        Print one JSON object.
    """
    if (certs is None) == (revoked is None):
        raise UserError("say which list: --certs FOLDER of the server, or --revoked FILE")
    if certs is not None and not certs.is_dir():
        raise UserError(f"--certs {certs}: there is no such folder")
    path = revoked or Path(certs or ".") / revocation.FILE
    found = revocation.add(path, name, serial)
    print_facts(
        {"list": str(path), "names": sorted(found.names), "certificates": len(found.serials)}, json
    )
