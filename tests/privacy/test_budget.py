"""The plan: one promise for training, answers and the generator's error together."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import composition, gaussian
from privacy.accounting import budget_units
from privacy.budget import (
    MAX_DRAWS,
    BudgetPlan,
    open_plan,
    settle_draws,
    spent_epsilon,
    verify_plan,
)
from privacy.composition import DpSgdRun
from privacy.errors import InvalidPlan
from privacy.noise import (
    Closeness,
    DiscreteGaussian,
    RoundedGaussian,
    noise_delta,
    noise_epsilon,
)

RUN = DpSgdRun(0.05, 8.0, 200)


@pytest.fixture(scope="module")
def shared_plan() -> BudgetPlan:
    """Training and answers under ε = 4."""
    return open_plan(4.0, 1e-5, unit="person", training=[RUN])


def real_delta(plan: BudgetPlan, ideal_epsilon: float) -> float:
    """δ of everything with real noise at ideal_epsilon + 2nη, written out from the statement."""
    whole = ideal_epsilon + noise_epsilon(plan.draws, plan.closeness.eta)
    ideal = composition.delta(plan.training, plan.mu_max, ideal_epsilon)
    inflated = math.exp(plan.draws * plan.closeness.eta) * ideal
    return inflated + noise_delta(plan.draws, whole, plan.closeness.tau)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.1, 100.0), st.floats(-12.0, -2.0))
def test_a_plan_keeps_its_promise_and_wastes_little(epsilon: float, log_delta: float) -> None:
    delta = 10.0**log_delta
    plan = open_plan(epsilon, delta)
    ideal = epsilon - noise_epsilon(plan.draws, plan.closeness.eta)
    assert real_delta(plan, ideal) <= delta * (1 + 1e-9)
    assert plan.mu_max > 0.98 * gaussian.mu(epsilon, delta)
    assert epsilon * (1 - 1e-6) <= spent_epsilon(plan, plan.answer_units) <= epsilon
    verify_plan(plan)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_the_generators_share_is_in_the_fourth_decimal(epsilon: float) -> None:
    """DESIGN's μ at δ = 1e-5, less what the default limit on draws costs."""
    ideal = {1.0: 0.2681, 2.0: 0.5016, 4.0: 0.9249, 8.0: 1.666}[epsilon]
    plan = open_plan(epsilon, 1e-5)
    assert plan.draws == MAX_DRAWS
    assert plan.mu_max == pytest.approx(ideal, abs=5e-4)
    assert open_plan(epsilon, 1e-5, draws=1).answer_units == pytest.approx(
        budget_units(gaussian.mu(epsilon, 1e-5)), rel=1e-8
    )


def test_training_and_answers_share_one_promise(shared_plan: BudgetPlan) -> None:
    plan = shared_plan
    assert 0 < plan.mu_max < open_plan(4.0, 1e-5).mu_max
    assert real_delta(plan, 4.0 - noise_epsilon(plan.draws, plan.closeness.eta)) <= 1e-5 * (
        1 + 1e-9
    )
    spent = spent_epsilon(plan, plan.answer_units)
    assert 4.0 * (1 - 1e-4) < spent <= 4.0
    verify_plan(plan)


def test_training_alone_may_use_everything() -> None:
    draws, left = settle_draws(2.0, 1e-5, 0)
    sigma = composition.noise_multiplier(2.0, left, 0.05, 200)
    plan = open_plan(2.0, 1e-5, draws=draws, training=[DpSgdRun(0.05, sigma, 200)])
    assert (plan.answer_units, plan.draws) == (0, 0)
    assert 2.0 * (1 - 1e-3) < spent_epsilon(plan, 0) <= 2.0
    verify_plan(plan)


def test_training_beyond_the_promise_is_refused() -> None:
    with pytest.raises(InvalidPlan, match="raise their noise multiplier"):
        open_plan(0.5, 1e-5, training=[RUN])


