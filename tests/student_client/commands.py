"""What tests of the commands share: their options, and what a run leaves behind."""

import io
import json

QUERIES = 24
PRICE = 1000
SPLIT = {"--size": 200, "--private": 60, "--labelled": 30, "--unlabelled": 60, "--test": 50}
DATA = ["--dataset", "fake", *(part for pair in SPLIT.items() for part in pair)]


def result(run):
    return json.loads((run / "result.json").read_text())


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self):
        return True


def forget(config, *options):
    """Makes a run's record that of a version which did not have these options."""
    lines = config.read_text().splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in options]
    assert len(lines) - len(kept) == len(options)
    config.write_text("\n".join(kept) + "\n")
