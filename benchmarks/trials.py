"""The demo's steps on real data: the same commands, other options; figures go to results/.

    python -m benchmarks.trials mnist-ensemble --data-root ~/data

`--data-root` holds `MNIST/raw` (torchvision's layout) and `cifar10/{train,test}/CLASS/*.jpg`. The
data are linked into the trial's own folder, because a private data set has one ledger for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from examples.demo import fresh
from examples.settings import DP_SGD, ENSEMBLE, Setting
from examples.table import draw, tabulate
from examples.world import World

RESULTS: Final = Path(__file__).parent / "results"

_PUBLIC_TEST = ["--by", "official", "--labelled", "0", "--unlabelled", "9000", "--test", "1000"]
_LABELLED_TEST = ["--by", "official", "--labelled", "100", "--unlabelled", "8900", "--test", "1000"]

TRIALS: Final = {
    "demo-ensemble": ENSEMBLE,
    "demo-dp-sgd": DP_SGD,
    # PATE's setting (Papernot et al. 2017): 250 teachers, no public label at all.
    "mnist-ensemble": Setting(
        mode="ensemble",
        data=["--dataset", "mnist", *_PUBLIC_TEST],
        plan=["--epsilon", "2", "--delta", "1e-5"],
        teacher=["--teachers", "250", "--taps", "probabilities", "--augment", "affine",
                 "--epochs", "40"],
        serve=["--answers", "150"],
        student=["--queries", "150", "--method", "soft-logits", "--augment", "affine",
                 "--steps", "1000"],
        alone=False,
    ),
    # The same budget with a hint and 100 public labels: all four losses.
    "mnist-ensemble-hint": Setting(
        mode="ensemble",
        data=["--dataset", "mnist", *_LABELLED_TEST],
        plan=["--epsilon", "2", "--delta", "1e-5"],
        teacher=["--teachers", "250", "--taps", "probabilities", "--taps", "hint=features:8"],
        serve=["--answers", "300", "--share", "probabilities=0.9", "--share", "hint=0.1"],
        student=["--queries", "300", "--augment", "affine"],
    ),
    "mnist-dp-sgd": Setting(
        mode="dp-sgd",
        data=["--dataset", "mnist", *_LABELLED_TEST],
        plan=["--epsilon", "3", "--delta", "1e-5", "--training-epsilon", "3"],
        teacher=["--taps", "probabilities", "--taps", "hint=features"],
        serve=[],
        student=["--queries", "8900", "--augment", "affine", "--steps", "3000"],
    ),
    # Twenty teachers at ε = 8 drown here (noisy answers right in 16 %); DP-SGD and 200 do not.
    "cifar10-folder": Setting(
        mode="dp-sgd",
        data=["--dataset", "imagefolder:cifar10", "--path-ids", "--by", "official",
              "--labelled", "1000", "--unlabelled", "5000", "--test", "2000"],
        plan=["--epsilon", "8", "--delta", "1e-5", "--training-epsilon", "8"],
        teacher=["--taps", "probabilities", "--taps", "hint=features", "--network", "cnn-small"],
        serve=[],
        student=["--queries", "5000", "--network", "cnn-small", "--augment", "crop-flip",
                 "--steps", "3000"],
    ),
    "table": Setting(
        mode="ensemble",
        data=["--dataset", "arrays:people.npz", "--labelled", "100", "--unlabelled", "1000",
              "--test", "1000"],
        plan=["--epsilon", "4", "--delta", "1e-5", "--unit", "person"],
        # Passes count people, who have three visits on average: 25 passes over visits.
        teacher=["--teachers", "50", "--taps", "probabilities", "--taps", "hint=features:4",
                 "--network", "mlp-small", "--epochs", "75"],
        serve=["--answers", "300", "--share", "probabilities=0.9", "--share", "hint=0.1"],
        student=["--queries", "300"],
    ),
}  # fmt: skip

# Four losses by RONA too: hint, distillation, adversarial and local, in five rounds of its own.
_RONA: Final = {"rona": ["--method", "rona", "--method-set", "adversarial_weight=1"]}

# One served teacher teaches a student by KTAN and another by RONA, on the same answers.
METHOD_TRIALS: Final = {
    "mnist-ensemble-methods": replace(
        TRIALS["mnist-ensemble-hint"],
        student=["--queries", "300", "--augment", "affine", "--steps", "1000"],
        also=_RONA,
    ),
    "mnist-dp-sgd-methods": replace(TRIALS["mnist-dp-sgd"], also=_RONA),
    # The teacher-to-student layer's whole map, in the shape of the student's last map.
    "cifar10-dp-sgd-methods": replace(
        TRIALS["cifar10-folder"],
        teacher=["--taps", "probabilities", "--taps", "tsl=features.3:32x5x5",
                 "--network", "cnn-small"],
        student=["--queries", "5000", "--network", "cnn-small", "--augment", "crop-flip",
                 "--steps", "2000"],
        also=_RONA,
    ),
    # k by `privacy-audit plan --simulate` on CIFAR-10's test part; 250 records a teacher.
    "cifar10-ensemble-methods": Setting(
        mode="ensemble",
        data=["--dataset", "imagefolder:cifar10", "--path-ids", "--by", "official",
              "--labelled", "250", "--unlabelled", "5000", "--test", "2000"],
        plan=["--epsilon", "8", "--delta", "1e-5"],
        teacher=["--teachers", "200", "--taps", "probabilities", "--taps", "hint=features:4",
                 "--network", "cnn-small"],
        serve=["--answers", "500", "--share", "probabilities=0.95", "--share", "hint=0.05"],
        student=["--queries", "500", "--network", "cnn-small", "--augment", "crop-flip",
                 "--steps", "1000"],
        also=_RONA,
    ),
}  # fmt: skip

EVERY: Final = {**TRIALS, **METHOD_TRIALS}


def link(source: Path, target: Path) -> None:
    """The same files under another folder, without copying their content where that is possible."""

    def one(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    shutil.copytree(source, target, copy_function=one)


def write_table(path: Path) -> None:
    """A made-up table: 4,000 people with 1 to 5 visits each, 20 values, 3 outcomes."""
    generator = np.random.default_rng(7)
    visits = generator.integers(1, 6, 4000)
    person = np.repeat(np.arange(4000), visits)
    outcome = generator.integers(0, 3, 4000)
    centres = generator.normal(size=(3, 20))
    habits = generator.normal(size=(4000, 20))
    values = centres[outcome[person]] + habits[person] + generator.normal(size=(len(person), 20))
    np.savez(
        path,
        samples=values.astype(np.float32),
        labels=outcome[person].astype(np.int64),
        unit_ids=np.array([f"person-{number}" for number in person]),
        classes=np.array(["0", "1", "2"]),
    )


def prepare(name: str, setting: Setting, data_root: Path, world: Path) -> Setting:
    """Puts the trial's data into its world; returns the setting with the paths filled in."""
    data = world / "data"
    data.mkdir(parents=True)
    if name.startswith("mnist"):
        link(data_root / "MNIST", data / "MNIST")
    elif name.startswith("cifar10"):
        link(data_root / "cifar10", data / "cifar10")
    elif name == "table":
        write_table(data / "people.npz")
    paths = {
        "imagefolder:cifar10": f"imagefolder:{data / 'cifar10'}",
        "arrays:people.npz": f"arrays:{data / 'people.npz'}",
    }
    options = [paths.get(option, option) for option in setting.data]
    return replace(setting, data=options)


