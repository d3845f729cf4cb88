"""The rehearsal: the real service without torch, on a ledger that can belong to no data."""

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from privacy.accounting import SIGMA
from privacy.budget import open_plan
from privacy.errors import LedgerMismatch, LedgerMissing
from privacy.ledger import Ledger, require_bound
from privacy.receipts import Receipt, verify
from privacy.release import release
from protos import teacher_pb2, teacher_pb2_grpc, to_message
from teacher_server.public_teacher import PublicTap, PublicTeacher
from teacher_server.rehearsal.cases import SAMPLE_BYTES, Case
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.teacher import SyntheticTeacher

ROOT = Path(__file__).resolve().parents[2]


class NoNoise:
    """Zero noise: what is left of an answer is its mean."""

    def sample(self, count):
        return np.zeros(count, dtype=np.int64)


@contextmanager
def rehearsal(folder, *options):
    """A running rehearsal: the process, its facts and a stub."""
    command = [sys.executable, "-m", "teacher_server.rehearsal", "--ledger", str(folder)]
    command += ["--plaintext", "--listen", "127.0.0.1:0", "--json", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        facts = json.loads(line)
        with grpc.insecure_channel(facts["listening"]) as channel:
            yield process, facts, teacher_pb2_grpc.TeacherServiceStub(channel)
    finally:
        process.kill()
        process.communicate()


def samples_of(case, count, first=0, axis=0):
    samples = np.zeros((count, SAMPLE_BYTES), dtype=np.uint8)
    samples[:, 0] = case
    samples[:, 2:4] = np.frombuffer(np.uint16(axis).tobytes(), dtype=np.uint8)
    samples[:, 8:] = np.arange(first, first + count, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return samples


def ask(stub, samples, request_id=None):
    request = teacher_pb2.QueryRequest(
        request_id=request_id or str(uuid.uuid4()), samples=[to_message("samples", samples)]
    )
    return stub.Query(request, timeout=120)


def test_nothing_on_its_path_loads_torch():
    code = "import sys, teacher_server.rehearsal.command as c; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "teacher_server.rehearsal.teacher" in loaded
    assert not loaded & {"torch", "torchvision", "opacus", "matplotlib", "dp_accounting", "opendp"}


def test_it_serves_answers_with_receipts_and_survives_a_kill(tmp_path):
    folder, samples, request_id = tmp_path / "ledger", samples_of(Case.AXIS, 3), str(uuid.uuid4())
    options = ("--radius", str(2**17), "--unlimited")
    with rehearsal(folder, *options) as (process, facts, stub):
        face = stub.Describe(teacher_pb2.DescribeRequest(), timeout=120)
        charge = sum(tap.charge for tap in face.taps)
        assert charge == (4 + 2 + 4) * 2**34
        first = ask(stub, samples, request_id)
        receipt = Receipt.from_json_bytes(first.receipt)
        verify(receipt, face.ledger_public_key)
        assert receipt.charge == 3 * charge
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with rehearsal(folder, *options) as (_, again, stub):
        assert again["ledger"] == facts["ledger"]
        assert again["teacher_version"] == facts["teacher_version"]
        # By the request's id, and by the samples under another one.
        assert ask(stub, samples, request_id).receipt == first.receipt
        other = ask(stub, samples)
        assert other.charged_samples == 0
        assert [t.data for t in other.answers] == [t.data for t in first.answers]
        # Read only beside the running service: what was charged once stayed charged once.
        with Ledger.open(
            folder, witness=tmp_path / "ledger.witness.json", read_only=True
        ) as ledger:
            assert ledger.budget(None).spent == 3 * charge


def test_a_served_budget_runs_out(tmp_path):
    with rehearsal(tmp_path / "ledger", "--epsilon", "1", "--answers", "4") as (_, _, stub):
        assert ask(stub, samples_of(Case.ORDINARY, 4)).charged_samples == 4
        with pytest.raises(grpc.RpcError) as caught:
            ask(stub, samples_of(Case.ORDINARY, 1, first=4))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_ledger_that_was_opened_for_data_is_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    plan = open_plan(8.0, 1e-5)
    Ledger.create(
        tmp_path / "ledger",
        dataset_id="patients/2-classes-0123456789ab",
        plan=plan,
        witness=tmp_path / "ledger.witness.json",
        data=data,
    ).close()
    command = [sys.executable, "-m", "teacher_server.rehearsal", "--plaintext", "--ledger"]
    done = subprocess.run(
        [*command, str(tmp_path / "ledger")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "private data set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rehearsals_ledger_serves_no_data(tmp_path):
    with rehearsal(tmp_path / "ledger") as (_, facts, _):
        pass
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises((LedgerMissing, LedgerMismatch)):
        require_bound(data, facts["ledger"])


def worlds(tap, case, *, teachers=4, axis=1, serial=0):
    """The exact integer means of the two worlds, in units of B/R: float [2, m]."""
    options = RehearsalOptions(tap=(tap,), teachers=teachers, radius=2**18)
    public = public_teacher(options)
    (served,) = rehearsed_menu(options, public, None)
    samples = samples_of(case, 1, first=serial, axis=axis)
    means = []
    for world in (0, 1):
        rows = SyntheticTeacher(public, world).answers(samples)[served.name]
        mean = release(served.release, rows, NoNoise())
        steps = teachers * served.release.radius / served.release.bound
        # A float32 holds these integers exactly.
        means.append(np.rint(mean[0].astype(float) * steps))
    return np.array(means), served.release


@pytest.mark.parametrize("case", [Case.AXIS, Case.SPREAD, Case.HUGE, Case.ALTERNATING])
@pytest.mark.parametrize("tap", ["hint:16:0.7", "logits:5:3", "probabilities:3", "attention:9:1"])
def test_worst_cases_are_as_far_apart_as_the_charge_says(tap, case):
    means, settings = worlds(tap, case, serial=1)
    squared = np.square(means[0] - means[1]).sum()
    assert squared <= settings.charge
    # Truncation takes at most one grid step a value off.
    assert squared == pytest.approx(settings.charge, rel=1e-4)


@pytest.mark.parametrize("case", [Case.NOT_A_NUMBER, Case.INFINITE])
def test_a_poisoned_shard_answers_zero_in_one_world(case):
    means, settings = worlds("hint:16:1", case, teachers=1)
    np.testing.assert_array_equal(means[1], np.zeros(16))
    assert np.square(means[0]).sum() == settings.radius**2


def test_only_the_replaced_teacher_knows_the_world():
    public = public_teacher(RehearsalOptions())
    samples = np.concatenate([samples_of(case, 3) for case in Case])
    first, second = (SyntheticTeacher(public, world).answers(samples) for world in (0, 1))
    for name, values in first.items():
        np.testing.assert_array_equal(values[1:], second[name][1:])
        changed = (values[0] != second[name][0]).any(axis=1)
        assert changed.tolist() == [False] * 3 + [True] * 3 * (len(Case) - 1)


def test_the_likeness_of_a_teacher_has_its_public_numbers(tmp_path):
    card = {
        "version": "0" * 32,
        "mode": "ensemble",
        "teachers": 30,
        "dataset": "glyphs",
        "classes": ["a", "b", "c"],
        "input_shape": [1, 8, 8],
        "input_dtype": "uint8",
        "normalisation": {"mean": [127.5], "std": [127.5]},
        "taps": [
            {
                "tap": {"name": "hint", "kind": "hint", "shape": [6], "temperature": None},
                "bound": 2.5,
                "bound_source": "public",
            },
            {
                "tap": {"name": "attention", "kind": "attention", "shape": [2, 3]}
                | {"temperature": None},
                "bound": 1.0,
                "bound_source": "by construction",
            },
        ],
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    public = public_teacher(RehearsalOptions(like=tmp_path))
    assert isinstance(public, PublicTeacher)
    assert (public.teachers, public.mode) == (30, "ensemble")
    assert public.taps == (
        PublicTap("hint", "hint", (6,), 2.5, None),
        PublicTap("attention", "attention", (2, 3), 1.0, None),
    )
    answers = SyntheticTeacher(public, 0).answers(samples_of(Case.AXIS, 2))
    assert answers["attention"].shape == (30, 2, 2, 3)
    # A private data set's id has a slash: it is never taken for a rehearsal's.
    assert public.dataset == "rehearsal"
    assert SIGMA == 2**20
