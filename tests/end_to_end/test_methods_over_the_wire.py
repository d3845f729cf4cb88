"""Every method that a service can serve is taught by one, through the commands' own code.

Two services on one host, each with a real ledger: a DP-SGD teacher with all it may serve whole and
free, and an ensemble with what of it has a mean. The methods are those that the folder has.
"""

import asyncio
import contextlib
import dataclasses
import io
import json
import sys
import threading

import pytest
import torch

from ktan.answers import AnswerStore
from ktan.data import DataSource, SplitRecipe, split
from ktan.methods import METHODS
from ktan.methods.needs import missing
from ktan.teachers import TeacherModels
from privacy.budget import open_plan
from privacy.composition import DpSgdRun
from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, source
from student_client import cli, results
from student_client.connection import Connection
from student_client.remote import RemoteTeacher
from teacher_server.answering import Answerer
from teacher_server.listening import Transport
from teacher_server.menu import build_menu
from teacher_server.offers import answer_tap, method_offers
from teacher_server.public_teacher import PublicTeacher
from teacher_server.running import describe
from teacher_server.server import serve
from teacher_server.trained_teacher import TrainedTeacher
from teacher_server.training import Custody, TeacherOptions, train_teacher

QUERIES = 20
SPLIT = {"private": 160, "labelled": 30, "unlabelled": 60, "test": 20}
FIRST, LAST = "features.1", "features.3"
RICH = (
    "probabilities", "logits", f"hint={FIRST}:map", f"hint={LAST}:map", f"signs={FIRST}.input",
    f"attention={LAST}", f"products={FIRST},{LAST}",
)  # fmt: skip
REDUCED = ("probabilities", "hint=features:4", f"attention={LAST}:4", f"products={FIRST},{LAST}:8")
ASKING = [name for name, kind in METHODS.items() if kind().needs]


@dataclasses.dataclass(frozen=True)
class Served:
    """A service of one mode."""

    mode: str
    address: str
    ledger: Ledger
    menu: tuple

    @property
    def spent(self):
        return self.ledger.budget(None).spent

    @property
    def offers(self):
        return {offer.name: offer for offer in method_offers(self.menu)}


