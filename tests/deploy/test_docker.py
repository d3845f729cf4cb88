"""The image and the compose file: what a linter says, what goes in, what it starts and may do."""

import fnmatch
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
import yaml

from tests.deploy.command_lines import FILES, parsed

ROOT = FILES.parents[1]
FOLDER = FILES.parent / "teacher" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class Instruction(NamedTuple):
    name: str
    words: str


def stages():
    """The instructions of each stage, its FROM first; comments left out."""
    text = "\n".join(
        line
        for line in DOCKERFILE.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    lines = text.replace("\\\n", " ").splitlines()
    found = []
    for name, words in (line.split(maxsplit=1) for line in lines):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(name, words))
    return found


BUILD, FINAL = stages()


def words(stage, name):
    return [instruction.words for instruction in stage if instruction.name == name]


@pytest.fixture(scope="module")
def service():
    (one,) = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))[
        "services"
    ].values()
    return one


@pytest.fixture(scope="module")
def serving():
    """The arguments of the function that the image calls."""
    (entry,), (arguments,) = words(FINAL, "ENTRYPOINT"), words(FINAL, "CMD")
    return parsed([*json.loads(entry), *json.loads(arguments)], FOLDER / "serve.toml")


def lint(text):
    done = subprocess.run(
        [HADOLINT, "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_a_linter_has_nothing_to_say():
    assert lint(DOCKERFILE.read_text(encoding="utf-8")) == (0, "")


def test_a_mistake_would_be_noticed():
    code, said = lint(DOCKERFILE.read_text(encoding="utf-8").replace("USER 10001", "USER root"))
    assert code != 0
    assert "Last USER should not be root" in said


class TestTheImage:
    def test_it_holds_every_package_of_ours_and_nothing_else_of_the_checkout(self):
        copied = {source for line in words(BUILD, "COPY") for source in line.split()[:-1]}
        found = PROJECT["tool"]["setuptools"]["packages"]["find"]
        packages = {name.rstrip("*") for name in found["include"]}
        assert packages < copied
        assert copied - packages == {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
        assert words(FINAL, "COPY") == ["--from=build /opt/ktan /opt/ktan"]

    def test_what_is_copied_and_no_secret_reaches_the_build(self):
        rules = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        rules = [rule for rule in rules if not rule.startswith("#")]

        def sent(path):
            """By Docker's rules, as far as these go: the last that fits decides."""
            kept = True
            for rule in rules:
                pattern = rule.removeprefix("!")
                folder_of = path == pattern or path.startswith(f"{pattern}/")
                if (
                    pattern == "*"
                    or folder_of
                    or (
                        pattern.startswith("**/")
                        and fnmatch.fnmatch(path.split("/")[-1], pattern[3:])
                    )
                ):
                    kept = rule.startswith("!")
            return kept

        assert sent("constraints.txt")
        assert sent("teacher_server/cli.py")
        assert not sent("certs/ca/key.pem")
        assert not sent("ktan/certs/key.pem")
        assert not sent("privacy/ledger.sqlite")
        assert not sent("data/records.npz")
        assert not sent(".git/config")

    def test_its_packages_are_the_tested_ones_from_where_pip_is_set_to(self):
        lines = [line for line in words(BUILD, "RUN") if "pip install" in line]
        assert all("--constraint constraints.txt" in line for line in lines)
        assert "://" not in " ".join([*lines, *words(BUILD, "ARG")])
        (extras,) = [word for line in lines for word in shlex.split(line) if word.startswith(".[")]
        assert set(extras[2:-1].split(",")) <= PROJECT["project"]["optional-dependencies"].keys()

    def test_the_last_stage_installs_nothing_and_is_nobodys_root(self):
        assert words(FINAL, "FROM") == [words(BUILD, "FROM")[0].removesuffix(" AS build")]
        assert not [line for line in words(FINAL, "RUN") if "pip" in line or "apt" in line]
        (user,) = words(FINAL, "USER")
        assert all(int(number) > 0 for number in user.split(":"))
        names = [instruction.name for instruction in FINAL]
        assert "RUN" not in names[names.index("USER") :]

    def test_it_asks_itself_how_it_is(self):
        (check,) = words(FINAL, "HEALTHCHECK")
        arguments = parsed(json.loads(check.partition("CMD ")[2]))
        assert arguments["certs"] == Path("/probe")
        assert not arguments.get("live", False)


class TestCompose:
    def test_the_container_is_locked_down(self, service):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == words(FINAL, "USER")[0]
        assert service["memswap_limit"] == service["mem_limit"]
        assert service["ulimits"]["core"] == 0
        assert [place.partition(":")[0] for place in service["tmpfs"]] == ["/tmp"]
        assert not service.keys() & {"privileged", "network_mode", "pid", "devices", "cap_add"}

    def test_it_builds_this_image(self, service):
        context = (FOLDER / service["build"]["context"]).resolve()
        assert context == ROOT
        assert context / service["build"]["dockerfile"] == DOCKERFILE

    def test_it_sees_what_its_options_name_and_writes_ledger_and_witness_alone(
        self, service, serving
    ):
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        assert all(mount["bind"] == {"create_host_path": False} for mount in mounts.values())
        written = {target for target, mount in mounts.items() if not mount.get("read_only")}
        ledger, teacher = serving["ledger"], serving["teacher"]
        assert written == {str(ledger), "/srv/ktan/scans"}

        def within(path, folders):
            return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)

        assert within(teacher, mounts)
        assert within(serving["options"].certs, mounts)
        assert "/probe" in mounts
        assert "/etc/ktan" in mounts

    def test_the_port_that_is_published_is_listened_on(self, service, serving):
        host, _, port = serving["options"].listen.rpartition(":")
        assert host == "0.0.0.0"
        assert [line.split(":")[-1] for line in service["ports"]] == [port]
        assert words(FINAL, "EXPOSE") == [port]

    def test_it_drains_before_it_is_killed(self, service, serving):
        assert int(service["stop_grace_period"].removesuffix("s")) > serving["options"].grace + 15
