"""Rules of the whole house that no linter holds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_seedable_generators_never_reach_the_noise():
    for path in (ROOT / "privacy").rglob("*.py"):
        if "audit" in path.parts:
            continue
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import random|from random|from numpy.random)", code, re.M), path
        assert "default_rng" not in code, path


def test_the_privacy_core_comes_without_torch_and_the_client_without_opendp():
    for module, forbidden in (
        ("privacy.release", ("torch", "opendp", "dp_accounting")),
        ("privacy.receipts", ("torch", "opendp", "dp_accounting", "sqlalchemy", "scipy")),
        ("privacy.ledger", ("torch", "opendp", "dp_accounting")),
        ("student_client", ("opendp", "dp_accounting", "sqlalchemy")),
    ):
        check = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
        done = subprocess.run(
            [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]", (module, done.stdout)


def test_the_contract_of_the_privacy_core_names_every_module_of_it():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
    core = next(contract for contract in contracts if contract["id"] == "privacy-core")
    modules = {f"privacy.{path.stem}" for path in (ROOT / "privacy").glob("*.py")}
    assert set(core["source_modules"]) == modules - {"privacy.__init__"} | {"privacy.ledger"}
