"""One training charge, one release: what becomes of two copies of an unfinished training."""

import dataclasses
import json
import shutil

import pytest

from ktan.data import DataSource, split
from ktan.errors import UserError
from privacy import canonical_json
from privacy.errors import LedgerInUse, LedgerMismatch, RequestIdReused
from privacy.ledger import Ledger
from privacy.ledger.training_charge import TrainingCharge
from teacher_server import serving
from teacher_server.opening import open_ledger, reopen_ledger
from teacher_server.options import ServeOptions
from teacher_server.training import train, verify_folder
from teacher_server.under_ledger import train_under_ledger
from tests.teacher_server.training.conftest import PLAN, RECIPE, RUN
from tests.teacher_server.training.test_train import NOISY, interrupt_after

TWO = dataclasses.replace(PLAN, epsilon=20.0, training=(RUN, RUN))


class Killed(Exception):
    pass


class Host:
    """A data set and its ledger, with two reserved runs."""

    def __init__(self, place, patches):
        self.place, self._patches = place, patches
        self.source = DataSource("fake", place / "data", size=1000)
        dataset = self.source.load()
        self.ledger = place / "ledger"
        open_ledger(dataset, split(dataset, RECIPE), TWO, self.ledger, None, None).close()

    def train(self, name, *, resume=False):
        return train_under_ledger(
            self.source, RECIPE, NOISY, self.ledger, None, self.place / name, resume=resume
        )

    def killed(self, name, owner, function, *, resume=False):
        """Trains until the process would call `function`, which kills it."""

        def kill(*_arguments, **_options):
            raise Killed

        with self._patches.context() as patch:
            patch.setattr(owner, function, kill)
            with pytest.raises(Killed):
                self.train(name, resume=resume)

    def finished_copies(self):
        """Two copies of one unfinished training, each with its last state and without a charge."""
        with self._patches.context() as patch:
            interrupt_after(patch, 5)
            with pytest.raises(KeyboardInterrupt):
                self.train("a")
        shutil.copytree(self.place / "a.partial", self.place / "b.partial")
        for name in ("a", "b"):
            self.killed(name, Ledger, "charge_training", resume=True)
        states = [(self.place / f"{n}.partial/dp-sgd.safetensors").read_bytes() for n in "ab"]
        assert states[0] != states[1]

    def entries(self):
        with reopen_ledger(self.ledger, None, read_only=True) as ledger:
            return [entry.kind for entry in ledger.entries()]

    def serve(self, name):
        """Returns once the service would listen."""

        def listen(*_arguments):
            raise Killed

        paths = self.place / name, self.ledger, None, None
        with self._patches.context() as patch:
            patch.setattr(serving, "run", listen)
            with pytest.raises(Killed):
                serving.run_service(
                    *paths, ServeOptions(plaintext=True), "cpu", "rounded-gaussian", print
                )


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_the_second_copy_is_refused_and_says_what_to_do(host):
    host.finished_copies()
    card = host.train("a", resume=True)
    for _ in range(2):
        with pytest.raises(RequestIdReused, match=rf"{card.version} .*train anew with another"):
            host.train("b", resume=True)
    assert not (host.place / "b").exists()
    assert host.entries() == ["open", "training"]
    host.serve("a")
    # Which is possible, and a teacher of its own.
    shutil.rmtree(host.place / "b.partial")
    assert host.train("b").version != card.version
    assert host.entries() == ["open", "training", "training"]
    host.serve("b")


def test_a_crash_between_charge_and_folder_is_mended_with_the_same_weights(host):
    host.killed("a", train, "write_folder")
    assert host.entries() == ["open", "training"]
    assert not (host.place / "a").exists()
    version = json.loads((host.place / "a.partial/run.json").read_text())["version"]
    shutil.copytree(host.place / "a.partial", host.place / "again.partial")
    for name in ("a", "again"):  # the same weights twice are one release
        assert host.train(name, resume=True).version == version
        host.serve(name)
    weights = [(host.place / name / "weights.safetensors").read_bytes() for name in ("a", "again")]
    assert weights[0] == weights[1]
    assert host.entries() == ["open", "training"]


def test_the_other_copy_is_not_served(host, monkeypatch):
    """A folder that the charge does not pay for, however it came to be sealed."""
    host.finished_copies()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "charge_training", lambda *_: None)
        version = host.train("b", resume=True).version
    with pytest.raises(UserError, match="never charged"):
        host.serve("b")
    assert host.train("a", resume=True).version == version
    with reopen_ledger(host.ledger, None, read_only=True) as ledger:
        verify_folder(host.place / "b", ledger.mac)
    with pytest.raises(UserError, match=r"charged for other weights .* train anew with another"):
        host.serve("b")
    host.serve("a")


def test_that_a_ledger_is_not_the_datas_is_said_before_that_it_is_in_use(host, tmp_path):
    (tmp_path / "others").mkdir()
    other = Host(tmp_path / "others", None)
    with reopen_ledger(host.ledger, None):
        with pytest.raises(LedgerInUse, match="open for writing already"):
            host.train("a")
        other.ledger = host.ledger
        with pytest.raises(LedgerMismatch, match="belongs to ledger"):
            other.train("a")


def test_a_teacher_of_an_older_charge_is_served(host, monkeypatch):
    with monkeypatch.context() as patch:
        older = lambda charge: canonical_json.encode(charge.run.to_json())  # noqa: E731
        patch.setattr(TrainingCharge, "content", older)
        version = host.train("a").version
    with reopen_ledger(host.ledger, None, read_only=True) as ledger:
        assert ledger.training_of(version).weights is None
    host.serve("a")