def record(name: str, setting: Setting, results: list[dict[str, Any]]) -> Path:
    """Writes what was measured, with the options and without the curves."""
    for result in results:
        result["audit"].pop("public_key_from", None)
        for student in result["students"].values():
            for long in ("history", "split", "privacy", "curves", "student"):
                student.pop(long, None)
    path = RESULTS / f"{name}.json"
    seeds = ",".join(str(result["seed"]) for result in results)
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.trials {name} --data-root DATA --seeds {seeds}",
        "setting": vars(setting),
        "results": results,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=sorted(EVERY))
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/trials"))
    parser.add_argument("--seeds", default="0", help="comma-separated, a whole run each")
    options = parser.parse_args()
    out = fresh(options.out / options.trial)
    setting, results = EVERY[options.trial], []
    for seed in (int(text) for text in options.seeds.split(",")):
        world = out / f"seed-{seed}"
        ready = prepare(options.trial, setting, options.data_root.expanduser(), world)
        results.append(World(world, ready, seed).run())
    print("\n" + tabulate(results))
    answered = [r["students"]["private"]["answers"]["label_accuracy"] for r in results]
    print(f"label accuracy of the noisy answers: {', '.join(f'{a:.3f}' for a in answered)}")
    print(f"picture: {draw(results, out)}")
    print(f"figures: {record(options.trial, setting, results)}")


if __name__ == "__main__":
    main()
