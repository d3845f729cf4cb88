"""The audit of the running service at full size: the service as it is, and with noise × 0.95.

    python -m benchmarks.mechanism [--trials 100000]

The first must show between 0.9 and 1.0 of the claimed μ, the second must fail. Both start the
rehearsal as a process and ask it over the wire; the fault is planted before its start.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "mechanism.json"

SCALED = """
import numpy as np
from privacy.noise import RoundedGaussian
right = RoundedGaussian.sample
RoundedGaussian.sample = lambda source, count: np.rint(0.95 * right(source, count)).astype(np.int64)
from teacher_server.rehearsal.command import main
main()
"""


def audited(*options: str) -> dict[str, Any]:
    """What `privacy-audit mechanism --json` prints. Raises RuntimeError when it made no audit."""
    words = [sys.executable, "-m", "privacy.audit.cli", "mechanism", "--json", *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"no audit was made: {shlex.join(words)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"exit_code": done.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    size = ("--trials", str(parser.parse_args().trials))
    scaled = shlex.join([sys.executable, "-c", SCALED])
    services = {
        "as it is": audited(*size),
        "noise × 0.95": audited(*size, "--server-command", scaled),
    }
    print(f"{'service':<14}{'case':<28}{'claimed μ':>11}{'μ at least':>12}{'of claim':>10}")
    for name, found in services.items():
        for case in found["cases"]:
            part = case["mu_lower"] / case["claimed_mu"]
            verdict = "FAIL" if case["fault"] else "pass"
            print(
                f"{name:<14}{case['case']:<28}{case['claimed_mu']:>11.4f}"
                f"{case['mu_lower']:>12.4f}{part:>10.3f}  {verdict}"
            )
        print(
            f"{name}: exit code {found['exit_code']}, {len(found['faults'])} faults, "
            f"{found['samples_asked']:,} samples in {found['seconds']:.0f} s"
        )
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m benchmarks.mechanism --trials {size[1]}",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    RESULT.write_text(
        json.dumps(facts | {"services": services}, indent=2, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
