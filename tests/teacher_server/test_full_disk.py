"""What a client sees of a ledger that cannot write: one status, no detail, and no answer."""

import sqlite3

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sqlalchemy import event

from privacy.errors import LedgerFault
from privacy.ledger import Ledger
from protos import Reason
from tests.teacher_server.running_service import CHARGE, images, query

SETTINGS = {
    # SQLite raises it to the size that the file has.
    "database or disk is full": "PRAGMA max_page_count = 1",
    "readonly database": "PRAGMA query_only = ON",
}


def ask_until_refused(service):
    """(request, refusal): answers are a few bytes, and the last page may have room for some."""
    for seed in range(200):
        request = query(images(8, seed=seed + 1))
        try:
            service.stub().Query(request, timeout=60)
        except grpc.RpcError as refusal:
            return request, refusal
    raise AssertionError("there was room for everything")


@pytest.mark.parametrize("fault", SETTINGS)
def test_a_ledger_that_cannot_write_releases_nothing_and_says_no_more(
    service, tmp_path, fault: str
) -> None:
    first = query(images(1))
    service.stub().Query(first, timeout=60)

    @event.listens_for(service.ledger._engine, "connect")
    def broken(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(SETTINGS[fault])

    service.ledger._engine.dispose()
    request, refusal = ask_until_refused(service)
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(refusal)
    assert status.details[0].Unpack(info)
    assert (refusal.code(), info.reason) == (grpc.StatusCode.INTERNAL, Reason.LEDGER_FAULT)
    assert refusal.details() == (
        "the ledger failed and nothing was released; send the same request later"
    )
    assert len(status.details) == 1
    assert dict(info.metadata) == {}
    with pytest.raises(LedgerFault, match=fault):
        service.ledger.check("anna", charge=0, draws=0)
    service.ledger.close()
    with Ledger.open(tmp_path / "ledger", witness=tmp_path / "elsewhere" / "head.json") as ledger:
        settled = [entry.request_id for entry in ledger.entries()]
        assert request.request_id not in settled
        assert first.request_id in settled
        assert ledger.budget().spent == CHARGE * (1 + 8 * (len(settled) - 2))
