"""The posterior mean of clean probabilities under the published noise.

Model: y = p + σ·n, n standard normal in each class, σ as published. Prior: p is drawn from one of
three symmetric Dirichlet distributions, chosen with equal chance; the sums of their parameters,
`CONCENTRATIONS`, reach from nearly one-hot answers to nearly uniform ones. The prior is public, and
the same for every teacher: nothing is fitted to the answers.

The mean is exact up to a lattice. Under a Dirichlet prior the posterior is a product of
one-dimensional densities f_c(t) ∝ t^(α−1)·exp(−(y_c − t)²/2σ²), conditioned on Σ_c t_c = 1. With
F_c the characteristic function of f_c, the probability of that condition is the inverse transform
of Π_c F_c at 1; with t·f_c in place of f_c that transform is E[p_c] times it. Tilting every f_c by
exp(θt) changes no mean, as Σ_c t_c is given; θ is chosen so that the sum is likely to be 1, and
numbers stay in reach (the saddle point of Daniels 1954).
"""

import math

import torch
from torch import Tensor

from ktan.denoising.simplex import project_to_simplex, simplex_threshold

CONCENTRATIONS = (0.1, 1.0, 10.0)
"""Of the prior's Dirichlet distributions: α times the number of classes."""

_SMALLEST_NOISE = 1 / 64
_COARSEST = 32
_DAMPING = 10.0
"""In nats: sums of 3, 5, ..., which the transform takes for 1, are damped twice as much."""
_ELEMENTS = 2_000_000
"""Numbers in the largest intermediate tensor; more answers are treated in portions."""


def posterior_mean(answers: Tensor, noise_sd: float) -> Tensor:
    """E[p | y] for each of `answers` float [..., classes], in its dtype, on its device.

    Points of the simplex, and equivariant under a permutation of the classes. The projection onto
    the simplex where `noise_sd` is under 1/64 (there is little left to gain) or there is one
    class.
    """
    classes = answers.shape[-1]
    if noise_sd < _SMALLEST_NOISE or classes == 1:
        return project_to_simplex(answers)
    # A common shift of a row is a tilt: the same posterior, in numbers that need little more of it.
    rows = answers.reshape(-1, classes).double()
    rows = rows - simplex_threshold(rows)
    steps = max(_COARSEST, math.ceil(4 / noise_sd))
    portion = max(1, _ELEMENTS // (len(CONCENTRATIONS) * classes * (steps + 1)))
    found = [_means(part, noise_sd, steps) for part in torch.split(rows, portion)]
    return torch.cat(found).reshape(answers.shape).to(answers.dtype)


def _means(rows: Tensor, noise_sd: float, steps: int) -> Tensor:
    """The means of rows [n, classes] on the lattice 0, 1/steps, ..., 1."""
    classes = rows.shape[1]
    alphas = [total / classes for total in CONCENTRATIONS]
    lattice = torch.arange(steps + 1, dtype=torch.float64) / steps
    prior = torch.stack([_masses(alpha, steps).log() for alpha in alphas])
    lattice, prior = lattice.to(rows.device), prior.to(rows.device)
    # [distributions, n, classes, lattice], as are all tensors below.
    logs = prior[:, None, None] - (rows[..., None] - lattice) ** 2 / (2 * noise_sd**2)
    tilt = _tilt(logs, lattice, noise_sd) - _DAMPING
    logs = logs + tilt[..., None, None] * lattice
    size = torch.logsumexp(logs, dim=-1)
    density = (logs - size[..., None]).exp()

    length = 2 * steps
    transforms = torch.fft.rfft(density, n=length)
    before = transforms.cumprod(dim=2).roll(1, dims=2)
    after = transforms.flip(2).cumprod(dim=2).roll(1, dims=2)
    before[:, :, 0] = 1
    after[:, :, 0] = 1
    others = before * after.flip(2)
    # The coefficient at `steps` of a real sequence, from the first half of its transform.
    signs = torch.ones(steps + 1, dtype=torch.float64, device=rows.device)
    signs[1:steps] = 2
    signs[1::2] *= -1
    chance = (others[:, :, 0] * transforms[:, :, 0]).real @ signs
    firsts = (others * torch.fft.rfft(density * lattice, n=length)).real @ signs
    # Where rounding leaves no chance, another distribution explains the answer far better.
    possible = chance > 1e-12 * length
    chance = torch.where(possible, chance, 1.0)
    means = torch.where(possible[..., None], firsts / chance[..., None], 0.0).clamp(min=0)

    norms = [math.lgamma(a * classes) - classes * math.lgamma(a) for a in alphas]
    evidence = size.sum(dim=-1) - tilt + chance.log()
    evidence = evidence + torch.tensor(norms, dtype=torch.float64).to(rows.device)[:, None]
    evidence = torch.where(possible, evidence, -1e300)
    mean = (torch.softmax(evidence, dim=0)[..., None] * means).sum(dim=0)
    total = mean.sum(dim=-1, keepdim=True)
    return torch.where(total > 0.5, mean / total, rows.clamp(min=0))


def _masses(alpha: float, steps: int) -> Tensor:
    """The density t^(α−1) as masses at the lattice's points, float64 [steps + 1].

    Each interval's mass is divided between its ends so that its mean is kept, by the closed forms
    of ∫t^(α−1) and ∫t^α: the singularity at 0 costs no accuracy.
    """
    ends = torch.arange(steps + 2, dtype=torch.float64) / steps
    mass = (ends**alpha / alpha).diff()
    first = (ends ** (alpha + 1) / (alpha + 1)).diff()
    masses = (ends[1:] * mass - first) * steps
    masses[1:] += ((first - ends[:-1] * mass) * steps)[:-1]
    return masses


def _tilt(logs: Tensor, lattice: Tensor, noise_sd: float) -> Tensor:
    """θ [distributions, n] at which the expected sum is at most 1, and near it; by bisection."""
    span = 1 / noise_sd**2 + 2 * max(CONCENTRATIONS) + 40
    low = torch.full(logs.shape[:2], -span, dtype=torch.float64, device=logs.device)
    high = -low
    logs, points = logs.float(), lattice.float()
    # An error of dθ costs at most classes·dθ nats of the condition's probability.
    for _ in range(math.ceil(math.log2(2 * span * logs.shape[2] / 5))):
        middle = (low + high) / 2
        tilted = logs + middle.float()[..., None, None] * points
        over = (torch.softmax(tilted, dim=-1) @ points).sum(dim=-1) > 1
        high = torch.where(over, middle, high)
        low = torch.where(over, low, middle)
    return low
