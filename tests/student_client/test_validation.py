"""Samples held out to watch: they are labelled, never trained on, and no test sample."""

import numpy as np
import pytest
import torch

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.trainer import TrainerOptions
from student_client import results, training
from student_client.connection import Connection
from student_client.options import CourseOptions, QueryOptions, StudentOptions
from student_client.public_data import PublicData
from student_client.runs import Run, train_student
from student_client.screen import Screen
from student_client.student_card import read_card

DATA = DataSource(dataset="fake", size=200)
RECIPE = SplitRecipe(private=60, labelled=30, unlabelled=60, test=50)


@pytest.fixture(scope="module")
def public():
    return PublicData.load(DATA, RECIPE)


def pictures(samples):
    return {sample.numpy().tobytes() for sample in samples}


def test_the_labelled_part_is_divided_and_nothing_else_moves(public):
    divided = public.holding_out(8)
    assert (len(divided.validation), len(divided.labelled)) == (8, 22)
    assert pictures(divided.validation) | pictures(divided.labelled) == pictures(public.labelled)
    assert not pictures(divided.validation) & pictures(divided.labelled)
    for part in ("test", "unlabelled"):
        assert torch.equal(divided.part(part)[0], public.part(part)[0])
    label_of = {
        sample.numpy().tobytes(): int(label)
        for sample, label in zip(public.labelled, public.labels, strict=True)
    }
    for samples, labels in (
        (divided.validation, divided.validation_labels),
        (divided.labelled, divided.labels),
    ):
        assert [label_of[sample.numpy().tobytes()] for sample in samples] == labels.tolist()
    again = PublicData.load(DATA, RECIPE).holding_out(8)
    assert torch.equal(again.validation, divided.validation)
    # More are the same and further ones.
    assert pictures(divided.validation) < pictures(public.holding_out(12).validation)


def test_by_default_a_tenth_is_held_out_where_there_are_enough(public):
    assert len(public.holding_out(None).validation) == 0
    many = SplitRecipe(private=60, labelled=1005, unlabelled=60, test=50)
    data = PublicData.load(DataSource(dataset="fake", size=1200), many)
    assert len(data.holding_out(None).validation) == 100
    assert len(data.holding_out(0).validation) == 0


def test_a_persons_records_stay_together(tmp_path):
    numbers = np.random.default_rng(0)
    np.savez(
        tmp_path / "visits.npz",
        samples=numbers.normal(size=(90, 4)).astype(np.float32),
        labels=np.arange(90) % 2,
        unit_ids=np.arange(90) // 3,
        classes=["0", "1"],
    )
    source = DataSource(dataset=f"arrays:{tmp_path / 'visits.npz'}")
    public = PublicData.load(source, SplitRecipe(private=5, labelled=15, unlabelled=5, test=5))
    divided = public.holding_out(4)
    assert (len(divided.validation), len(divided.labelled)) == (12, 33)
    unit_of = {
        sample.numpy().tobytes(): int(unit)
        for sample, unit in zip(
            public.labelled, public.split.unit_ids[public.split.labelled], strict=True
        )
    }
    held, left = (
        {unit_of[sample.numpy().tobytes()] for sample in samples}
        for samples in (divided.validation, divided.labelled)
    )
    assert (len(held), len(left), held & left) == (4, 11, set())


@pytest.mark.parametrize("count", [-1, 30, 31])
def test_none_left_to_train_on_is_refused(public, count):
    with pytest.raises(UserError, match=f"--validation is {count}, and fake has 30 labelled"):
        public.holding_out(count)


def test_without_labels_there_is_nothing_to_hold_out():
    public = PublicData.load(DATA, SplitRecipe(private=60, labelled=0, unlabelled=60, test=50))
    assert len(public.holding_out(None).validation) == 0


def trained(out, validation):
    run = Run(
        "none", out, DATA, RECIPE, StudentOptions(), QueryOptions(),
        TrainerOptions(steps=6, labelled_batch=10, device="cpu", checkpoint_every=2),
        Connection(), CourseOptions(validation=validation),
    )  # fmt: skip
    return train_student(run, Screen(quiet=True), resume=False, agreed=True)


def test_the_test_part_is_touched_once_at_the_end(tmp_path, monkeypatch, public):
    looked = []

    def spy(name, measure):
        def measured(network, samples, labels, **options):
            looked.append((name, pictures(samples)))
            return measure(network, samples, labels, **options)

        return measured

    for module in (training, results):
        monkeypatch.setattr(module, "accuracy", spy(module.__name__, module.accuracy))
    result = trained(tmp_path / "run", 6)
    held = pictures(public.holding_out(6).validation)
    assert looked == [
        *[("student_client.training", held)] * 3,
        ("student_client.results", pictures(public.test)),
    ]
    assert result["validation_samples"] == 6
    assert "validation_accuracy" in result["last"]
    assert read_card(tmp_path / "run").validation_samples == 6


def test_without_held_out_samples_there_is_no_such_curve(tmp_path):
    result = trained(tmp_path / "run", 0)
    assert result["validation_samples"] == 0
    assert "validation_accuracy" not in result["last"]
    assert result["accuracy"] is not None
