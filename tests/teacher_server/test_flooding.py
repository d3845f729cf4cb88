"""Connections never take the files that the ledger needs; the fuzzer floods a real service."""

import resource

import pytest

from teacher_server.flooding import channel_options


@pytest.mark.parametrize(
    ("files", "most"),
    [(256, 128), (1024, 512), (1_048_576, 1000), (resource.RLIM_INFINITY, 1000)],
)
def test_connections_take_half_of_the_files_at_most(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, resource.RLIM_INFINITY))
    assert dict(channel_options())["grpc.max_allowed_incoming_connections"] == most
