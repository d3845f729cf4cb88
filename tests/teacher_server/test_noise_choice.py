"""The sampler is chosen when a ledger is opened; a service may only be closer to the law."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from ktan.data import DataSource
from ktan.errors import UserError
from privacy.budget import BudgetPlan, open_plan
from privacy.noise import NoiseName, closeness
from teacher_server import serving
from teacher_server.opening import PlanOptions, build_plan
from teacher_server.options import ServeOptions

ROUNDED: NoiseName = "rounded-gaussian"
DISCRETE: NoiseName = "opendp-discrete-gaussian"


@pytest.mark.parametrize("training", [None, 1.0])
@pytest.mark.parametrize("name", [ROUNDED, DISCRETE])
def test_a_new_ledger_sets_aside_what_its_sampler_costs(
    training: float | None, name: NoiseName
) -> None:
    dataset = DataSource("fake").load()
    options = PlanOptions(2.0, training_epsilon=training, batch_size=50, epochs=1.0, noise=name)
    plan = build_plan(options, dataset, 500)
    assert plan.closeness == closeness(name)
    assert bool(plan.training) == (training is not None)
    # The exact sampler costs nothing of ε.
    assert (plan.ideal_target[0] == 2.0) == (name == ROUNDED)


@dataclass(frozen=True)
class StandIn:
    """As much of a ledger as the choice of the sampler needs."""

    plan: BudgetPlan
    ledger_id: str = "one"
    rolled_back: str | None = None
    mac: object = None


@pytest.mark.parametrize(
    ("opened", "served", "fits"),
    [
        (ROUNDED, ROUNDED, True),
        (DISCRETE, DISCRETE, True),
        (DISCRETE, ROUNDED, True),
        (ROUNDED, DISCRETE, False),
    ],
)
def test_what_the_plan_does_not_cover_is_not_served(
    opened: NoiseName, served: NoiseName, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def beyond(*arguments: object) -> None:
        raise Reached

    card = SimpleNamespace(ledger_id="one", mode="ensemble", version="1", to_json=dict)
    ledger = StandIn(open_plan(4.0, 1e-5, closeness=closeness(opened)))
    monkeypatch.setattr(serving, "TeacherCard", SimpleNamespace(read=lambda folder: card))
    monkeypatch.setattr(serving, "reopen_ledger", lambda *a, **k: nullcontext(ledger))
    monkeypatch.setattr(serving, "verify_folder", lambda folder, mac: None)
    monkeypatch.setattr(serving, "build_menu", beyond)
    monkeypatch.setattr(serving, "PublicTeacher", SimpleNamespace(of_card=lambda value: None))
    anywhere = Path("anywhere")
    arguments = (anywhere, anywhere, None, None, ServeOptions(plaintext=True), "cpu", served, print)
    if fits:
        with pytest.raises(Reached):
            serving.run_service(*arguments)
    else:
        with pytest.raises(UserError, match=r"errs more .*serve with --noise rounded-gaussian"):
            serving.run_service(*arguments)
