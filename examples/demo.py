"""The whole of it on one machine: train, serve over mTLS, teach, audit, compare.

Three commands run as three real processes, as they would on three hosts; this file only drives
them and draws what they report. Private records are glyphs that no student ever sees; everything
measured is measured on public test samples.

    python -m examples.demo --mode ensemble --seeds 0,1,2 --out runs/demo
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

from examples.settings import DP_SGD, ENSEMBLE
from examples.table import draw, tabulate
from examples.world import World

MARKER = ".ktan-demo"


def fresh(folder: Path) -> Path:
    """An empty folder; deletes only what an earlier demo made."""
    if folder.exists():
        if not (folder / MARKER).exists():
            sys.exit(f"{folder} exists and is not an earlier demo's; name another with --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("ensemble", "dp-sgd"), default="ensemble")
    parser.add_argument("--seeds", default="0", help="comma-separated, a whole run each")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    options = parser.parse_args()
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    setting = ENSEMBLE if options.mode == "ensemble" else DP_SGD
    out = fresh(options.out)
    results = []
    for seed in (int(text) for text in options.seeds.split(",")):
        world = out / f"seed-{seed}"
        world.mkdir()
        results.append(World(world, setting, seed).run())
        (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print("\n" + tabulate(results))
    print(f"seconds per run: {', '.join(str(r['seconds']) for r in results)}"
          f" (median {statistics.median(r['seconds'] for r in results):g})")  # fmt: skip
    print(f"picture: {draw(results, out)}\nfigures: {out / 'results.json'}")


if __name__ == "__main__":
    main()
