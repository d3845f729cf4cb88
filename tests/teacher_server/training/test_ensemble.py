"""The rules of DESIGN.md for k teachers: locality, k never changes; and exact resume."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ktan.data import Augment, Normalisation
from ktan.networks import NetworkSpec, build
from ktan.optimisers import learning_rate
from teacher_server.training.ensemble import train_ensemble
from teacher_server.training.recipe import EnsembleRecipe
from teacher_server.training.shard_batches import ShardBatches

CPU = torch.device("cpu")
K, SIZE = 6, 40
TABLE = EnsembleRecipe(
    spec=NetworkSpec("mlp-small", (12,), 3, {"hidden": (16, 8)}),
    normalise=Normalisation((0.0,) * 12, (1.0,) * 12),
    steps=12,
    batch=16,
    learning_rate=1e-2,
    optimiser="adam",
    weight_decay=0.01,
    augment=Augment("none"),
    precision="float32",
    seed=3,
    stack=3,
)
IMAGES = dataclasses.replace(
    TABLE,
    spec=NetworkSpec("cnn-small", (1, 16, 16), 3, {"channels": (4, 8), "width": 8}),
    normalise=Normalisation((100.0,), (60.0,)),
    augment=Augment("affine"),
)


def records(recipe, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(K * SIZE, *recipe.spec.input_shape, generator=generator)
    if len(recipe.spec.input_shape) == 3:
        samples = 100 + 60 * samples
    labels = torch.randint(0, 3, (K * SIZE,), generator=generator)
    return samples, labels, [np.arange(i * SIZE, (i + 1) * SIZE) for i in range(K)]


def same_but(one, other, changed):
    """Whether all teachers but `changed` are bit for bit the same."""
    kept = [i for i in range(K) if i != changed]
    return all(torch.equal(one[name][kept], other[name][kept]) for name in one)


DROPOUT = dataclasses.replace(
    TABLE,
    spec=NetworkSpec("tests.teacher_server.training.awkward_networks:dropout", (12,), 3),
)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("recipe", [TABLE, IMAGES, DROPOUT], ids=["table", "images", "dropout"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30, "labels", "other records"])
def test_one_shards_content_reaches_its_own_teacher_only(recipe, poison, precision):
    recipe = dataclasses.replace(recipe, precision=precision)
    samples, labels, shards = records(recipe)
    before = train_ensemble(samples, labels, shards, recipe, device=CPU)
    changed_samples, changed_labels = samples.clone(), labels.clone()
    mine = torch.from_numpy(shards[4])
    if poison == "labels":
        changed_labels[mine] = -1
    elif poison == "other records":
        changed_samples[mine] = samples[mine].flip(0) * 0.5
    else:
        changed_samples[mine] = poison
    after = train_ensemble(changed_samples, changed_labels, shards, recipe, device=CPU)
    assert same_but(before, after, changed=4)
    assert not all(torch.equal(before[name][4], after[name][4]) for name in before)
    assert all(len(value) == K for value in after.values())


def test_the_size_of_one_shard_reaches_its_own_teacher_only():
    samples, labels, shards = records(TABLE)
    before = train_ensemble(samples, labels, shards, TABLE, device=CPU)
    fewer = [shard if i != 2 else shard[:5] for i, shard in enumerate(shards)]
    assert same_but(before, train_ensemble(samples, labels, fewer, TABLE, device=CPU), changed=2)


def test_an_empty_shard_still_counts_and_leaves_nothing_to_answer_with():
    samples, labels, shards = records(TABLE)
    before = train_ensemble(samples, labels, shards, TABLE, device=CPU)
    shards[1] = np.array([], dtype=np.int64)
    after = train_ensemble(samples, labels, shards, TABLE, device=CPU)
    assert same_but(before, after, changed=1)
    assert all(value[1].isnan().all() for value in after.values())


@pytest.mark.parametrize(
    "spec",
    [TABLE.spec, NetworkSpec("resnet8", (3, 8, 8), 3, {"norm": "batch"})],
    ids=["stacked", "batch norm, one by one"],
)
def test_every_teacher_is_what_a_plain_loop_over_its_shard_makes(spec):
    recipe = dataclasses.replace(
        TABLE,
        spec=spec,
        normalise=Normalisation((0.0,) * spec.input_shape[0], (1.0,) * spec.input_shape[0]),
        optimiser="sgd",
        weight_decay=0.0,
        steps=5,
    )
    samples, labels, shards = records(recipe)
    torch.manual_seed(0)
    start = {n: v.clone() for n, v in build(spec).state_dict().items()}
    trained = train_ensemble(samples, labels, shards, recipe, device=CPU, start=start)
    for teacher in (0, 4):
        network = build(spec)
        network.load_state_dict(start)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        batches = ShardBatches(shards[teacher], recipe.batch, recipe.seed, teacher)
        for step in range(recipe.steps):
            places = torch.from_numpy(batches(step))
            optimiser.param_groups[0]["lr"] = learning_rate(
                recipe.learning_rate, step, recipe.steps
            )
            optimiser.zero_grad()
            F.cross_entropy(network(samples[places]), labels[places]).backward()
            optimiser.step()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(trained[name][teacher], value, rtol=1e-3, atol=1e-4)


def test_records_without_a_label_teach_nothing():
    samples, labels, shards = records(TABLE)
    half = [shard[: SIZE // 2] for shard in shards]
    hidden = labels.clone()
    for shard in shards:
        hidden[torch.from_numpy(shard[SIZE // 2 :])] = -1
    changed = samples.clone()
    changed[hidden < 0] += 100
    a = train_ensemble(samples, hidden, shards, TABLE, device=CPU)
    b = train_ensemble(changed, hidden, shards, TABLE, device=CPU)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(
        a["classifier.weight"],
        train_ensemble(samples, labels, half, TABLE, device=CPU)["classifier.weight"],
    )


@pytest.mark.parametrize("stop_after", [1, 7, 20])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, stop_after):
    samples, labels, shards = records(IMAGES)
    whole = train_ensemble(samples, labels, shards, IMAGES, device=CPU)
    asked = iter(range(10**6))
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(
            samples, labels, shards, IMAGES, device=CPU, folder=tmp_path,
            stopping=lambda: next(asked) >= stop_after,
        )  # fmt: skip
    steps = []
    resumed = train_ensemble(
        samples, labels, shards, IMAGES, device=CPU, folder=tmp_path, on_step=steps.append
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert sum(steps) < K * IMAGES.steps  # it did not begin anew


def test_another_recipe_does_not_continue_a_state(tmp_path):
    samples, labels, shards = records(TABLE)
    train_ensemble(samples, labels, shards, TABLE, device=CPU, folder=tmp_path)
    other = dataclasses.replace(TABLE, learning_rate=0.5)
    with pytest.raises(ValueError, match="other options"):
        train_ensemble(samples, labels, shards, other, device=CPU, folder=tmp_path)


def test_the_number_of_torch_threads_is_given_back():
    samples, labels, shards = records(TABLE)
    torch.set_num_threads(2)
    train_ensemble(samples, labels, shards, TABLE, device=CPU)
    assert torch.get_num_threads() == 2
