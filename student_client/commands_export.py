"""`student-client export`: the student of a finished run, for its users and for devices."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from student_client.benchmark_text import bytes_text
from student_client.connection_options import Flag
from student_client.describe import labelled
from student_client.export import export_student
from student_client.export_data import public_data_of
from student_client.export_model import Exported, export_model
from student_client.option_groups import DATA, RECIPE, Data, Recipe


def export(
    run: Path,
    *,
    out: Path,
    form: Annotated[
        Literal["student", "onnx", "int8", "torch-export"], Parameter(name="--format")
    ] = "student",
    exit_number: Annotated[int | None, Parameter(name="--exit")] = None,
    calibration: int = 512,
    data: Data = DATA,
    recipe: Recipe = RECIPE,
    json: Flag = False,
) -> None:
    """Write the student of a finished run, with a card that carries the promise it learnt under.

    All formats but `student` take raw samples (uint8 images of 0 to 255), normalise them inside,
    and are checked against torch on public samples of the run's own data before they are written.
    Options of data are for an exported student, which has no record of it, and for data that moved.

    Parameters
    ----------
    run
        Folder of the run (--out of train), or of an exported student.
    out
        New folder that gets the model and card.json.
    form
        student: weights.safetensors, for this program. onnx: student.onnx. int8: the same,
        quantised after training. torch-export: student.pt2, a program of torch.export.
    exit_number
        Write the student that stops at this early exit, from 1 (of a run with --method byot).
    calibration
        Public samples from which int8 takes the range of its activations.
    json
        Print the card.
    """
    if form == "student":
        card = export_student(run, out, exit_number)
        if json:
            _print_json({"folder": str(out), **card.to_json()})
        else:
            print(labelled("Written", f"{out}/weights.safetensors, {out}/card.json"))
            print(labelled("Privacy", card.privacy.sentence))
        return
    exported = export_model(
        run,
        out,
        form,
        lambda card: public_data_of(run, card, data, recipe),
        exit_number=exit_number,
        calibration=calibration,
    )
    if json:
        _print_json({"folder": str(out), **exported.to_json()})
    else:
        print("\n".join(_lines(out, exported)))


def _lines(out: Path, exported: Exported) -> list[str]:
    facts, card = exported.facts, exported.card
    inputs, outputs, checked = facts["input"], facts["output"], facts["checked"]
    span = ", 0 to 255" if inputs["range"] else ""
    lines = [
        labelled(
            "Written", f"{out}/{facts['file']} ({bytes_text(facts['bytes'])}), {out}/card.json"
        ),
        labelled(
            "Input",
            f"{inputs['name']}: {inputs['dtype']} {_shape(inputs)}{span}, not normalised: "
            "the model does it",
        ),
        labelled("Output", f"{outputs['name']}: {outputs['dtype']} {_shape(outputs)}"),
        labelled(
            "Checked",
            f"{checked['runtime']} beside torch on {checked['samples']} samples: at most "
            f"{checked['largest_difference']:.1e} apart, of logits up to "
            f"{checked['largest_logit']:.3g}",
        ),
    ]
    quantised = facts.get("quantisation")
    if quantised:
        smaller = quantised["float_bytes"] / facts["bytes"]
        lines.append(
            labelled(
                "int8",
                f"calibrated on {quantised['calibration_samples']} public samples; {smaller:.2g} "
                "times smaller than float (the check above is of the float model)",
            )
        )
        lines.append(labelled("Accuracy", _accuracies(quantised)))
    return [*lines, labelled("Privacy", card.privacy.sentence)]


def _accuracies(quantised: dict[str, Any]) -> str:
    if quantised["accuracy"] is None:
        return "not measured: the data has no test part"
    int8, exact = 100 * quantised["accuracy"], 100 * quantised["float_accuracy"]
    return f"int8 {int8:.2f} %, float {exact:.2f} % of {quantised['test_samples']:,} test samples"


def _shape(facts: dict[str, Any]) -> str:
    return f"[{', '.join(map(str, facts['shape']))}]"


def _print_json(content: dict[str, Any]) -> None:
    print(jsonlib.dumps(content, indent=2, ensure_ascii=False))
