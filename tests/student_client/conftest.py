"""A service to ask, and the command as its user types it."""

import io
import sys
from pathlib import Path

import pytest
import torch

from student_client import cli, results
from student_client.description import TeacherDescription
from tests.student_client.commands import QUERIES, SPLIT
from tests.student_client.service import Service, Stage


@pytest.fixture
def stage():
    one = Stage()
    one.start()
    yield one
    one.stop()
    one.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "answers"


@pytest.fixture
def new_service():
    """The class of the service, for a test that needs none of its sockets."""
    return Service


@pytest.fixture
def described():
    """Builds the description that a service with these settings publishes."""

    def build(**settings):
        message = Service(**settings).Describe(None, None)
        return TeacherDescription.from_message("127.0.0.1:50051", message)

    return build


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def brisk(monkeypatch):
    """No curves are drawn: that takes longer than these trainings, and other tests look at it."""
    monkeypatch.setattr(results, "plot_curves", lambda history, path, title: path.touch())


@pytest.fixture
def command(monkeypatch, capfd, brisk, one_thread):
    """Runs `student-client` in this process; gives exit code, standard output, standard error."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["student-client", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", stdin or io.StringIO())
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def train(command, stage, tmp_path):
    """`student-client train` of a tiny student at the service on `stage`."""

    def run(*options, out="run", teacher=None, stdin=None):
        usual = {"--queries": QUERIES, "--steps": 6, "--query-batch": 10, "--out": tmp_path / out}
        # One after the other: many tests say what becomes of which request.
        usual |= {"--in-flight": 1, "--dataset": "fake", **SPLIT}
        wire = [] if teacher else ["--plaintext", "--patience", "2"]
        fixed = [part for pair in usual.items() if pair[0] not in options for part in pair]
        return command("train", teacher or stage.address, *wire, *fixed, *options, stdin=stdin)

    return run
