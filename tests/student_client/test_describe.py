"""What one learns of a service for nothing: describe and budget."""

import json

from tests.student_client.commands import PRICE


def test_describe_and_budget_show_teacher_price_and_promise(command, stage):
    stage.service.spent = 2_500_000
    code, out, err = command("describe", stage.address, "--plaintext")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    for part in ("ensemble, 200 teachers", "probabilities", "0.125", "1,000", "7,500 new answers",
                 "ε = 1 of 4", "replace-one"):  # fmt: skip
        assert part in out
    code, out, _ = command("describe", stage.address, "--plaintext", "--json")
    described = json.loads(out)
    assert {tap["name"] for tap in described["taps"]} == {"probabilities", "hint"}
    assert described["charge_per_sample"] == PRICE
    code, out, _ = command("budget", stage.address, "--plaintext", "--json")
    assert json.loads(out)["left"] == 7_500_000
