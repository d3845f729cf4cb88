"""What the commands refuse, in one line and before anything is paid."""

import numpy as np

from tests.student_client.commands import DATA, PRICE
from tests.student_client.service import CLASSES


def test_a_budget_that_does_not_suffice_is_said_before_anything_is_asked(train, stage):
    stage.service.budget = 10 * PRICE
    code, _, err = train("--yes")
    assert code == 2
    assert "24 new answers: they cost 24,000, 10,000 is left, enough for 10" in err
    assert stage.service.calls == []


def test_what_does_not_fit_is_said_before_anything_is_paid(train, stage):
    for options, message in [
        (["--hint", "hint=nowhere"], "no module 'nowhere'"),
        (["--hint", "sound=features"], "the teacher answers no hint 'sound'"),
        (["--method", "magic"], "no method is called 'magic'"),
        (["--method-set", "hint_wait=1"], "ktan has no option 'hint_wait'; it has local_weight"),
        (["--method-set", "hint_weight=much"], "give a value like"),
        (["--network", "resnet9"], "the depth is 6 n + 2"),
        (["--network-set", "wings=2"], "wings"),
        (["--queries", "1000"], "1000 queries asked for, 60 unlabelled public samples"),
        (["--size", "100"], "the split asks for 200 units"),
    ]:
        code, _, err = train("--yes", *options)
        assert code == 2, options
        assert message in err
        assert len(err.splitlines()) == 1
    assert stage.service.calls == []


def test_a_teacher_without_hints_is_met_with_the_method_that_needs_none(train, stage):
    stage.service.hints = False
    code, _, err = train("--yes")
    assert code == 2
    assert err == (
        "error: method ktan needs a hint (--taps hint=PATH); the teacher answers probabilities "
        "(probabilities): choose a method that these serve, or ask its custodian for more\n"
    )
    assert stage.service.calls == []


def test_a_teacher_of_other_data_is_refused(train, stage):
    stage.service.shape = (3, 32, 32)
    code, _, err = train("--yes")
    assert code == 2
    assert "takes samples of uint8 [3, 32, 32], and fake has uint8 [1, 28, 28]" in err
    stage.service.shape = (1, 28, 28)
    stage.service.classes = (*CLASSES[:9], "smudge")
    code, _, err = train("--yes")
    assert code == 2
    assert "class 9 is 'smudge' to the teacher at" in err
    assert "'pattern-9' in fake" in err


def test_ones_own_folder_needs_its_public_numbers(command, tmp_path):
    samples = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.savez(tmp_path / "public.npz", samples=samples)
    data = ["--dataset", f"arrays:{tmp_path / 'public.npz'}", "--unlabelled", 10]
    code, _, err = command("train", "none", "--out", tmp_path / "run", *data, "--labelled", 5)
    assert code == 2
    assert "say how many units are public: --labelled, --unlabelled and --test" in err
    assert "arrays:public lacks --test" in err


def test_mistakes_at_the_command_line_are_one_line(command, stage, tmp_path):
    for arguments in (
        ["describe"],
        ["describe", "nowhere"],
        ["describe", stage.address],
        ["describe", stage.address, "--plaintext", "--colour", "red"],
        ["train", stage.address, "--plaintext", "--steps", "many", "--out", tmp_path],
        ["evaluate", "nowhere"],
        ["train", "file:nowhere", "--out", tmp_path, *DATA],
        ["--config", "no.toml", "describe", stage.address],
        ["describe", stage.address, "--certs", tmp_path / "none"],
    ):
        code, _, err = command(*arguments)
        assert code == 2, arguments
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1, err
        assert "Errno" not in err