def test_spending_grows_and_never_reads_below_the_exact_curve(shared_plan: BudgetPlan) -> None:
    for plan in (open_plan(4.0, 1e-5), shared_plan):
        steps = [plan.answer_units * part // 10 for part in range(11)]
        spent = [spent_epsilon(plan, units) for units in steps]
        assert spent == sorted(spent)
        target = plan.ideal_target[1]
        for units, shown in list(zip(steps, spent, strict=True))[::5]:
            mu = math.sqrt(units) / 2**20
            assert shown >= composition.epsilon(plan.training, mu, target) - 1e-9
    assert spent_epsilon(open_plan(4.0, 1e-5), 0) == 0.0


def test_a_plan_that_promises_too_much_is_shown_as_it_is(shared_plan: BudgetPlan) -> None:
    """No cap hides an excess: only rounding, a billionth of ε, is taken for ε."""
    for plan in (open_plan(4.0, 1e-5), shared_plan):
        more = plan.answer_units * 1001 // 1000
        assert spent_epsilon(replace(plan, answer_units=more), more) > plan.epsilon
        assert spent_epsilon(plan, more) > plan.epsilon
        assert spent_epsilon(plan, plan.answer_units) <= plan.epsilon


def test_draws_are_limited_by_what_they_cost() -> None:
    assert settle_draws(4.0, 1e-5)[0] == MAX_DRAWS
    discrete = DiscreteGaussian.closeness
    # At most a thousandth of ε: 2 · 2²³ · 2⁻³² of 4.
    assert settle_draws(4.0, 1e-5, closeness=discrete)[0] == 2**23
    assert settle_draws(1e-3, 1e-5, closeness=discrete)[0] == 2**11
    with pytest.raises(InvalidPlan, match="allow fewer draws"):
        settle_draws(1e-3, 1e-5, 2**21, discrete)
    with pytest.raises(InvalidPlan, match="allow fewer draws"):
        settle_draws(700.0, 1e-5, 100)
    assert open_plan(500.0, 1e-5).mu_max == pytest.approx(27.67, abs=0.01)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_an_impossible_promise_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidPlan):
        open_plan(epsilon, delta)


def test_a_plan_that_promises_too_much_does_not_verify(shared_plan: BudgetPlan) -> None:
    for plan in (open_plan(4.0, 1e-5), shared_plan):
        with pytest.raises(InvalidPlan, match="need δ"):
            verify_plan(replace(plan, answer_units=plan.answer_units * 101 // 100))
        with pytest.raises(InvalidPlan):
            verify_plan(replace(plan, epsilon=3.9))
    with pytest.raises(InvalidPlan):
        verify_plan(replace(open_plan(4.0, 1e-5), draws=0))


def test_the_plan_knows_which_noise_it_covers() -> None:
    discrete = DiscreteGaussian()
    eta, tau = discrete.closeness.eta, discrete.closeness.tau
    plan = open_plan(4.0, 1e-5, closeness=discrete.closeness)
    assert plan.covers(discrete)
    assert not replace(plan, closeness=Closeness(eta / 2, tau)).covers(discrete)
    assert not replace(plan, closeness=Closeness(eta, 0.0)).covers(discrete)


def test_a_source_that_errs_more_leaves_a_smaller_answering_budget() -> None:
    exact = open_plan(0.5, 1e-5, draws=2**20, closeness=Closeness(0.0, 0.0))
    coarse = open_plan(0.5, 1e-5, draws=2**20, closeness=DiscreteGaussian.closeness)
    assert coarse.answer_units < exact.answer_units
    assert exact.ideal_target == (0.5, 1e-5)


def test_json_round_trip(shared_plan: BudgetPlan) -> None:
    assert BudgetPlan.from_json(json.loads(json.dumps(shared_plan.to_json()))) == shared_plan
    assert "person" in shared_plan.promise.sentence()


def test_a_plan_written_before_the_rounded_gaussian_reads_and_covers_it() -> None:
    """Older ledgers set aside what OpenDP's sampler costs: either sampler may serve them."""
    old = {
        "epsilon": 4.0,
        "delta": 1e-5,
        "unit": "record",
        "answer_units": 940_000_000_000,
        "draws": 2**20,
        "training": [],
        "eta": 2.0**-32,
        "tau": 2.0**-900,
    }
    plan = BudgetPlan.from_json(old)
    assert plan.to_json() == old
    assert plan.covers(DiscreteGaussian())
    assert plan.covers(RoundedGaussian())
    assert not open_plan(4.0, 1e-5).covers(DiscreteGaussian())
    verify_plan(plan)
