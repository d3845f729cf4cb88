"""Our methods beside public implementations of them: one table of a comparison and of peers.json.

    student-client compare --out OUT …
    python -m benchmarks.peers --results PEERS.json …
    python -m benchmarks.peers.beside --comparison OUT/comparison.json --peers PEERS.json

Both must have taught the same student by the same teacher with the same seeds, steps and test
samples. Writes results/methods.json and prints the table as Markdown. A method is behind its peer
when the mean of ours − peer's, seed by seed, is below 0 by more than its standard deviation.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ktan.errors import UserError

RESULT = Path(__file__).parent.parent / "results" / "methods.json"
ALONE = {"ours": "local", "peers": "alone"}
"""The student alone, as either names it."""
PEER_OF = {"kd-svd": "kd-svd-finite"}
"""Method → its peer, where that has another name: the one that can be trained."""

Spread = dict[str, float | None]


def beside(comparison: Mapping[str, Any], peers: Mapping[str, Any]) -> dict[str, Any]:
    """One row a method, the best first; accuracies and differences in [0, 1].

    Raises UserError where the two were not trained alike.
    """
    same = {
        "test samples": (comparison["test_samples"], peers["test_samples"]),
        "student": (comparison["network"], peers["student"]),
        "teacher": (comparison["teacher"]["accuracy"], peers["teacher"]["test_accuracy"]),
    }
    for what, (one, other) in same.items():
        if one != other:
            raise UserError(f"not the same {what}: {one} in the comparison, {other} by the peers")
    theirs = {row["method"]: row for row in peers["rows"]}
    rows = [_row(row, theirs) for row in comparison["rows"] if row["method"] != ALONE["ours"]]
    (alone,) = [row for row in comparison["rows"] if row["method"] == ALONE["ours"]]
    return {
        "date": peers["date"],
        "versions": peers["versions"],
        "dataset": comparison["dataset"],
        "test_samples": comparison["test_samples"],
        "student": comparison["network"],
        "teacher": comparison["teacher"]["name"],
        "teacher_accuracy": comparison["teacher"]["accuracy"],
        "seeds": comparison["seeds"],
        "steps": alone["steps"],
        "alone": {
            "ours": alone["accuracies"],
            "peers": theirs[ALONE["peers"]]["accuracies"],
        },
        "rows": rows,
    }


def _row(ours: Mapping[str, Any], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    peer = theirs.get(PEER_OF.get(ours["method"], ours["method"]))
    found: dict[str, Any] = {
        "method": ours["method"],
        "accuracies": ours["accuracies"],
        "accuracy": spread(list(ours["accuracies"].values())),
        "difference": spread(list(ours["differences"].values())),
    }
    if peer is None:
        return found
    if ours["steps"] != peer["steps"]:
        raise UserError(
            f"{ours['method']}: {ours['steps']} steps of ours, {peer['steps']} of peers"
        )
    pairs = [
        value - peer["accuracies"][seed]
        for seed, value in ours["accuracies"].items()
        if peer["accuracies"].get(seed) is not None
    ]
    to_peer = spread(pairs)
    return {
        **found,
        "peer": {key: peer[key] for key in ("source", "accuracies", "accuracy", "difference")},
        "to_peer": to_peer,
        "behind": to_peer is not None and to_peer["mean"] < -(to_peer["sd"] or 0.0),
    }


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None of no value, no deviation of one."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd}


def markdown(content: Mapping[str, Any]) -> str:
    """The table; per cent, and points of it."""
    lines = [
        "| method | accuracy, % | to the student alone | peer | peer to its student alone "
        "| ours − peer's |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        peer = row.get("peer")
        cells = [f"`{row['method']}`", _text(row["accuracy"]), _text(row["difference"], sign=True)]
        if peer is None:
            cells += ["–", "", ""]
        else:
            behind = " (behind)" if row["behind"] else ""
            cells += [
                peer["source"],
                _text(peer["difference"], sign=True),
                _text(row["to_peer"], sign=True) + behind,
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(value: Mapping[str, float | None] | None, *, sign: bool = False) -> str:
    if value is None:
        return "diverged"
    mean, sd = value["mean"], value["sd"]
    assert mean is not None
    shown = f"{100 * mean:+.2f}".replace("-", "−") if sign else f"{100 * mean:.2f}"
    return shown if sd is None else f"{shown} ± {100 * sd:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.beside", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--comparison", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULT)
    options = parser.parse_args()
    read = [json.loads(path.read_text("utf-8")) for path in (options.comparison, options.peers)]
    content = beside(*read)
    options.results.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(markdown(content))


if __name__ == "__main__":
    main()
