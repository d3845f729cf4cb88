"""`student-client evaluate`: a student's accuracy on public samples."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Literal

from student_client.connection_options import Flag
from student_client.describe import labelled
from student_client.export import evaluate_student
from student_client.option_groups import DATA, RECIPE, Data, Recipe


def evaluate(
    student: Path,
    *,
    data: Data = DATA,
    recipe: Recipe = RECIPE,
    part: Literal["test", "labelled", "unlabelled"] = "test",
    device: str = "auto",
    json: Flag = False,
) -> None:
    """Measure a student's accuracy on a public part of any data set.

    Parameters
    ----------
    student
        Folder of an exported student, or of a finished run.
    part
        Which public part of the split.
    device
        auto (the GPU when there is one), cpu or cuda.
    json
        Print one JSON object.
    """
    result = evaluate_student(student, data, recipe, part, device)
    if json:
        print(jsonlib.dumps(result, indent=2, ensure_ascii=False))
        return
    print(
        labelled(
            "Accuracy",
            f"{100 * result['accuracy']:.2f} % of {result['samples']:,} samples "
            f"({result['dataset']}, {part})",
        )
    )
    print(labelled("Privacy", result["privacy"]["sentence"]))
