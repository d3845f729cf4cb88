import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from ktan.denoising import denoise, project_to_simplex

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
