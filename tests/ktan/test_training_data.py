import pytest
import torch

from ktan.data import Augment, Normalisation
from ktan.training_data import BatchStream, TrainingData

NORMALISE = Normalisation((10.0,), (2.0,))
CPU = torch.device("cpu")


def numbered(first: int, count: int) -> torch.Tensor:
    """Images that say their own number in every pixel."""
    return (torch.arange(first, first + count)[:, None, None, None] * torch.ones(1, 2, 2)).byte()


def stream(labelled: int = 7, answered: int = 10, seed: int = 0, augment: str = "none"):
    data = TrainingData(
        numbered(0, labelled),
        torch.arange(labelled),
        numbered(100, answered),
        {"hint": torch.arange(100.0, 100 + answered)[:, None]},
    )
    return BatchStream(
        data,
        labelled_batch=3,
        answered_batch=4,
        seed=seed,
        device=CPU,
        normalise=NORMALISE,
        augment=Augment(augment),
    )


def test_samples_labels_and_answers_stay_together_and_are_normalised() -> None:
    for step in range(12):
        batch = stream().batch(step)
        assert len(batch) == 7
        assert torch.equal(batch.labelled[:, 0, 0, 0] * 2 + 10, batch.labels.float())
        assert torch.equal(batch.answered[:, 0, 1, 1] * 2 + 10, batch.answers["hint"][:, 0])
        assert (batch.answered_labels == -1).all()
        assert batch.all_labels.tolist() == [*batch.labels.tolist(), -1, -1, -1, -1]


def test_each_pass_sees_every_sample_once_in_a_new_order() -> None:
    batches = stream()
    seen = torch.cat([batches.batch(step).answers["hint"][:, 0] for step in range(10)])
    passes = seen.reshape(4, 10)
    for order in passes:
        assert sorted(order.tolist()) == list(range(100, 110))
    assert len({tuple(order.tolist()) for order in passes}) == 4
    assert batches.steps_per_epoch == 3


def test_a_step_is_a_function_of_seed_and_number_alone() -> None:
    forwards, jumped = stream(augment="shift"), stream(augment="shift")
    walked = [forwards.batch(step) for step in range(9)]
    for step in (8, 2, 5):
        found = jumped.batch(step)
        assert torch.equal(found.answered, walked[step].answered)
        assert torch.equal(found.labelled, walked[step].labelled)
    other = [stream(seed=1).batch(step).labels for step in range(9)]
    assert any(not torch.equal(a, b.labels) for a, b in zip(other, walked, strict=True))


def test_parts_smaller_than_a_batch_come_whole() -> None:
    batch = stream(labelled=2, answered=1).batch(5)
    assert sorted(batch.labels.tolist()) == [0, 1]
    assert len(batch.answered) == 1


def test_unequal_lengths_are_refused() -> None:
    samples = numbered(0, 3)
    with pytest.raises(ValueError, match="3 samples, 2 labels"):
        TrainingData(samples, torch.zeros(2).long())
    with pytest.raises(ValueError, match="2 answers of 'hint'"):
        TrainingData(samples, torch.zeros(3).long(), samples, {"hint": torch.zeros(2, 1)})
