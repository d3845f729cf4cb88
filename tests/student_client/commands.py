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
