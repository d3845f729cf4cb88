"""A port that a server may leave and come back to."""

import socket


def reserved_port() -> socket.socket:
    """A socket bound to a port of 127.0.0.1, which nobody else is given until it is closed.

    It does not listen, and shares the address with a server that does. Without it the port of a
    server that is down may become that of any outgoing connection, of its own client's even.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
