"""The two loops of one's own, run as the documentation says, as processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run_example(name: str, *options: object) -> tuple[list[float], float]:
    """Runs an example to its end: losses as printed, and the student's accuracy."""
    line = [sys.executable, "-m", f"examples.{name}", *map(str, options)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d+: loss ([\d.]+)", done.stdout)]
    found = re.search(r"student: accuracy ([\d.]+)", done.stdout)
    assert found, done.stdout
    return losses, float(found[1])


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits are rendered once."""
    return tmp_path_factory.mktemp("data")


def test_both_loops_teach_the_same_student(data_root: Path) -> None:
    """Alone, with its hundred labels, it stays near 0.63."""
    options = ("--data-root", data_root, "--epochs", 15)
    losses, accuracy = run_example("plain_loop", *options)
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]
    assert accuracy > 0.7
    lightning, same = run_example("lightning_loop", *options)
    # One seed, one order of batches: Lightning only drives.
    assert lightning == pytest.approx(losses, rel=0.01)
    assert same == pytest.approx(accuracy, abs=0.03)
