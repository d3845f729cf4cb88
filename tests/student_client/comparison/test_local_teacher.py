"""Teachers on this machine: one student, or several."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.taps import parse_taps
from student_client.comparison.local_teacher import load_local
from student_client.provenance import alone
from student_client.public_data import PublicData
from student_client.student_card import StudentCard, write_student

SHAPE, CLASSES = (3, 8, 8), ("cat", "dog")
SPEC = NetworkSpec("resnet8", SHAPE, 2, {"widths": [2, 2, 3, 4]})


class Public:
    name, classes, input_dtype, input_shape = "pets", CLASSES, "uint8", SHAPE


def student(folder: Path, seed: int, mean: float = 127.5) -> None:
    torch.manual_seed(seed)
    normalisation = Normalisation((mean,) * 3, (64.0,) * 3)
    card = StudentCard(
        dataset="pets", classes=CLASSES, input_dtype="uint8", network=SPEC,
        normalisation=normalisation, method="local", method_options={}, seed=seed, steps=1,
        test_accuracy=0.5 + seed / 10, test_samples=10, privacy=alone(), weights_sha256="",
    )  # fmt: skip
    write_student(folder, build(SPEC), card)


def load(folder: Path, **options: Any) -> Any:
    public = cast(PublicData, Public())
    return load_local(folder, public, torch.device("cpu"), "float32", **options)


def logits(local: Any) -> torch.Tensor:
    local.live.read(parse_taps(["logits"]))
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 256, (4, *SHAPE), generator=generator).to(torch.uint8)
    found: torch.Tensor = local.live.answer_step(samples, 3)["logits"]
    return found


def test_several_students_teach_together(tmp_path: Path) -> None:
    student(tmp_path / "a", 0)
    student(tmp_path / "b" / "student", 1)
    one, other = (load(tmp_path / name) for name in ("a", "b"))
    together = Path(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    both = load(together)
    assert (both.name, both.mode, both.accuracy) == ("2 × resnet8", "ensemble", None)
    assert (one.name, one.mode, other.accuracy) == ("resnet8", "single", 0.6)
    assert both.version not in (one.version, other.version)
    assert both.size.parameters == 2 * one.size.parameters
    torch.testing.assert_close(logits(both), (logits(one) + logits(other)) / 2)
    drawn = logits(load(together, draw="one"))
    assert any(torch.equal(drawn, logits(single)) for single in (one, other))


def test_teachers_of_two_kinds_are_refused(tmp_path: Path) -> None:
    student(tmp_path / "a", 0)
    student(tmp_path / "b", 0, mean=100.0)
    with pytest.raises(UserError, match="must be of one kind"):
        load(Path(f"{tmp_path / 'a'},{tmp_path / 'b'}"))


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    student(tmp_path / "a", 0)
    with pytest.raises(UserError, match="holds no student"):
        load(tmp_path)
    with pytest.raises(UserError, match="nowhere is no folder"):
        load(Path(f"{tmp_path / 'a'},nowhere"))
