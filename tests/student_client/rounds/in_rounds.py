"""What tests of runs in rounds share: their sizes, their faults, and what they leave behind."""

import json
import os
import signal

import grpc
import safetensors.numpy

from ktan import pupil
from ktan.data import DataSource, SplitRecipe
from student_client.runs import train_student
from student_client.screen import Screen

QUERIES, ROUNDS = 12, 3
RECIPE = SplitRecipe(private=60, labelled=30, unlabelled=60, test=20)
DATA = DataSource(dataset="fake", size=200)


def go(one, *, resume=False, enough=False, agreed=True):
    return train_student(one, Screen(quiet=True), resume=resume, agreed=agreed, enough=enough)


def weights(one):
    return safetensors.numpy.load_file(one.out / "student/weights.safetensors")


def selection(one):
    return json.loads((one.out / "selection.json").read_text())


def same(one, two):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    return all((first[name] == second[name]).all() for name in first)


def broken(context, *_):
    context.abort(grpc.StatusCode.UNKNOWN, "broken")


def fine(*_):
    pass


def interrupting(monkeypatch, after):
    """Ctrl-C at the checkpoint of step `after`."""
    save = pupil.save_checkpoint

    def saving(path, modules, optimisers, state, *others):
        save(path, modules, optimisers, state, *others)
        if state["step"] == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pupil, "save_checkpoint", saving)
