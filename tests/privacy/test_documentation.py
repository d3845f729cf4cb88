"""docs/privacy: what it names exists, and the figures that follow from code are what it gives."""

import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from privacy import composition, gaussian
from privacy.accounting import SIGMA
from privacy.audit.published import published_epsilon
from privacy.budget import MAX_DRAWS, open_plan
from privacy.composition import DpSgdRun
from privacy.noise import DiscreteGaussian, noise_delta
from privacy.promise import Adjacency
from privacy.secret_stream import BYTES_PER_KEY

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "privacy").glob("*.md"))
MODULES = {path.stem for path in (ROOT / "privacy").glob("*.py")} - {"__init__"}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def text_of(name: str) -> str:
    return (ROOT / "docs" / "privacy" / name).read_text(encoding="utf-8")


def number(cell: str) -> float:
    """A table's cell: "1,000", "0.05" or "10⁻⁵"."""
    plain = cell.strip().replace(",", "")
    power = re.fullmatch(r"10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", plain)
    return 10.0 ** int(power[1].translate(SUPERSCRIPTS)) if power else float(plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_function_test_and_link_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = 0
    for dotted in re.findall(r"`(?:privacy\.)?([a-z_]+(?:\.\w+)+)(?:\([^`]*\))?`", text):
        module, *names = dotted.split(".")
        if module == "audit":
            module, names = f"audit.{names[0]}", names[1:]
        elif module not in MODULES or names == ["py"]:
            continue
        value = importlib.import_module(f"privacy.{module}")
        for name in names:
            assert hasattr(value, name), f"{page.name} names {dotted}"
            value = getattr(value, name)
        found += 1
    for path in re.findall(r"`((?:tests|privacy|benchmarks|teacher_server)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
        found += 1
    for path in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / path).exists(), f"{page.name} links to {path}"
        found += 1
    assert found


def test_both_figures_of_every_row_about_the_published_accounting() -> None:
    rows = re.findall(r"^\| ([\d,]+) \|(.+)\|$", text_of("published-accounting.md"), re.MULTILINE)
    assert len(rows) == 5
    for answers, rest in rows:
        noise, rate, delta, claimed, sound = map(number, rest.split("|"))
        pair = published_epsilon(noise, rate, int(number(answers)), delta)
        assert pair.claimed == pytest.approx(claimed, abs=6e-4)
        assert pair.sound == pytest.approx(sound, abs=6e-4)
        assert pair.label == "as published, not a guarantee"


def test_the_published_figure_by_renyi_accounting() -> None:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    step = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(20.0))
    accountant.compose(step, 1000)
    assert f"{accountant.get_epsilon(1e-5):.3f} by Rényi" in text_of("published-accounting.md")


def test_how_often_an_attacker_of_the_published_accounting_is_right() -> None:
    """Two equally likely contents: (1 + TV)/2, where TV is δ(0), or (e^ε − 1 + 2δ)/(e^ε + 1)."""
    claimed = published_epsilon(20.0, 0.1, 1000, 1e-5).claimed
    allowed = 0.5 + (math.expm1(claimed) + 2e-5) / (math.exp(claimed) + 1.0) / 2.0
    reached = 0.5 + gaussian.delta(0.0, math.sqrt(1000) / 20) / 2.0
    text = " ".join(text_of("published-accounting.md").split())
    assert f"right more than {allowed:.0%}".replace("%", " %") in text
    assert f"this one is right {reached:.0%}".replace("%", " %") in text


def test_the_check_values_of_the_proof() -> None:
    text = " ".join(text_of("promise.md").split())
    mus = [gaussian.mu(epsilon, 1e-5) for epsilon in (1.0, 2.0, 4.0, 8.0)]
    assert "μ = " + ", ".join(f"{mu:.4g}" for mu in mus) in text
    aside = [
        open_plan(epsilon, 1e-5, draws=2**20, closeness=DiscreteGaussian.closeness).mu_max
        for epsilon in (1.0, 2.0, 4.0, 8.0)
    ]
    assert "set aside: " + ", ".join(f"{mu:.4f}" for mu in aside) in text
    for delta, mu, said in (
        (1e-5, math.sqrt(1000) / 20, "A thousand answers at σ/Δ = 20: ε = {:.3f}"),
        (1e-5, math.sqrt(10_000) / 100, "Ten thousand at 100: {:.3f}"),
        (1e-6, math.sqrt(60_000) / 500, "60,000 at 500: {:.3f}"),
        (1e-5, math.sqrt(1000 * (1 / 1600 + 1 / 3600)), "a thousand of each: {:.3f}"),
    ):
        assert said.format(gaussian.epsilon(delta, mu)) in text
    run = DpSgdRun(0.00512, 1.0, 2000)
    added = composition.epsilon([run], 0.0, 1e-5, Adjacency.ADD_REMOVE)
    replaced = composition.epsilon([run], 0.0, 1e-5)
    both = composition.epsilon([run], 1.0, 1e-5)
    assert f"{added:.3f} under add/remove, {replaced:.3f} under replace-one" in text
    assert f"answers of μ = 1 on top, {both:.3f}" in text


def test_why_closeness_has_two_parameters() -> None:
    """Total variation between the discrete and the rounded Gaussian, summed out at σ = 20."""
    sigma = 20.0
    points = np.arange(-300, 301)
    discrete = norm.pdf(points, scale=sigma)
    rounded = norm.cdf(points + 0.5, scale=sigma) - norm.cdf(points - 0.5, scale=sigma)
    distance = np.abs(discrete / discrete.sum() - rounded).sum() / 2.0
    constant = norm.pdf(1.0) / 12.0
    assert distance * sigma**2 == pytest.approx(constant, rel=1e-3)
    text = " ".join(text_of("promise.md").split())
    assert f"τ ≈ φ(1)/(12σ²) ≈ {constant:.4f}/σ² ≈ 2⁻⁴⁵·⁶" in text
    tau = constant / SIGMA**2
    assert math.log2(tau) == pytest.approx(-45.6, abs=0.05)
    assert noise_delta(2**20, 4.0, tau) == pytest.approx(1e-5 / 9.0, rel=0.05)
    assert noise_delta(2**20, 6.2, tau) < 1e-5 < noise_delta(2**20, 6.3, tau)


def test_what_the_cipher_costs_over_the_life_of_a_ledger() -> None:
    """n blocks of one key are pairwise different: advantage n(n − 1)/2 · 2⁻¹²⁸."""
    blocks = BYTES_PER_KEY // 16 + 2
    a_key = blocks * (blocks - 1) / 2 * 2.0**-128
    keys = MAX_DRAWS * 8 / 0.9969 / BYTES_PER_KEY
    assert a_key < 2.0**-102
    assert keys < 65 * 2**20
    assert 65 * 2**20 * 2.0**-102 < 2.0**-75
    assert (1.0 + math.exp(8.0)) * 2.0**-75 < 2.0**-63
    text = " ".join(text_of("noise.md").split())
    assert MAX_DRAWS == 2**40
    assert "2⁴⁰ draws that a ledger allows by default take 65·2²⁰ such keys" in text
    assert "< 2⁻⁷⁵" in text
    assert "less than 2⁻⁶³ at ε = 8" in text
