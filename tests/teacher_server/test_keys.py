"""A service whose ledger gets a new signing key tells its history and signs with the new one."""

from privacy.key_history import KeyHistory, SigningKey
from privacy.receipts import Receipt, verify
from protos import teacher_pb2
from tests.teacher_server.running_service import images, query


def history(description) -> KeyHistory:
    return KeyHistory(
        description.ledger_id,
        tuple(
            SigningKey(key.public_key, key.entry, key.endorsement)
            for key in description.ledger_keys
        ),
    )


def test_describe_tells_every_key_and_receipts_are_by_the_last(service):
    stub = service.stub()

    def describe():
        return stub.Describe(teacher_pb2.DescribeRequest(), timeout=60)

    first = describe()
    assert [key.public_key for key in history(first)] == [first.ledger_public_key]
    before = query(images(1, 1))
    receipt = stub.Query(before, timeout=60).receipt
    service.ledger.rotate_key()
    second = describe()
    history(second).verify(first.ledger_public_key)
    assert history(second).current == second.ledger_public_key != first.ledger_public_key
    # The same request again brings the receipt that was signed then, free.
    again = stub.Query(before, timeout=60)
    assert (again.receipt, again.charged_samples) == (receipt, 0)
    verify(Receipt.from_json_bytes(receipt), first.ledger_public_key)
    new = Receipt.from_json_bytes(stub.Query(query(images(1, 2)), timeout=60).receipt)
    verify(new, second.ledger_public_key)
