"""What `privacy-audit plan --simulate` says of the demo, beside what the demo's runs measured.

    python -m benchmarks.planning --data-root DATA

The forecast sees 12,000 public glyphs and the number of private records, 60,000; the demo's three
runs (benchmarks/results/demo-ensemble.json) trained 200 teachers on private ones. Both are the
accuracy of the answered labels, and what the noise cost of it. DATA is not where a demo has bound
its glyphs to a ledger: that folder is refused.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BIN = Path(sys.executable).parent
SPLITS = (0, 1, 2)
PLAN = [
    "--dataset", "glyphs", "--size", "12000", "--records", "60000", "--teachers", "200",
    "--queries", "300", "--epsilon", "4", "--taps", "probabilities", "--taps", "hint=features:8",
    "--share", "probabilities=0.9", "--share", "hint=0.1",
]  # fmt: skip


def forecast(data_root: Path, split: int) -> dict[str, Any]:
    """Accuracy of the labels that one simulation foresees."""
    done = subprocess.run(
        [BIN / "privacy-audit", "plan", "--simulate", *PLAN, "--data-root", data_root,
         "--split-seed", str(split), "--json"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    labels, hint = json.loads(done.stdout)["rows"][0]["taps"]
    return {
        "split": split,
        **labels["true_labels"],
        "agreement": labels["agreement"],
        "hint_signal_to_noise": hint["signal_to_noise"],
    }


def measured() -> list[dict[str, Any]]:
    """The same of the demo's answered queries, with and without noise."""
    runs = json.loads((RESULTS / "demo-ensemble.json").read_text())["results"]
    return [
        {
            "seed": run["seed"],
            "alone": run["teacher"]["mean_accuracy_alone"],
            "clean": run["students"]["unprotected"]["answers"]["label_accuracy"],
            "noisy": run["students"]["private"]["answers"]["label_accuracy"],
        }
        for run in runs
    ]


def line(name: str, runs: list[dict[str, Any]]) -> str:
    def spread(values: list[float]) -> str:
        return f"{100 * statistics.mean(values):5.1f} ± {100 * statistics.stdev(values):.1f}"

    cost = [run["clean"] - run["noisy"] for run in runs]
    columns = [spread([run[key] for run in runs]) for key in ("alone", "clean", "noisy")]
    return f"{name:<12}" + "".join(f"{text:>16}" for text in (*columns, spread(cost)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    foreseen = [forecast(options.data_root.resolve(), split) for split in SPLITS]
    real = measured()
    print(
        f"{'per cent':<12}{'one teacher':>16}{'without noise':>16}{'noisy':>16}{'noise costs':>16}"
    )
    print(line("forecast", foreseen))
    print(line("measured", real))
    result = {
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.planning --data-root DATA",
        "plan": PLAN,
        "forecast": foreseen,
        "measured": real,
        "measured_in": "demo-ensemble.json",
    }
    (RESULTS / "planning.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
