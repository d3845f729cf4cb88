"""docs/methods says what the code does: a page and a row a method, every option, every default."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ktan.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "docs" / "methods"
_NAMED = re.compile(r"`([^`]+)`")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(text: str, header: str) -> list[list[str]]:
    """Rows below every table whose header begins so."""
    rows: list[list[str]] = []
    within = False
    for line in text.splitlines():
        if not line.startswith("|"):
            within = False
        elif line.startswith(header):
            within = True
        elif within and not set(line) <= set("|- "):
            rows.append(cells(line))
    return rows


def rows() -> dict[str, tuple[str, list[str]]]:
    """Method → its page and the cells of its row in the index."""
    found = {}
    for row in table((PAGES / "README.md").read_text(encoding="utf-8"), "| name | kind |"):
        match = re.match(r"\[`([^`]+)`\]\(([^)]+)\)", row[0])
        assert match, row
        found[match[1]] = (match[2], row)
    return found


def documented(page: str, methods: list[str]) -> dict[str, dict[str, str]]:
    """Method → option → default as the page has it; `0.3 (`fitnet`), 1 (`fitnet-two-stage`)` is
    one a method, `64, 0.7` one for each option of the row."""
    found: dict[str, dict[str, str]] = {method: {} for method in methods}
    for names, defaults, *_ in table((PAGES / page).read_text(encoding="utf-8"), "| option |"):
        options = _NAMED.findall(names)
        of_one = {name: value for value, name in re.findall(r"([^\s,]+) \(`([^`]+)`\)", defaults)}
        values = defaults.replace("`", "").split(", ")
        if len(values) == 1:
            values *= len(options)
        for method in methods:
            own = [of_one[method]] * len(options) if method in of_one else values
            assert len(own) == len(options), (page, names, defaults)
            found[method].update(zip(options, own, strict=True))
    return found


def equal(text: str, default: Any) -> bool:
    if isinstance(default, bool):
        return text == str(default).lower()
    if isinstance(default, int | float):
        return float(text) == default
    return text == str(default)


def options_of(method: str) -> dict[str, Any]:
    return {field.name: field.default for field in fields(METHODS[method])}  # type: ignore[arg-type]


def test_every_method_has_its_row_and_no_row_is_without_one() -> None:
    assert set(rows()) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_names_page_and_file(method: str) -> None:
    page, row = rows()[method]
    assert (PAGES / page).is_file()
    (file,) = _NAMED.findall(row[-1])
    assert METHODS[method].__module__ == f"ktan.methods.{file.removesuffix('.py')}"
    assert f"`ktan/methods/{file}`" in (PAGES / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("method", METHODS)
def test_a_row_says_what_is_needed(method: str) -> None:
    words = {"response": "probabilities or logits", "hint": "a hint", "maps": "whole maps"}
    _, row = rows()[method]
    needs = METHODS[method]().needs
    for need in needs:
        said = words.get(need.kind, need.kind) + (" if there " if need.optional else "")
        assert said in row[3], (method, need)
    assert all(need.optional for need in needs) == row[3].startswith("nothing")


@pytest.mark.parametrize("method", METHODS)
def test_a_page_has_every_option_with_its_default(method: str) -> None:
    page = rows()[method][0]
    together = [name for name, (other, _) in rows().items() if other == page]
    said = documented(page, together)[method]
    options = options_of(method)
    assert set(options) <= set(said), f"{page} lacks {set(options) - set(said)}"
    known = {option for name in together for option in options_of(name)}
    assert set(said) <= known, f"{page} names {set(said) - known}, which there is not"
    wrong = {name: said[name] for name in options if not equal(said[name], options[name])}
    assert not wrong, f"{page}: {wrong}, but the code has {options}"


def test_a_page_that_drifts_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader above reads what is written, not what it hopes for."""
    text = (PAGES / "fitnet.md").read_text(encoding="utf-8")
    changed = text.replace("0.3 (`fitnet`), 1 (`fitnet-two-stage`)", "0.4 (`fitnet`), 2 (`x`)")
    assert changed != text
    (tmp_path / "fitnet.md").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.PAGES", tmp_path)
    said = documented("fitnet.md", ["fitnet"])["fitnet"]
    assert not equal(said["hint_weight"], options_of("fitnet")["hint_weight"])
    assert equal(said["kd_weight"], options_of("fitnet")["kd_weight"])


def test_the_whole_method_of_the_index_is_the_one_in_its_file() -> None:
    """The first page shows SoftLogits; its lines are those of the code, but for docstrings."""
    (shown,) = re.findall(
        r"```python\n(.*?)```", (PAGES / "README.md").read_text(encoding="utf-8"), re.S
    )
    source = (ROOT / "ktan/methods/soft_logits.py").read_text(encoding="utf-8")
    for line in shown.splitlines():
        bare = re.sub(r"\s+#.*", "", line).strip().strip("()[]")
        assert bare in source, line
