"""What ctrl-C and faults leave of a run, and under which options it goes on."""

import os
import signal
import time
import tomllib

import grpc
import safetensors.numpy

from ktan import pupil
from tests.student_client.commands import PRICE, QUERIES, forget, result


def test_a_service_that_stays_away_is_a_passing_fault(train, stage, tmp_path):
    stage.stop()
    code, out, err = train("--yes")
    assert code == 1
    assert "error: no teacher service answers at 127.0.0.1" in err
    assert "asking again" in out
    stage.start()
    assert train("--yes")[0] == 0


def test_ctrl_c_while_asking_loses_nothing(train, stage, tmp_path):
    def interrupt(context, response):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)

    stage.service.after = [lambda *_: None, interrupt]
    code, out, err = train("--yes")
    assert code == 130
    assert "10 of 24 answers are stored in" in out
    assert "--resume" in out
    assert stage.service.spent == 20 * PRICE
    code, _, err = train("--yes")
    assert code == 2
    assert "already holds a run; go on with it by --resume" in err
    code, out, _ = train("--yes", "--resume")
    assert code == 0
    assert stage.service.spent == QUERIES * PRICE
    ids = [request_id for request_id, _ in stage.service.calls]
    assert ids[1] == ids[2]


def test_ctrl_c_while_training_leaves_a_state_that_goes_on_exactly(
    train, stage, tmp_path, monkeypatch
):
    run, save = tmp_path / "run", pupil.save_checkpoint

    def interrupted(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGINT)

    options = ["--yes", "--steps", "60", "--checkpoint-every", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(pupil, "save_checkpoint", interrupted)
        code, out, _ = train(*options)
    assert code == 130
    assert f"student-client train --config {run / 'config.toml'} --resume" in out
    assert not (run / "result.json").exists()
    # The service is not needed any more: all answers are here.
    stage.stop()
    assert train(*options, "--resume")[0] == 0
    stage.start()
    assert train(*options, out="whole")[0] == 0
    pair = [
        safetensors.numpy.load_file(tmp_path / name / "student/weights.safetensors")
        for name in ("run", "whole")
    ]
    for name, values in pair[0].items():
        assert (values == pair[1][name]).all(), name


def test_the_recorded_options_repeat_the_run(train, command, stage, tmp_path):
    assert train("--yes", "--method-set", "hint_weight=0.5", "--seed", "3")[0] == 0
    config = tmp_path / "run/config.toml"
    recorded = tomllib.loads(config.read_text())["train"]
    assert recorded["seed"] == 3
    assert recorded["split-seed"] == 0
    assert recorded["method-set"] == ["hint_weight=0.5"]
    code, _, err = command("train", "--config", config, "--out", tmp_path / "again", "--yes")
    assert (code, err) == (0, "")
    first, second = (result(tmp_path / name) for name in ("run", "again"))
    assert first["last"] == second["last"]


def test_a_run_is_resumed_under_its_own_options_only(train, stage):
    stage.service.after = [lambda context, _: context.abort(grpc.StatusCode.UNKNOWN, "broken")]
    assert train("--yes")[0] == 2
    code, _, err = train("--yes", "--resume", "--learning-rate", "0.5")
    assert code == 2
    assert "was begun with --learning-rate 0.001, now it is 0.5" in err
    assert train("--yes", "--resume", "--deadline", "30")[0] == 0


def test_there_must_be_something_to_resume(train):
    code, _, err = train("--yes", "--resume")
    assert code == 2
    assert "holds no run to resume" in err


def test_a_finished_run_is_not_done_again(train, stage):
    train("--yes")
    calls = len(stage.service.calls)
    code, out, _ = train("--yes", "--resume")
    assert code == 0
    assert "% of 50 test samples" in out
    assert len(stage.service.calls) == calls


def test_options_that_an_earlier_version_did_not_have_count_as_their_defaults(
    train, stage, tmp_path
):
    stage.service.after = [lambda context, _: context.abort(grpc.StatusCode.UNKNOWN, "broken")]
    assert train("--yes")[0] == 2
    forget(
        tmp_path / "run/config.toml",
        *("opponent-learning-rate", "select-steps", "all-taps", "method-set", "split-seed"),
    )
    code, _, err = train("--yes", "--resume", "--opponent-learning-rate", "0.1")
    assert code == 2
    assert "was begun with --opponent-learning-rate 0.003, now it is 0.1" in err
    assert train("--yes", "--resume")[0] == 0
