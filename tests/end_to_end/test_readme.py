"""The README's Python lines, run as they stand against a served teacher."""

import re
from pathlib import Path

import torch

from tests.end_to_end.deployment import Deployment

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_ten_lines_teach_a_student(tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    monkeypatch.chdir(tmp_path)
    deployment = Deployment(tmp_path, dataset="glyphs", size=7200)
    # A budget so large that the noise, secret and new in each run, decides nothing.
    deployment.prepare("--epsilon", "300", teacher=("--teachers", "4"))
    with deployment.service(0, "--answers", "300") as (_, address):
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
