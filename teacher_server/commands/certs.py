"""`teacher-server certs`: a private certificate authority, and what it issues."""

from __future__ import annotations

from pathlib import Path

from teacher_server.certificates import issue_client, issue_server, load_authority, make_authority
from teacher_server.commands.options import Flag, Names
from teacher_server.commands.screen import print_facts
from teacher_server.identity import Role


def certs(
    *,
    out: Path,
    server_name: Names = (),
    client: Names = (),
    auditor: Names = (),
    json: Flag = False,
) -> None:
    """Make a private certificate authority, or let the one there issue more certificates.

    Keep OUT/ca off the server; copy OUT/server to it, and each client's folder to that client.

    Parameters
    ----------
    out
        Folder that gets ca/, server/ and a folder per client.
    server_name
        Host name or address of the server; repeat for several.
    client
        Name of a client that may ask and pay for answers; repeat for several.
    auditor
        Name of an auditor that may read the log; repeat for several.
    json
        Print one JSON object.
    """
    folder = out / "ca"
    authority = load_authority(folder) if folder.exists() else make_authority(folder)
    made = [str(folder)]
    if server_name:
        issue_server(authority, out / "server", list(server_name))
        made.append(str(out / "server"))
    for role, names in ((Role.CLIENT, client), (Role.AUDITOR, auditor)):
        for name in names:
            issue_client(authority, out / name, role, name)
            made.append(str(out / name))
    print_facts({"certificates": made}, json)
