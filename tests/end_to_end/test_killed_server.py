"""kill -9 the server while a client queries: charged once, answered once, bit for bit."""

import json

from ktan.answers import AnswerStore
from ktan.teachers import TeacherCard
from teacher_server.menu import build_menu, parse_shares
from teacher_server.opening import reopen_ledger
from teacher_server.public_teacher import PublicTeacher
from tests.end_to_end.deployment import QUERIES, SHARES, Deployment
from tests.ports import reserved_port

KILLS = 3


def test_every_answer_is_charged_once_and_equals_the_stored_one(tmp_path):
    deployment = Deployment(tmp_path)
    deployment.prepare()
    reserved = reserved_port()
    port = reserved.getsockname()[1]
    chunks = deployment.student / "answers" / "chunks"
    client = deployment.train_student(f"localhost:{port}", "--query-batch", "2")
    try:
        for kill in range(KILLS):
            with deployment.service(port) as (server, _):
                client.wait_for(lambda goal=(kill + 1) * 8: len(list(chunks.glob("*"))) >= goal)
                assert server.kill() == -9
        with deployment.service(port) as (server, _):
            assert client.end() == 0, client.errors
            assert server.stop() == 0
    finally:
        client.kill()
        reserved.close()

    result = json.loads(client.output)
    report = deployment.run_json(
        "privacy-audit", "ledger", deployment.ledger, "--receipts", deployment.student / "answers"
    )
    card = TeacherCard.read(deployment.teacher)
    public = PublicTeacher.of_card(card.to_json())
    with reopen_ledger(deployment.ledger, None, read_only=True) as ledger:
        menu = build_menu(public, ledger.plan.answer_units, QUERIES, parse_shares(SHARES[3::2]))
        charge = sum(tap.release.charge for tap in menu)
        assert report["spent"] == QUERIES * charge == ledger.budget(None).spent
        assert result["answers"]["samples"] == QUERIES
        compare_bit_for_bit(deployment, ledger, card, menu)


def compare_bit_for_bit(deployment, ledger, card, menu):
    store = AnswerStore.open(deployment.student / "answers")
    digests = store.digests()
    assert len(digests) == QUERIES
    held = store.answers(digests)
    for tap in menu:
        settings = tap.release.settings_bytes()
        keys = [ledger.sample_key(d.tobytes(), card.version, settings) for d in digests]
        stored = ledger.stored(keys)
        for key, row in zip(keys, held[tap.name], strict=True):
            assert stored[key] == row.numpy().astype("<f4").tobytes()
