"""Asks a private teacher about public samples, once each, and trains a student on the answers."""

import os

# gRPC writes failed handshakes to the terminal; they are said in our own words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from student_client.connection import Connection
from student_client.fetching import FetchingTeacher
from student_client.remote import RemoteTeacher

__all__ = ["Connection", "FetchingTeacher", "RemoteTeacher"]
