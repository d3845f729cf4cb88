"""The checks of the noise against noise that is right and noise that is wrong in one way each.

Seeded here: nothing of this is a service's noise.
"""

import numpy as np
import pytest

from privacy.audit.mechanism.noise_checks import check_noise

BATCH = 256
ALPHA = 1e-8


@pytest.fixture
def right():
    generator = np.random.default_rng(20260101)
    return {"hint": generator.normal(size=(8192, 5)), "logits": generator.normal(size=(8192, 3))}


def failed(residuals):
    return {check.name for check in check_noise(residuals, BATCH, ALPHA) if not check.holds}


def test_right_noise_passes(right):
    assert failed(right) == set()


def test_a_smaller_variance_of_one_tap_is_named(right):
    assert "variance of hint" in failed(right | {"hint": 0.93 * right["hint"]})
    assert "variance of logits" not in failed(right | {"hint": 0.93 * right["hint"]})


def test_another_law_of_the_same_variance_is_seen(right):
    generator = np.random.default_rng(1)
    laplace = generator.laplace(scale=0.5**0.5, size=(8192, 5))
    names = failed(right | {"hint": laplace})
    assert {"law of hint, Kolmogorov-Smirnov", "law of hint, χ²"} <= names


def test_a_mean_that_is_off_in_one_value_is_named(right):
    moved = right["logits"].copy()
    moved[:, 2] += 0.1
    worst = [c for c in check_noise(right | {"logits": moved}, BATCH, ALPHA) if not c.holds]
    assert "worst at logits[2]" in [check.detail for check in worst]


def test_two_taps_that_share_noise_are_named(right):
    shared = right["logits"].copy()
    shared[:, 1] = right["hint"][:, 4]
    checks = check_noise(right | {"logits": shared}, BATCH, ALPHA)
    (found,) = [check for check in checks if not check.holds]
    assert found.name == "dependence of values"
    assert {"hint[4]", "logits[1]"} == set(
        found.detail.removeprefix("worst between ").split(" and ")
    )


@pytest.mark.parametrize(("lag", "name"), [(1, "one sample"), (BATCH, "one request")])
def test_samples_or_requests_that_depend_on_each_other_are_seen(right, lag, name):
    rows = right["hint"].copy()
    rows[lag:] = 0.8 * rows[lag:] + 0.6 * right["hint"][:-lag]
    assert any(f"dependence of {name}" in found for found in failed(right | {"hint": rows}))
