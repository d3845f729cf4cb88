"""`privacy-audit membership` and `canaries`, as an auditor calls them."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from privacy.audit.membership.one_run import epsilon_lower_bound


@pytest.fixture
def gaussians(tmp_path):
    """A file of scores N(2, 1) and N(0, 1), 40,000 each."""
    generator = np.random.default_rng(31)
    path = tmp_path / "scores.npz"
    np.savez(
        path, members=generator.normal(2.0, size=40_000), non_members=generator.normal(size=40_000)
    )
    return path


def test_scores_within_the_claim_stand_and_scores_beyond_it_refute_it(run, gaussians) -> None:
    """μ = 2 is (10, 1e-5)-DP nearly (ε = 10.2), and far from (2, 1e-5)-DP."""
    code, out, err = run("membership", gaussians, "--epsilon", 10.5, "--mu", 2.2, "--json")
    report = json.loads(out)
    assert (code, err, report["exceeds"]) == (0, "", False)
    hundredth = report["rows"][1]
    assert hundredth["rate"] == 1e-2
    assert hundredth["cap"] == pytest.approx(norm.cdf(norm.ppf(1e-2) + 2.2))
    assert hundredth["true_rate"] == pytest.approx(norm.cdf(norm.ppf(1e-2) + 2.0), abs=0.05)
    code, out, err = run("membership", gaussians, "--epsilon", 2.0)
    assert code == 1
    assert "REFUTED" in out
    assert "EXCEEDS" in out
    assert "does NOT hold" in err


def test_shadow_runs_become_likelihood_ratios(run, tmp_path) -> None:
    generator = np.random.default_rng(32)
    member, coins = (generator.random((size, 20)) < 0.5 for size in (400, 1000))
    path = tmp_path / "shadow.npz"
    arrays = {
        "shadow": generator.normal(size=(400, 20)) + 3.0 * member,
        "shadow_member": member,
        "observed": generator.normal(size=(1000, 20)) + 3.0 * coins,
        "observed_member": coins,
    }
    np.savez(path, **arrays)
    code, out, _ = run("membership", path, "--epsilon", 1.0, "--json")
    row = json.loads(out)["rows"][1]
    assert code == 1
    assert row["attack"] == "LiRA, 400 shadow runs"
    assert row["true_rate"] == pytest.approx(norm.cdf(norm.ppf(1e-2) + 3.0), abs=0.1)
    np.savez(path, **arrays | {"shadow_member": member & False})
    assert "offline LiRA" in run("membership", path, "--epsilon", 1.0)[1]


def test_canaries_give_the_theorem_s_bound(run, tmp_path) -> None:
    generator = np.random.default_rng(33)
    coins = generator.random(1000) < 0.5
    path = tmp_path / "canaries.npz"
    np.savez(path, scores=coins + generator.normal(0.0, 0.5, 1000), included=coins)
    code, out, err = run("canaries", path, "--epsilon", 50, "--json")
    report = json.loads(out)
    assert (code, err, report["exceeds"], report["guesses"]) == (0, "", False, 400)
    assert report["epsilon"] == epsilon_lower_bound(1000, 400, report["right"], 1e-5)
    assert report["epsilon"] > 1.5
    code, out, _ = run("canaries", path, "--epsilon", 1.0)
    assert code == 1
    assert "REFUTED" in out
    assert "add/remove" in out


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"scores": np.zeros(4)}, "included"),
        ({"scores": np.zeros(4), "included": np.zeros(4)}, "bool"),
        ({"scores": np.array(["a"]), "included": np.zeros(1, bool)}, "finite"),
    ],
)
def test_a_wrong_file_is_one_line(run, tmp_path, arrays, why) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    code, out, err = run("canaries", path, "--epsilon", 1.0)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err
    code, out, err = run("membership", path, "--epsilon", 1.0)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "members [n]" in err


def test_a_text_file_is_one_line(run, tmp_path) -> None:
    path = tmp_path / "scores.npz"
    path.write_text("no archive")
    code, _, err = run("membership", path, "--epsilon", 1.0)
    assert (code, err.count("\n")) == (2, 1)
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert run("canaries", tmp_path / "array.npy", "--epsilon", 1.0)[0] == 2


def test_a_file_of_something_else_is_refused_without_advice_to_load_it(run, tmp_path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, members=np.array([{}], dtype=object), non_members=np.zeros(3))
    text = tmp_path / "scores.txt"
    text.write_text("0.3")
    array = tmp_path / "array.npy"
    np.save(array, np.zeros(3))
    for wrong in (path, text, array):
        code, _, err = run("membership", wrong, "--epsilon", 1.0)
        assert code == 2
        assert "is no .npz of arrays of numbers" in err
        assert "pickle" not in err
    code, _, err = run("membership", tmp_path / "none.npz", "--epsilon", 1.0)
    assert (code, "there is no file" in err, "Errno" in err) == (2, True, False)


def test_scores_that_are_not_numbers_are_counted(run, tmp_path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, members=np.array([1.0, np.nan]), non_members=np.zeros(3))
    code, _, err = run("membership", path, "--epsilon", 1.0)
    assert code == 2
    assert "scores hold NaN (1 of 2)" in err


def test_the_columns_are_explained_under_the_table(run, gaussians) -> None:
    _, out, _ = run("membership", gaussians, "--epsilon", 10.5)
    assert "FPR below: upper bound" in out
    assert "cap there: the\ncap at that bound" in out
