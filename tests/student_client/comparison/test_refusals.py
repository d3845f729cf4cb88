"""What the compare command refuses, or leaves out, before anything is spent."""

from tests.student_client.comparison.tables import PRICE, QUERIES, SPLIT, table


def test_what_cannot_be_taught_is_refused_before_anything_is_spent(
    compare, stage, remote, tmp_path
):
    stage.service.hints = False
    code, _, err = compare("soft-logits,ktan,fitnet", *remote)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "ktan (remote): it needs a hint" in err
    assert "fitnet (remote): it needs a hint" in err
    assert "soft-logits (remote)" not in err
    assert "--skip-impossible" in err
    assert (stage.service.spent, stage.service.calls) == (0, [])
    assert not list(tmp_path.glob("table/runs/*"))
    # Nor is anything asked for nobody.
    code, out, err = compare("fitnet", *remote, "--seeds", "0", "--skip-impossible")
    assert (code, err) == (0, "")
    assert "Left out  fitnet (remote)" in out
    assert (stage.service.spent, stage.service.calls) == (0, [])


def test_an_older_service_is_asked_for_all_its_taps_or_for_nothing(compare, stage, remote):
    stage.service.taps_by_name = False
    one = ("soft-logits", *remote, "--seeds", "0")
    code, _, err = compare(*one)
    assert code == 2
    assert "--all-taps" in err
    assert stage.service.calls == []
    code, _, err = compare(*one, "--all-taps")
    assert (code, err) == (0, "")
    assert stage.service.spent == QUERIES * PRICE


def test_what_cannot_be_taught_may_be_left_out(compare, command, tmp_path):
    # A table has no maps, so that a teacher of tables has no stage to show.
    usual = {"--dataset": "fake", **SPLIT, "--network": "mlp-small", "--steps": 2}
    pairs = [part for pair in usual.items() for part in pair]
    assert command("train", "none", *pairs, "--out", tmp_path / "flat")[0] == 0
    code, out, err = compare(
        "soft-logits,at", "--local", tmp_path / "flat", "--seeds", "0", "--skip-impossible"
    )
    assert (code, err) == (0, "")
    assert "Left out  at (local): it needs attention" in out
    assert [
        row["method"] for row in table(tmp_path / "table")["rows"] if row["teacher"] == "local"
    ] == ["soft-logits"]


def test_mistakes_are_one_line(compare, teacher, tmp_path):
    for options, message in [
        (("fitnet", "--local", teacher, "--resume"), "holds no comparison to resume"),
        (("local",), "at least one method"),
        (("fitnet",), "the method fitnet needs a teacher; name one with --local"),
        (("ktna", "--local", teacher), "no method is called 'ktna'"),
        (("fitnet,fitnet", "--local", teacher), "--methods gives fitnet twice"),
        (("fitnet", "--local", teacher, "--seeds", "0,0"), "--seeds gives 0 twice"),
        (("fitnet", "--local", teacher, "--seeds", "many"), "--seeds wants numbers"),
        (("fitnet", "--local", teacher, "--seeds", "-1"), "a seed is at least 0"),
        (("fitnet", "--local", teacher, "--together", "0"), "--together is 0"),
        (("fitnet", "--local", teacher, "--method", "ktan"), "Unknown option"),
        (("fitnet", "--local", teacher, "--test", "0"), "give --test"),
        (("fitnet", "--local", tmp_path / "nowhere"), "is no folder"),
        (("fitnet", "--local", teacher / "tensorboard"), "holds no student"),
        (("fitnet", "--local", teacher, "--method-set", "hight=3"), "has the option 'hight'"),
    ]:
        code, _, err = compare(*options)
        assert code == 2, options
        assert message in err
        assert len(err.splitlines()) == 1, err
