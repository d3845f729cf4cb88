"""Identity from certificates, and the table of who may call what."""

import pytest
from grpc_health.v1 import health_pb2

from protos import Reason, teacher_pb2
from teacher_server.errors import PermissionDenied, Unauthenticated
from teacher_server.identity import LOOPBACK, Identity, Role, authorise, identify, identity_uri

QUERY = "/ktan.teacher.v1.TeacherService/Query"
ENTRIES = "/ktan.teacher.v1.AuditService/ListEntries"


def _holder(role):
    return Identity(frozenset({role}), "anna")


@pytest.mark.parametrize("role", Role)
def test_what_the_authority_writes_is_what_the_server_reads(role):
    assert identify([identity_uri(role, "anna").encode()]) == _holder(role)


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [b"https://example.org"],
        [b"ktan://client/"],
        [b"ktan://root/anna"],
        [b"ktan://client/anna/otto"],
        [b"ktan://client/an%20na"],
        [b"ktan://client/" + 64 * b"a"],
        [b"ktan://client/\xff"],
        [b"ktan://client"],
        [b"ktan://client/anna", b"ktan://auditor/anna"],
        [b"ktan://client/\xff", b"ktan://client/x"],
    ],
)
def test_anything_but_one_clear_identity_is_unauthenticated(uris):
    with pytest.raises(Unauthenticated) as refusal:
        identify(uris)
    assert refusal.value.reason is Reason.UNKNOWN_IDENTITY


def test_clients_query_and_auditors_read_the_log_and_not_the_other_way_round():
    authorise(_holder(Role.CLIENT), QUERY)
    authorise(_holder(Role.AUDITOR), ENTRIES)
    with pytest.raises(PermissionDenied, match="needs the client role"):
        authorise(_holder(Role.AUDITOR), QUERY)
    with pytest.raises(PermissionDenied, match="needs the auditor role"):
        authorise(_holder(Role.CLIENT), ENTRIES)


def test_a_method_that_the_table_does_not_name_is_denied_to_everybody():
    for identity in (LOOPBACK, _holder(Role.CLIENT), _holder(Role.AUDITOR)):
        with pytest.raises(PermissionDenied):
            authorise(identity, "/ktan.teacher.v1.TeacherService/Reset")


def test_every_method_of_our_services_has_a_row():
    for descriptor in (teacher_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR):
        for service in descriptor.services_by_name.values():
            for method in service.methods:
                authorise(LOOPBACK, f"/{service.full_name}/{method.name}")
