import sys
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.stats import beta

from ktan import spool
from ktan.denoising import (
    Denoising,
    Shrinkage,
    denoise,
    known,
    posterior_mean,
    project_to_simplex,
)
from ktan.denoising.posterior import CONCENTRATIONS
from ktan.errors import UserError

VECTORS = arrays(np.float64, (3, 6), elements=st.floats(-5, 5, width=32))


@given(VECTORS)
def test_projection_is_on_the_simplex_and_leaves_its_points_alone(vectors: np.ndarray) -> None:
    found = project_to_simplex(torch.tensor(vectors))
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3).double())
    torch.testing.assert_close(project_to_simplex(found), found)


@given(VECTORS, VECTORS)
def test_no_point_of_the_simplex_is_nearer(vectors: np.ndarray, others: np.ndarray) -> None:
    """The variational inequality that characterises a projection onto a convex set."""
    given_, found = torch.tensor(vectors), project_to_simplex(torch.tensor(vectors))
    other = torch.softmax(torch.tensor(others), dim=1)
    assert (((given_ - found) * (other - found)).sum(dim=1) <= 1e-9).all()


@settings(max_examples=10, deadline=None)
@given(arrays(np.float64, 5, elements=st.floats(-2, 2, width=32)))
def test_projection_agrees_with_a_general_solver(vector: np.ndarray) -> None:
    solved = minimize(
        lambda p: ((p - vector) ** 2).sum(),
        np.full(5, 0.2),
        jac=lambda p: 2 * (p - vector),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(5)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    found = project_to_simplex(torch.tensor(vector)).numpy()
    np.testing.assert_allclose(found, solved.x, atol=1e-5)


def test_projection_never_moves_away_from_the_clean_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.softmax(3 * torch.randn(500, 10, generator=generator), dim=1)
    noisy = clean + 0.13 * torch.randn(500, 10, generator=generator)
    before = (noisy - clean).norm(dim=1)
    after = (denoise(noisy, "simplex") - clean).norm(dim=1)
    assert (after <= before + 1e-6).all()
    assert after.mean() < 0.7 * before.mean()
    assert denoise(noisy, "none") is noisy


def brute_force(answer: np.ndarray, noise_sd: float) -> np.ndarray:
    """The posterior mean of three classes over 1,000 x 1,000 equally likely points of each prior.

    p1 is Beta(α, 2α), and p2's share of the rest Beta(α, α): the quantiles of both.
    """
    quantiles = (np.arange(1_000) + 0.5) / 1_000
    first, total = np.zeros(3), 0.0
    for concentration in CONCENTRATIONS:
        alpha = concentration / 3
        p1 = beta.ppf(quantiles, alpha, 2 * alpha)[:, None]
        p2 = (1 - p1) * beta.ppf(quantiles, alpha, alpha)
        points = np.stack([np.broadcast_to(p1, p2.shape), p2, 1 - p1 - p2], axis=-1)
        likelihood = np.exp(-((answer - points) ** 2).sum(axis=-1) / (2 * noise_sd**2))
        total += likelihood.mean()
        first += (likelihood[..., None] * points).mean(axis=(0, 1))
    return first / total


@pytest.mark.parametrize("noise_sd", [0.05, 0.13, 0.5, 2.0])
@pytest.mark.parametrize(
    "answer", [[0.8, 0.1, 0.2], [0.3, 0.45, -0.1], [0.33, 0.33, 0.34], [1.2, 0.1, -0.15]]
)
def test_posterior_mean_is_what_numerical_integration_gives(
    answer: list[float], noise_sd: float
) -> None:
    expected = brute_force(np.array(answer), noise_sd)
    found = posterior_mean(torch.tensor(answer, dtype=torch.float64), noise_sd)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def dirichlet(count: int, alpha: list[float], generator: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(generator.dirichlet(alpha, count)).float()


@pytest.mark.parametrize("noise_sd", [0.05, 0.13, 0.3])
def test_posterior_mean_is_nearer_to_clean_answers_than_simplex_and_none(noise_sd: float) -> None:
    """Answers of no prior of ours: sure ones, pairs and vague ones, with unequal classes."""
    generator = np.random.default_rng(0)
    clean = torch.cat(
        [
            dirichlet(200, [20, 1, 0.5, *[0.1] * 7], generator),
            dirichlet(100, [4, 3, *[0.2] * 8], generator),
            dirichlet(100, [0.6] * 10, generator),
        ]
    )
    noise = torch.from_numpy(generator.normal(size=clean.shape)).float()
    noisy = clean + noise_sd * noise
    error = {
        how: ((denoise(noisy, how, noise_sd) - clean) ** 2).sum(dim=1).mean().item()
        for how in get_args(Denoising)
    }
    assert error["posterior"] < 0.95 * error["simplex"]
    assert error["simplex"] < 0.7 * error["none"]


def test_none_is_unbiased_and_the_others_are_not() -> None:
    clean = torch.tensor([0.7, 0.2, 0.05, 0.05])
    noise = 0.2 * torch.randn(2_000, 4, generator=torch.Generator().manual_seed(0))
    noisy = torch.cat([clean + noise, clean - noise])  # antithetic: the noise's mean is 0
    for how, biased in (("none", False), ("simplex", True), ("posterior", True)):
        mean = denoise(noisy, how, 0.2).mean(dim=0)  # type: ignore[arg-type]
        assert ((mean - clean).abs().max() > 0.01) == biased


def test_posterior_mean_is_a_point_of_the_simplex_that_moves_with_its_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.softmax(3 * torch.randn(50, 7, generator=generator), dim=1)
    answers = answers + 0.2 * torch.randn(50, 7, generator=generator)
    found = posterior_mean(answers, 0.2)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(50))
    order = torch.randperm(7, generator=generator)
    torch.testing.assert_close(posterior_mean(answers[:, order], 0.2), found[:, order])
    # Each answer by itself: what is asked beside it, and in which order, changes nothing.
    torch.testing.assert_close(posterior_mean(answers[3:9], 0.2), found[3:9])
    torch.testing.assert_close(posterior_mean(answers.view(5, 10, 7), 0.2), found.view(5, 10, 7))


def test_posterior_mean_goes_from_the_answer_to_the_priors_mean_as_noise_grows() -> None:
    clean = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]])
    assert torch.equal(denoise(clean, "posterior"), denoise(clean, "simplex"))
    torch.testing.assert_close(posterior_mean(clean, 0.0), clean)
    torch.testing.assert_close(posterior_mean(clean, 0.016), clean, rtol=0, atol=0.01)
    torch.testing.assert_close(
        posterior_mean(clean, 100.0), torch.full((3, 3), 1 / 3), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("classes", [1, 2, 100])
def test_posterior_mean_is_finite_for_answers_far_from_the_simplex(classes: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for scale in (0.0, 0.1, 3.0, 1e4):
        answers = scale * torch.randn(4, classes, generator=generator)
        for noise_sd in (0.02, 0.3):
            found = posterior_mean(answers, noise_sd)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.sum(dim=1), torch.ones(4))
    assert posterior_mean(torch.empty(0, classes), 0.1).shape == (0, classes)


@pytest.mark.parametrize("how", get_args(Denoising))
def test_shrinkage_in_training_does_not_depend_on_the_batch_an_answer_comes_in(
    how: Denoising,
) -> None:
    generator = torch.Generator().manual_seed(2)
    answers = torch.softmax(2 * torch.randn(12, 5, generator=generator), dim=1)
    answers = answers + 0.15 * torch.randn(12, 5, generator=generator)
    first, other = Shrinkage(how, 0.15), Shrinkage(how, 0.15)
    found = first(answers)
    torch.testing.assert_close(found, denoise(answers, how, 0.15))
    again = torch.cat([other(answers[part]) for part in (slice(7, 12), slice(0, 7))]).roll(7, 0)
    assert torch.equal(again, found)
    assert torch.equal(first(answers[[3, 3, 5]]), found[[3, 3, 5]])
    assert first(answers[:0]).shape == (0, 5)


def test_means_that_are_looked_up_are_those_that_were_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In blocks of 2, 4, 8 and 16, all of them in files; of several widths, one after another."""
    monkeypatch.setattr(known, "_FIRST", 2)  # so many are in the dictionary at most, too
    monkeypatch.setattr(spool, "LIMIT", 0)
    computed: list[torch.Tensor] = []

    def counted(row: torch.Tensor, noise_sd: float) -> torch.Tensor:
        computed.append(row)
        return posterior_mean(row, noise_sd)

    # The package's function of that name hides the module.
    monkeypatch.setattr(sys.modules[Shrinkage.__module__], "posterior_mean", counted)
    shrink = Shrinkage("posterior", 0.15)
    generator = torch.Generator().manual_seed(2)
    for answers in (
        torch.randn(23, 5, generator=generator),
        torch.randn(3, 4, generator=generator),
        torch.randn(3, 4, generator=generator).double(),
    ):
        computed.clear()
        expected = torch.stack([posterior_mean(row, 0.15) for row in answers])
        for order in (torch.arange(len(answers)), torch.arange(len(answers)).flip(0)):
            found = shrink(answers[order])
            assert found.dtype == answers.dtype
            assert torch.equal(found, expected[order])
        assert len(computed) == len(answers)


def test_rows_stay_found_while_they_are_sorted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_FIRST", 2)
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(3))
    kept, computed = known.Known(rows[0]), 0

    def negative(row: torch.Tensor) -> torch.Tensor:
        nonlocal computed
        computed += 1
        return -row

    for end in range(1, 200, 7):
        # Later rows first, some of them twice in a batch, with rows that came before.
        batch = torch.cat([rows[max(0, end - 9) : end].flip(0), rows[end // 2 : end // 2 + 3]])
        assert torch.equal(kept.values(batch, negative), -batch)
    seen = computed
    assert len(kept) == seen == len(rows[:197].unique(dim=0))
    assert torch.equal(kept.values(rows[:197], negative), -rows[:197])
    assert computed == seen


def test_an_unknown_shrinkage_is_refused() -> None:
    with pytest.raises(UserError, match="none, simplex, posterior"):
        denoise(torch.zeros(1, 3), "median")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none, simplex, posterior"):
        Shrinkage("median", 0.1)  # type: ignore[arg-type]
