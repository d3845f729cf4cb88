"""The README's Python lines and a loop of one's own, run as they stand against a served teacher."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.test_examples import run_example

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, str]]:
    """A served teacher, and its address."""
    deployment = Deployment(tmp_path_factory.mktemp("served"), dataset="glyphs", size=7200)
    # A budget so large that the noise, secret and new in each run, decides nothing.
    deployment.prepare("--epsilon", "300", teacher=("--teachers", "4", "--reference-steps", "500"))
    with deployment.service(0, "--answers", "300") as (_, address):
        yield deployment, address


def test_the_ten_lines_teach_a_student(service, tmp_path, monkeypatch):
    deployment, address = service
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    monkeypatch.chdir(tmp_path)
    lines = block.replace("teacher.example.org:50051", address)
    lines = lines.replace('Path("anna")', f'Path("{deployment.folder}/certs/anna")')
    names: dict = {}
    exec(compile(lines, "README.md", "exec"), names)
    samples = names["data"].samples[names["public"].test]
    with torch.no_grad():
        logits = names["student"](names["Normalisation"].of_public(names["queries"])(samples))
    labels = names["data"].labels[names["public"].test]
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    assert accuracy > 0.4


def test_a_network_and_loop_of_ones_own_learn_from_the_service(service, tmp_path):
    deployment, address = service
    losses, accuracy = run_example(
        "plain_loop", "--teacher", address, "--certs", deployment.folder / "certs/anna",
        "--data-root", deployment.folder / "data", "--answers", tmp_path / "answers",
        "--epochs", 10,
    )  # fmt: skip
    assert losses[0] > losses[1]
    assert accuracy > 0.3
