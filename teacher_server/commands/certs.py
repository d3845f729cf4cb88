"""`teacher-server certs`: a private certificate authority, and what it issues."""

from __future__ import annotations

from pathlib import Path

from ktan.errors import UserError
from teacher_server import certificates
from teacher_server.commands.options import Flag, Names
from teacher_server.commands.screen import print_facts
from teacher_server.identity import Role


def certs(
    *,
    out: Path,
    server_name: Names = (),
    client: Names = (),
    auditor: Names = (),
    renew: Names = (),
    new_authority: Flag = False,
    forget_authority: Flag = False,
    json: Flag = False,
) -> None:
    """Make a private certificate authority, or let the one there issue and renew certificates.

    Keep OUT/ca off the server; copy OUT/server to it, and each client's folder to that client. A
    server that runs takes what is new in its folder by itself. Prints until when each certificate
    is valid, and its serial number.

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
    renew
        Folder in OUT (server, or a client's name) whose key and certificate are made anew under
        the same names and role; repeat for several.
    new_authority
        Have a new authority sign from now on. The one before stays trusted: every ca.pem in OUT
        names both. Hand them out, then --renew everything and hand it out, then
        --forget-authority.
    forget_authority
        Trust the earlier authority no more: every ca.pem in OUT names the new one alone.
    json
        Print one JSON object.
    """
    if new_authority and forget_authority:
        raise UserError("give --new-authority or --forget-authority: between them everybody renews")
    folder = out / "ca"
    if new_authority:
        authority = certificates.replace_authority(folder)
    elif forget_authority:
        authority = certificates.forget_authority(folder)
    elif folder.exists():
        authority = certificates.load_authority(folder)
    else:
        authority = certificates.make_authority(folder)
    made = [folder]
    if new_authority or forget_authority:
        for holder in sorted(path.parent for path in out.glob("*/ca.pem")):
            certificates.tell_trusted(authority, holder)
            made.append(holder)
    if server_name:
        certificates.issue_server(authority, out / "server", list(server_name))
        made.append(out / "server")
    for role, names in ((Role.CLIENT, client), (Role.AUDITOR, auditor)):
        for name in names:
            certificates.issue_client(authority, out / name, role, name)
            made.append(out / name)
    for name in renew:
        if name == folder.name or out / name not in _holders(out):
            raise UserError(f"--renew {name}: {out} holds no such certificate")
        certificates.renew(authority, out / name)
        made.append(out / name)
    issued = {holder.name: certificates.Issued.read(holder) for holder in _holders(out)}
    print_facts(
        {
            "certificates": list(dict.fromkeys(map(str, made))),
            "issued": {
                name: {"valid_until": f"{known.until:%Y-%m-%d}", "serial": known.serial}
                for name, known in issued.items()
            },
        },
        json,
    )


def _holders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/certificate.pem"))
