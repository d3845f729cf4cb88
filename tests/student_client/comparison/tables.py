"""What tests of the command share: its options, and what it leaves behind."""

import json

import safetensors.numpy

QUERIES = 24
PRICE = 1000
SPLIT = {"--size": 200, "--private": 60, "--labelled": 40, "--unlabelled": 60, "--test": 40}
STUDENT = {"--network": "cnn-small", "--network-set": "width=8"}
BATCHES = {"--labelled-batch": 10, "--answered-batch": 10}
USUAL = {"--dataset": "fake", **SPLIT, **STUDENT, **BATCHES, "--steps": 4}


def table(folder):
    return json.loads((folder / "comparison.json").read_text())


def weights(folder):
    """Run → weights of its student."""
    return {
        path.parent.parent.name: safetensors.numpy.load_file(path)
        for path in sorted(folder.glob("runs/*/student/weights.safetensors"))
    }


def same(one, other):
    return one.keys() == other.keys() and all(
        (one[run][name] == other[run][name]).all() for run in one for name in one[run]
    )
