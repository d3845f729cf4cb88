"""docs/deployment.md: every command in it is one, and it names every file, option and heading."""

import re

import pytest
from cyclopts.exceptions import CycloptsError

from teacher_server.options import ServeOptions
from tests.deploy.command_lines import FILES, parsed, typed
from tests.deploy.test_teacher_systemd import UNIT, settings

ROOT = FILES.parents[1]
PATH = ROOT / "docs" / "deployment.md"
PAGE = PATH.read_text(encoding="utf-8")
OURS = ("teacher-server", "student-client", "privacy-audit")
IMAGE = "ktan:0.1.0"


def commands():
    """Our commands as they are typed, whatever stands before them; `$DATA` as it was set."""
    data = []
    for words in typed(PATH):
        if words and words[0].startswith("DATA="):
            data = words[0].partition("=")[2].split()
        at = next((at for at, word in enumerate(words) if word in OURS), None)
        if "$HERE" in words:  # the image's entry point is ours
            words, at = ["teacher-server", *words[words.index(IMAGE) + 1 :]], 0
        if at is not None:
            told = [data if word == "$DATA" else [word] for word in words[at:]]
            yield [word for several in told for word in several]


ALL = list(commands())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_command_has_the_options_that_the_page_gives_it(words):
    assert parsed(words)


def test_a_command_that_is_none_would_be_noticed():
    assert {words[0] for words in ALL} == set(OURS)
    assert len(ALL) > 15
    with pytest.raises(CycloptsError):
        parsed(["teacher-server", "revoke", "--certs", "certs", "--client", "anna"])


def test_every_file_is_named_and_every_name_is_a_file():
    folder = FILES.parent / "teacher"
    named = set(re.findall(r"deploy/teacher/[\w/.@-]*\.\w+", PAGE))
    named |= {"deploy/teacher/docker/Dockerfile"} & set(re.findall(r"deploy/\S+/Dockerfile", PAGE))
    files = {str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file()}
    assert named <= files
    assert files - named == {"deploy/teacher/docker/Dockerfile.dockerignore"}


def test_every_link_leads_somewhere():
    def anchors(text):
        titles = re.findall(r"^#+ (.*)$", text, re.M)
        kept = [re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()) for title in titles]
        return {title.replace(" ", "-") for title in kept}

    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", PAGE)
    assert len(links) > 15
    for name, anchor in links:
        page = PATH.parent / name if name else PATH
        assert page.exists()
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8"))


def test_what_the_page_says_of_stopping_is_so():
    (seconds,) = settings(UNIT)["TimeoutStopSec"]
    assert f"`TimeoutStopSec` is {seconds}" in PAGE
    assert f"requests under way get {ServeOptions().grace:.0f} seconds" in PAGE
