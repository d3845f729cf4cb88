"""Asks a private teacher about public samples, once each, and trains a student on the answers."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# gRPC writes failed handshakes to the terminal; they are said in our own words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

if TYPE_CHECKING:
    from student_client.connection import Connection
    from student_client.fetching import FetchingTeacher
    from student_client.remote import RemoteTeacher

__all__ = ["Connection", "FetchingTeacher", "RemoteTeacher"]

_PLACES = {"Connection": "connection", "FetchingTeacher": "fetching", "RemoteTeacher": "remote"}


def __getattr__(name: str) -> Any:
    # When they are asked for: torch, which one of them needs, takes seconds.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
