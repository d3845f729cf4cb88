"""A service whose ledger gets a new signing key tells its history and signs with the new one."""

import json

from privacy.budget import open_plan
from privacy.key_history import KeyHistory, SigningKey
from privacy.ledger import Ledger
from privacy.receipts import Receipt, read_public_key, verify
from protos import teacher_pb2
from teacher_server.commands.ledger import rotate_key
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


def test_the_custodians_command_hands_over(tmp_path, capsys):
    folder, witness = tmp_path / "ledger", tmp_path / "elsewhere" / "head.json"
    plan = open_plan(4.0, 1e-5)
    with Ledger.create(folder, dataset_id="stand-in", plan=plan, witness=witness) as ledger:
        first = ledger.public_key
    rotate_key(ledger=folder, witness=witness, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["signs_from_entry"], told["keys_so_far"]) == (1, 2)
    rotate_key(ledger=folder, witness=witness)
    assert "signs from entry" in capsys.readouterr().out
    with Ledger.open(folder, witness=witness) as ledger:
        keys = [key.public_key for key in ledger.key_history]
        assert keys[:2] == [first, bytes.fromhex(told["public_key"])]
        assert read_public_key(folder / "public-key.pem") == keys[2] == ledger.public_key
