"""Trains a student by each public implementation, in lock-step; figures go to results/peers.json.

    python -m benchmarks.peers --teacher FOLDER --repositories DIR --dataset imagefolder:DIR \\
        --path-ids --labelled 50000 --unlabelled 1 --test 8000 --epochs 4 --seeds 0,1,2

FOLDER is an exported student (`student-client train`) that teaches here. Stopped, the same command
goes on where it was, after the last whole epoch; figures are written after each seed, of all
methods and seeds that are finished in --out under the same recipe.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.implementations import PEERS
from benchmarks.peers.lockstep import RESULT, Recipe, run
from benchmarks.peers.public_code import PublicCode
from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build, multiply_adds
from ktan.precision import resolve_device
from ktan.threads import suit_threads
from student_client.public_data import PublicData
from student_client.student_card import read_student

RESULTS = Path(__file__).parent.parent / "results" / "peers.json"
BASELINE = "alone"
INITIALISATION = 40 / 140
"""Of KD_methods_with_TF: 40 epochs before 100."""


def main() -> None:
    options = _parse()
    warnings.filterwarnings("ignore", message="size_average")
    device = resolve_device(options.device)
    code = PublicCode(options.repositories)
    public = PublicData.load(
        DataSource(dataset=options.dataset, data_root=options.data_root, path_ids=options.path_ids),
        SplitRecipe(
            by=options.by, labelled=options.labelled, unlabelled=options.unlabelled,
            test=options.test,
        ),
    )  # fmt: skip
    if options.teacher == "untrained":
        spec = NetworkSpec("resnet32", public.input_shape, len(public.classes))
        teacher, normalises, right = build(spec), public.normalisation, None
    else:
        teacher, card = read_student(Path(options.teacher))
        spec, normalises, right = card.network, card.normalisation, card.test_accuracy
    suit_threads(options.batch * multiply_adds(spec))
    recipe = Recipe(
        network=options.network, epochs=options.epochs, batch=options.batch,
        learning_rate=options.learning_rate, weight_decay=options.weight_decay,
        augment=options.augment, precision=options.precision,
        initialisation=INITIALISATION, seed=0, steps=options.steps,
    )  # fmt: skip
    for seed in options.seeds:
        for result in run(
            options.methods, replace(recipe, seed=seed), public, teacher, spec, normalises, code,
            options.out, device, options.initialisation,
        ):  # fmt: skip
            shown = "diverged" if result["accuracy"] is None else f"{100 * result['accuracy']:.2f}"
            print(f"seed {seed} {result['method']:>18} {shown}", flush=True)
        content = {
            "date": time.strftime("%Y-%m-%d"),
            "command": _command(options),
            "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
            "versions": code.versions(),
            "teacher": {"network": spec.to_json(), "test_accuracy": right},
            "student": recipe.network,
            "test_samples": len(public.test),
            "rows": _rows(_finished(options.out, recipe)),
        }
        options.results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"figures: {options.results}")


def _finished(out: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Results of this recipe, of all methods and seeds: a table may grow in pieces."""
    found = []
    for path in out.glob(f"*/{RESULT}"):
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own = {"seed": recipe.seed, "initialisation": recipe.initialisation}
        if {**result["recipe"], **own} == asdict(recipe):
            found.append(result)
    order = list(PEERS)
    return sorted(found, key=lambda r: (order.index(r["method"]), r["recipe"]["seed"]))


def _rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method: every seed's accuracy, and its difference to the student alone."""
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for result in results:
        by_method.setdefault(result["method"], {})[result["recipe"]["seed"]] = result
    alone = by_method.get(BASELINE, {})
    rows = []
    for method, of_seed in by_method.items():
        right = {seed: result["accuracy"] for seed, result in of_seed.items()}
        known = {seed: value for seed, value in right.items() if value is not None}
        pairs = {
            seed: value - alone[seed]["accuracy"]
            for seed, value in known.items()
            if method != BASELINE and seed in alone
        }
        last = next(reversed(of_seed.values()))
        rows.append(
            {
                "method": method,
                "source": last["source"],
                "stages": last["stages"],
                "steps": last["steps"],
                "accuracies": right,
                "accuracy": _spread(list(known.values())),
                "differences": pairs,
                "difference": _spread(list(pairs.values())),
                "diverged_at_step": {seed: r["diverged_at_step"] for seed, r in of_seed.items()},
                "seconds": [result["seconds"] for result in of_seed.values()],
            }
        )
    return rows


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd}


def _command(options: argparse.Namespace) -> str:
    """Without the folders of this machine."""
    hidden = {"teacher": "FOLDER", "repositories": "DIR", "data_root": "DATA"}
    kept = []
    for name, value in vars(options).items():
        if name in ("out", "results", "device") or value in (None, False, {}):
            continue
        if isinstance(value, dict):
            value = [f"{key}={share:g}" for key, share in value.items()]
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if name == "dataset":
            kind, colon, _ = str(value).partition(":")
            value = f"{kind}:DIR" if colon else kind
        text = f"--{name.replace('_', '-')}"
        kept.append(text if value is True else f"{text} {hidden.get(name, value)}")
    return f"python -m benchmarks.peers {' '.join(kept)}"


def _names(text: str) -> list[str]:
    names = list(PEERS) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; there are {', '.join(PEERS)}")
    return names


def _shares(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",")]
    return {name: float(share) for name, _, share in pairs}


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--teacher", required=True, help="an exported student's folder, or untrained for a trial")
    add("--repositories", type=Path, required=True, help="folder of the clones")
    add("--methods", type=_names, default=_names("all"), help="comma-separated; all by default")
    add("--seeds", type=_numbers, default=[0, 1, 2], help="comma-separated")
    add("--epochs", type=int, default=4)
    add("--steps", type=int, help="instead of epochs, for a trial")
    add(
        "--initialisation",
        type=_shares,
        default={},
        metavar="METHOD=SHARE,…",
        help="of the steps that the first stage of ab, fsp or fitnet-two-stage takes; "
        f"{INITIALISATION:.3f} when not given",
    )
    add("--network", default="resnet8", help="the student's")
    add("--batch", type=int, default=128)
    add("--learning-rate", type=float, default=0.1)
    add("--weight-decay", type=float, default=5e-4)
    add("--augment", default="crop-flip")
    add("--precision", default="auto")
    add("--device", default="auto")
    add("--dataset", default="cifar10")
    add("--data-root", type=Path, default=Path("data"))
    add("--path-ids", action="store_true")
    add("--by", default="hash")
    add("--labelled", type=int, default=50_000)
    add("--unlabelled", type=int, default=1)
    add("--test", type=int, default=8000)
    add("--out", type=Path, default=Path("runs/peers"), help="checkpoints, a folder a student")
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args()  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on after the last whole epoch")