@pytest.fixture(scope="module", params=["dp-sgd", "ensemble"])
def served(request, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    public, teacher = trained(request.param, folder)
    # So large a budget that the noise, secret and new in each run, decides nothing.
    with Ledger.create(
        folder / "ledger",
        dataset_id="stand-in",
        plan=open_plan(200.0, 1e-5),
        witness=folder / "elsewhere" / "head.json",
    ) as ledger:
        menu = build_menu(public, ledger.plan.answer_units, 200, {})
        face = describe(public, menu, 256, method_offers(menu))
        answerer = Answerer(teacher, public.version, menu, ledger, source(DEFAULT_NOISE))
        with in_a_thread(face, answerer, ledger) as address:
            yield Served(request.param, address, ledger, menu)
    torch.set_num_threads(threads)


def trained(mode, folder):
    """A tiny teacher's public face, and the teacher."""
    dataset = DataSource("fake", folder / "data", size=300).load()
    run = DpSgdRun(sample_rate=0.1, noise_multiplier=1.0, steps=2)
    plan = dataclasses.replace(open_plan(200.0, 1e-5), training=(run,))
    options = TeacherOptions(
        mode=mode,
        teachers=3,
        epochs=1,
        reference_steps=5,
        augment="none",
        taps=RICH if mode == "dp-sgd" else REDUCED,
        network_set=("channels=[4,8]", "width=8"),
        device="cpu",
    )
    card = train_teacher(
        dataset,
        split(dataset, SplitRecipe(**SPLIT)),
        options,
        folder / "teacher",
        Custody("ab" * 16, plan, run, lambda *_: None, lambda _: "mac"),
        progress=False,
    )
    models = TeacherModels.load(folder / "teacher", "cpu")
    return PublicTeacher.of_card(card.to_json()), TrainedTeacher(models)


@contextlib.contextmanager
def in_a_thread(face, answerer, ledger):
    """Serves until the block ends; gives the address."""
    ready, control = threading.Event(), {}

    async def run():
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        control["stop"] = lambda: loop.call_soon_threadsafe(stop.set)

        def on_ready(address):
            control["address"] = address
            ready.set()

        transport = Transport("127.0.0.1:0", None, False, 1024, 5.0)
        await serve(face, answerer, ledger, transport, on_ready, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(120)
    try:
        yield control["address"]
    finally:
        control["stop"]()
        thread.join(120)


@pytest.fixture
def train(served, tmp_path, monkeypatch, capfd):
    """`student-client train` of a tiny student; exit code, result, and what it said of errors."""

    def run(method, steps):
        data = [f"--{name}={value}" for name, value in SPLIT.items()]
        arguments = [
            "train", served.address, "--plaintext", "--dataset", "fake", "--size", "300", *data,
            "--data-root", tmp_path / "data", "--queries", QUERIES, "--steps", steps,
            "--labelled-batch", "8", "--answered-batch", "8", "--method", method, "--yes", "--json",
            "--network-set", "channels=[4,8]", "--network-set", "width=8",
            "--out", tmp_path / "run",
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["student-client", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        # The picture takes longer than the training, and is drawn in other tests.
        monkeypatch.setattr(results, "plot_curves", lambda *_: None)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return code, json.loads(out) if code == 0 else None, err

    return run


@pytest.mark.parametrize("method", ASKING)
def test_a_service_teaches_each_method_or_it_is_refused_before_it_costs(
    served, train, method, tmp_path
):
    before = served.spent
    kind = METHODS[method]
    taps = {tap.name: answer_tap(tap) for tap in served.menu}
    lacking = missing(kind().needs, taps)
    # Stages of a schedule of one's own need steps each.
    code, result, err = train(method, 120 if hasattr(kind(), "rounds") else 8)
    offer = served.offers.get(method)
    if lacking:
        assert offer is None
        assert (code, served.spent) == (2, before)
        assert all(text in err for text in lacking)
        return
    assert code == 0, err
    assert offer is not None
    store = AnswerStore.open(tmp_path / "run" / "answers")
    assert len(store) == QUERIES
    # It holds the offered taps of every sample, and no other tap of any.
    digests = store.digests()
    assert not store.missing(digests, offer.taps).any()
    for name in taps.keys() - set(offer.taps):
        assert store.missing(digests, [name]).all()
    charges = [receipt["charge"] for receipt in store.receipts()]
    assert served.spent - before == sum(charges) <= QUERIES * offer.charge
    assert result["answers"]["samples"] == QUERIES
    curves = result["last"]
    assert curves
    assert all(torch.isfinite(torch.tensor(float(value))) for value in curves.values())


def test_too_few_steps_are_refused_before_anything_is_paid(served, train):
    before = served.spent
    code, _, err = train("rona", 8)
    assert (code, served.spent) == (2, before)
    assert "8 steps leave none for the stage" in err


def test_both_services_together_teach_every_method():
    """Whatever a method needs is on one of the two menus."""
    taught = set()
    for mode, texts in (("dp-sgd", RICH), ("ensemble", REDUCED)):
        kinds = {text.partition("=")[0] for text in texts}
        maps = sum(text.endswith(":map") for text in texts) if mode == "dp-sgd" else 0
        have = kinds | ({"response"} if kinds & {"probabilities", "logits"} else set())
        for name in ASKING:
            needs = METHODS[name]().needs
            if all(
                need.optional or need.kind in have or (need.kind == "maps" and maps >= need.least)
                for need in needs
            ):
                taught.add(name)
    assert taught == set(ASKING)


def test_describe_offers_what_the_client_finds_itself(served):
    with RemoteTeacher(served.address, Connection(plaintext=True)) as teacher:
        description = teacher.describe()
    taps = {tap.name: tap for tap in description.answer_taps}
    found = {offer.name: offer for offer in description.offers}
    assert {name for name in ASKING if not missing(METHODS[name]().needs, taps)} == found.keys()
    for name, offer in found.items():
        assert (offer.charge, offer.taps) == (served.offers[name].charge, served.offers[name].taps)
    if served.mode == "dp-sgd":
        assert {offer.charge for offer in found.values()} == {0}
        assert found.keys() >= {"ab", "at", "fsp", "kd-svd", "soft-logits", "ktan"}
    else:
        assert all(offer.charge > 0 for offer in found.values())
        assert found.keys() >= {"at", "fsp", "soft-logits", "ktan"}
        assert found["at"].charge < description.charge
