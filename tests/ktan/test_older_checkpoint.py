"""A checkpoint of a version that had fewer options goes on under their defaults."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch

from ktan.errors import UserError
from ktan.trainer import CHECKPOINT, TrainerOptions
from tests.ktan.test_trainer import OPTIONS, Stop, cut_at, run, same

NEW = ("unlabelled_batch", "opponent_learning_rate", "weight_decay")


def forget(path: Path, names: tuple[str, ...]) -> None:
    """Rewrites the header as if these options had not been there."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(file.metadata()["state"])
    assert set(names) <= state["options"].keys() == asdict(TrainerOptions()).keys()
    state["options"] = {k: v for k, v in state["options"].items() if k not in names}
    safetensors.torch.save_file(tensors, path, {"state": json.dumps(state)})


def test_what_is_not_recorded_was_the_default(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=8, checkpoint_every=3)
    whole, _, _ = run(options)
    with pytest.raises(Stop):
        run(options, folder=tmp_path, validate=cut_at(2))
    forget(tmp_path / CHECKPOINT, NEW)
    with pytest.raises(UserError, match=r"--opponent-learning-rate 0\.003, now 0\.1"):
        run(replace(options, opponent_learning_rate=0.1), folder=tmp_path, resume=True)
    resumed, _, history = run(options, folder=tmp_path, resume=True)
    assert same(whole, resumed)
    assert history.curves["kd"][-1][0] == 8
