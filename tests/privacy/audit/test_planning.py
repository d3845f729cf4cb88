"""The planner: its numbers are the service's, its verdicts are plain."""

import math

import numpy as np
import pytest

from privacy import gaussian
from privacy.audit.answer_model import model_shares, top1_agreement
from privacy.audit.planning import forecast
from privacy.audit.proposal import Forecast, Proposal, TapProposal
from privacy.audit.published import published_epsilon
from privacy.errors import InvalidPlan

LABELS = TapProposal("probabilities", "probabilities", 10, share=0.9)
HINT = TapProposal("hint", "hint", 8, share=0.1)


def demonstration(**changes: object) -> Forecast:
    values = {"epsilon": 4.0, "delta": 1e-5, "queries": 300, "taps": (LABELS, HINT)} | changes
    return forecast(Proposal(**values))  # type: ignore[arg-type]


def test_the_demonstration_is_good_and_says_what_the_hint_is_worth() -> None:
    result = demonstration()
    labels, hint = result.taps
    assert labels.noise_sd == pytest.approx(0.1396, abs=1e-4)
    assert hint.noise_sd == pytest.approx(0.592, abs=1e-3)
    assert hint.noise_norm == pytest.approx(hint.noise_sd * math.sqrt(8))
    assert result.useful
    assert result.verdict.startswith("good for labels only: ")
    assert result.verdict.endswith("the noise of 'hint' is larger than its signal")
    assert any("hint" in advice for advice in result.advice)
    assert result.mu <= result.plan.mu_max
    assert result.mu == pytest.approx(result.plan.mu_max, rel=1e-3)
    assert result.draws_needed == 300 * 18


def test_design_figures_of_a_hint_alone() -> None:
    """DESIGN: k = 200, 300 answers, all of ε = 4: noise norm 0.75 B at 16, 10 B at 3,136."""
    for dimension, norm in ((16, 0.75), (3_136, 10.5)):
        hint = TapProposal("hint", "hint", dimension)
        assert demonstration(taps=(hint,)).taps[0].noise_norm == pytest.approx(norm, rel=0.01)


def test_single_at_small_epsilon_is_useless_because() -> None:
    result = demonstration(mode="single", teachers=1, epsilon=2.0, taps=(LABELS,))
    assert not result.useful
    assert result.verdict.startswith("useless, because noise of sd")
    assert any("ensemble" in advice for advice in result.advice)
    assert result.taps[0].agreement == pytest.approx(0.1, abs=0.02)


def test_single_where_it_could_work_is_no_guarantee() -> None:
    result = demonstration(mode="single", teachers=1, epsilon=500.0, queries=5, taps=(LABELS,))
    assert result.taps[0].agreement > 0.9
    assert any("no meaningful guarantee" in advice for advice in result.advice)


def test_more_teachers_more_epsilon_fewer_queries_agree_more() -> None:
    def agreement(**changes: object) -> float:
        value = demonstration(taps=(LABELS,), **changes).taps[0].agreement
        assert value is not None
        return value

    base = agreement(queries=2000)
    assert agreement(queries=2000, teachers=400) > base + 0.05
    assert agreement(queries=2000, epsilon=8.0) > base + 0.05
    assert agreement(queries=500) > base + 0.05


def test_advice_reaches_what_it_says() -> None:
    proposal = {"queries": 2000, "taps": (LABELS,)}
    advice = " ".join(demonstration(**proposal).advice)
    words = advice.split()
    queries, teachers = (int(words[words.index(w) - 1]) for w in ("queries", "teachers"))
    assert demonstration(**proposal | {"queries": queries}).verdict.startswith("good")
    assert demonstration(**proposal | {"teachers": teachers * 102 // 100}).verdict.startswith(
        "good"
    )


def test_agreement_equals_the_closed_form_for_two_classes() -> None:
    """Two classes at a gap g survive noise sd s with probability Φ(g/(s√2))."""
    clean = np.tile([0.6, 0.4], (200_000, 1))
    same, error = top1_agreement(clean, 0.3, np.random.default_rng(0))
    exact = 0.5 * math.erfc(-0.2 / (0.3 * math.sqrt(2)) / math.sqrt(2))
    assert abs(same - exact) < 6 * error


def test_the_model_reproduces_glyphs() -> None:
    """81 % each, 91 % together: what 200 teachers reached."""
    shares = model_shares(20_000, 10, 200, 0.81, 1.0, np.random.default_rng(0))
    assert shares[:, 0].mean() == pytest.approx(0.81, abs=0.01)
    assert (shares.argmax(axis=1) == 0).mean() == pytest.approx(0.91, abs=0.01)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_measured_shares_replace_the_model() -> None:
    clear = np.eye(10)[np.arange(1000) % 10]
    close = 0.1 + 1e-4 * clear
    assert demonstration().taps[0].agreement < 0.99
    proposal = Proposal(4.0, 1e-5, 300, (LABELS, HINT))
    assert forecast(proposal, clear).taps[0].agreement > 0.999
    assert forecast(proposal, close).taps[0].agreement < 0.2
    assert "were given" in forecast(proposal, clear).model
    with pytest.raises(InvalidPlan, match="measured shares"):
        forecast(proposal, clear[:, :9])


def test_dp_sgd_states_its_noise_under_both_adjacencies() -> None:
    result = demonstration(
        mode="dp-sgd",
        teachers=1,
        epsilon=3.0,
        sample_rate=0.05,
        steps=400,
        records=60_000,
        parameters=27_000,
    )
    training = result.training
    assert training is not None
    assert 2.99 < training.epsilon <= 3.0
    assert training.epsilon_add_remove < training.epsilon
    assert all(tap.signal_to_noise == math.inf for tap in result.taps)
    assert result.useful
    assert "multiplier" in result.verdict


def test_dp_sgd_with_a_huge_network_and_few_records_is_useless() -> None:
    result = demonstration(
        mode="dp-sgd",
        teachers=1,
        epsilon=0.5,
        sample_rate=0.1,
        steps=100,
        records=500,
        parameters=25_000_000,
    )
    assert result.verdict.startswith("useless, because")
    assert not result.useful


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "single"}, "one teacher"),
        ({"mode": "open"}, "mode must be"),
        ({"queries": 0}, "at least 1"),
        ({"taps": ()}, "at least one tap"),
        ({"teacher_accuracy": 0.0}, "teacher_accuracy"),
        ({"mode": "dp-sgd", "teachers": 1}, "--sample-rate"),
        ({"draws": 10}, "consume 5400 noise draws"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": 1e-3, "queries": 10**6}, "ask for fewer answers"),
        ({"taps": (TapProposal("p", "probabilities", 1),)}, "at least 2 classes"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidPlan, match=message):
        demonstration(**changes)


def test_the_published_figure_stands_beside_the_sound_one() -> None:
    """DESIGN: T = 1000, σ/Δ = 20, q = 0.1: claimed 0.56, true 7.51."""
    pair = published_epsilon(20.0, 0.1, 1000, 1e-5)
    assert pair.claimed == pytest.approx(0.563, abs=1e-3)
    assert pair.sound == pytest.approx(7.511, abs=1e-3)
    assert pair.sound == gaussian.epsilon(1e-5, math.sqrt(1000) / 20)
    assert pair.label == "as published, not a guarantee"
