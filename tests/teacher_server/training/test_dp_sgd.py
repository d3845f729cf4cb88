"""DP-SGD: the clipped sum of all drawn records, over the expected batch, plus secret noise."""

import dataclasses
import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.optimisers import learning_rate
from privacy.composition import DpSgdRun
from teacher_server.training.dp_sgd import DpSgdRecipe, train_dp_sgd
from teacher_server.training.secret_noise import SecretNoise

CPU = torch.device("cpu")
SPEC = NetworkSpec("mlp-small", (12,), 3, {"hidden": (16, 8)})
BOUND = 1.7
"""Above some records' gradients and below others'."""
ALL_ONCE = DpSgdRun(sample_rate=1.0, noise_multiplier=1e-12, steps=1)
RECIPE = DpSgdRecipe(
    spec=SPEC,
    normalise=Normalisation((0.0,) * 12, (1.0,) * 12),
    run=ALL_ONCE,
    max_grad_norm=BOUND,
    learning_rate=0.1,
    optimiser="sgd",
    chunk=7,
)


def records(count=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 12, generator=generator) * 2,
        torch.randint(0, 3, (count,), generator=generator),
    )


@pytest.fixture
def start():
    torch.manual_seed(1)
    return {name: value.clone() for name, value in build(SPEC).state_dict().items()}


def train(samples, labels, start, recipe=RECIPE, **options):
    return train_dp_sgd(samples, labels, recipe, device=CPU, start=start, **options)


def moved(trained, start):
    return torch.cat([(trained[name][0] - start[name]).flatten() for name in start])


def expected_sum(samples, labels, start, bound):
    """Σ of per-record gradients, each clipped to `bound`, by torch.func: another way."""

    network = build(SPEC)

    def loss(parameters, sample, label):
        logits = functional_call(network, parameters, (sample[None],))
        return F.cross_entropy(logits, label[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(start, samples, labels)
    rows = torch.cat([found[name].flatten(1) for name in start], dim=1)
    norms = rows.norm(dim=1)
    assert (norms > bound).any()
    assert (norms < bound).any()
    return (rows * (bound / norms).clamp(max=1)[:, None]).sum(0)


def step_size(run=ALL_ONCE):
    # Nesterov's first step moves by (1 + momentum) times the gradient.
    return 1.9 * learning_rate(RECIPE.learning_rate, 0, run.steps)


@pytest.mark.parametrize("clipping", ["flat", "ghost"])
@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_a_step_is_the_sum_of_clipped_gradients_over_the_expected_batch(start, chunk, clipping):
    samples, labels = records()
    recipe = dataclasses.replace(RECIPE, chunk=chunk, clipping=clipping)
    trained = train(samples, labels, start, recipe)
    expected = -step_size() * expected_sum(samples, labels, start, BOUND) / 50
    torch.testing.assert_close(moved(trained, start), expected, rtol=1e-3, atol=1e-6)


def test_one_record_moves_the_sum_by_at_most_its_bound(start):
    samples, labels = records()
    before = moved(train(samples, labels, start), start)
    for poison in (1e3, 1e30, float("inf"), float("nan")):
        changed = samples.clone()
        changed[17] = poison
        after = moved(train(changed, labels, start), start)
        assert after.isfinite().all()
        assert float((after - before).norm()) * 50 / step_size() <= 2 * BOUND * (1 + 1e-4)


def test_a_record_that_is_not_finite_counts_as_none(start):
    samples, labels = records()
    broken, unlabelled = samples.clone(), labels.clone()
    broken[17] = float("nan")
    unlabelled[17] = -1
    torch.testing.assert_close(
        moved(train(broken, labels, start), start), moved(train(samples, unlabelled, start), start)
    )


def test_noise_has_the_stated_deviation_and_is_never_the_same(start):
    """Without labels there is no gradient: what moves the weights is noise. α = 1e-6."""
    samples, _ = records()
    labels = torch.full((50,), -1)
    run = DpSgdRun(sample_rate=0.5, noise_multiplier=3.0, steps=1)
    recipe = dataclasses.replace(RECIPE, run=run)
    scale = step_size(run) * 3.0 * BOUND / 25
    draws = [moved(train(samples, labels, start, recipe), start) / scale for _ in range(20)]
    assert not torch.equal(draws[0], draws[1])
    assert scipy.stats.kstest(torch.cat(draws).double().numpy(), "norm").pvalue > 1e-6


IMAGES = dataclasses.replace(
    RECIPE,
    spec=NetworkSpec("cnn-small", (1, 13, 13), 3, {"channels": (3, 4), "width": 5}),
    normalise=Normalisation((0.0,), (1.0,)),
    views=3,
    augment=Augment("affine"),
    chunk=8,
)


@pytest.mark.parametrize(("recipe", "rate"), [(RECIPE, 0.5), (RECIPE, 1e-9), (IMAGES, 0.5)])
def test_noise_is_added_once_a_step_however_many_chunks_and_views(monkeypatch, recipe, rate):
    shapes = []
    drawn = SecretNoise.normal

    def counted(source, shape):
        shapes.append(shape)
        return drawn(source, shape)

    monkeypatch.setattr(SecretNoise, "normal", counted)
    recipe = dataclasses.replace(recipe, run=DpSgdRun(rate, 1.0, 4))
    samples = torch.randn(50, *recipe.spec.input_shape)
    train_dp_sgd(samples, torch.zeros(50).long(), recipe, device=CPU)
    assert shapes == 4 * [tuple(value.shape) for value in build(recipe.spec).parameters()]


def test_views_are_random_and_count_as_one_record():
    """All records in one step, of a bound above every gradient: the mean over many views."""
    samples, labels = torch.randn(20, 1, 13, 13), torch.arange(20) % 3
    recipe = dataclasses.replace(IMAGES, max_grad_norm=1e3, run=ALL_ONCE)
    ends = [
        train_dp_sgd(samples, labels, dataclasses.replace(recipe, views=views), device=CPU)
        for views in (1, 2, 2, 64, 64)
    ]
    still, two, other, many, more = (
        torch.cat([value.flatten() for value in end.values()]) for end in ends
    )
    start = torch.cat([v.flatten() for v in _fresh(recipe.spec)])
    size = float((still - start).norm())
    assert float((two - other).norm()) > 0.05 * size
    assert float((many - more).norm()) < 0.5 * float((two - other).norm())
    assert 0.3 * size < float((many - start).norm()) < 3 * size  # not 64 times as long


def _fresh(spec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [value.detach() for value in build(spec).parameters()]


def test_a_run_goes_on_in_another_mode_of_clipping_and_not_with_other_views(start, tmp_path):
    samples, labels = records()
    recipe = dataclasses.replace(RECIPE, run=DpSgdRun(0.5, 1.0, 12), clipping="flat")
    with pytest.raises(KeyboardInterrupt):
        train(samples, labels, start, recipe, folder=tmp_path, stopping=lambda: True)
    viewed = dataclasses.replace(recipe, views=2, augment=Augment("shift"))
    with pytest.raises(UserError, match="other options"):
        train(samples, labels, start, viewed, folder=tmp_path)
    taken: list[int] = []
    ghost = dataclasses.replace(recipe, clipping="ghost", chunk=3)
    train(samples, labels, start, ghost, folder=tmp_path, on_step=taken.append)
    assert len(taken) == 11
    # As earlier versions wrote it, whose runs may have been charged.
    assert recipe.fingerprint().endswith(
        "max_grad_norm=1.7, learning_rate=0.1, optimiser='sgd', chunk=0)"
    )


def test_a_step_that_draws_nobody_still_adds_noise(start):
    samples, labels = records()
    run = DpSgdRun(sample_rate=1e-9, noise_multiplier=1e-9, steps=2)
    trained = train(samples, labels, start, dataclasses.replace(RECIPE, run=run))
    assert (moved(trained, start) != 0).any()


def test_batch_norm_is_refused_with_what_to_change():
    spec = NetworkSpec("resnet8", (3, 8, 8), 3, {"norm": "batch"})
    recipe = dataclasses.replace(RECIPE, spec=spec)
    with pytest.raises(UserError, match="norm=group"):
        train_dp_sgd(torch.zeros(4, 3, 8, 8), torch.zeros(4).long(), recipe, device=CPU)


@pytest.mark.parametrize("name", ["plain_batch_norm", "centred", "running_mean"])
def test_a_network_in_which_records_meet_is_refused_however_it_hides_it(name):
    spec = NetworkSpec(f"tests.teacher_server.training.awkward_networks:{name}", (12,), 3)
    samples, labels = records()
    with pytest.raises(UserError, match="cannot be trained by dp-sgd"):
        train_dp_sgd(samples, labels, dataclasses.replace(RECIPE, spec=spec), device=CPU)


@pytest.mark.parametrize("chance", [0.5, 1e-6])
def test_a_network_that_draws_random_numbers_is_refused(chance):
    """Its masks go by places in the batch: a record before the others moves theirs."""
    spec = NetworkSpec("conv-large", (3, 16, 16), 3, {"norm": "group", "dropout": chance})
    normalise = Normalisation((0.0,) * 3, (1.0,) * 3)
    recipe = dataclasses.replace(RECIPE, spec=spec, normalise=normalise)
    with pytest.raises(UserError, match=r"random numbers .*--network-set dropout=0"):
        train_dp_sgd(torch.randn(4, 3, 16, 16), torch.zeros(4).long(), recipe, device=CPU)


def test_products_keep_all_digits_of_float32(start, monkeypatch):
    """TF32 rounds to 10 bits, and a clipped gradient could then be longer than its bound."""

    def precision():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before, samples_and_labels, during = precision(), records(), []
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        train(*samples_and_labels, start, on_step=lambda _: during.append(precision()))
        assert (during, precision()) == ([("highest", False)], ("high", True))
        monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
        with pytest.raises(UserError, match="TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set"):
            train(*samples_and_labels, start)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_a_finished_run_that_was_charged_is_never_drawn_again(start, tmp_path):
    samples, labels = records()
    recipe = dataclasses.replace(RECIPE, run=DpSgdRun(0.5, 1.0, 12))
    early: list[bytes] = []
    folder = tmp_path / "run"
    folder.mkdir()

    def keep(_):
        if not early and list(folder.iterdir()):
            early.append(next(folder.iterdir()).read_bytes())

    first = train(samples, labels, start, recipe, folder=folder, on_step=keep)
    again = train(samples, labels, start, recipe, folder=folder, charged=True)
    assert torch.equal(moved(first, start), moved(again, start))
    next(folder.iterdir()).write_bytes(early[0])
    with pytest.raises(UserError, match="second result under one charge"):
        train(samples, labels, start, recipe, folder=folder, charged=True)


def test_group_norm_is_taken():
    spec = NetworkSpec("resnet8", (3, 8, 8), 3, {"norm": "group"})
    normalise = Normalisation((0.0,) * 3, (1.0,) * 3)
    recipe = dataclasses.replace(RECIPE, spec=spec, normalise=normalise)
    trained = train_dp_sgd(torch.randn(4, 3, 8, 8), torch.zeros(4).long(), recipe, device=CPU)
    assert all(value.isfinite().all() for value in trained.values())


def test_an_interrupted_run_takes_the_steps_that_are_left_with_new_noise(start, tmp_path):
    samples, labels = records()
    recipe = dataclasses.replace(RECIPE, run=DpSgdRun(0.5, 1.0, 12))
    taken: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(samples, labels, start, recipe, folder=tmp_path, on_step=taken.append,
              stopping=lambda: len(taken) == 5)  # fmt: skip
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ends = []
    for _ in range(2):
        for path, content in kept.items():
            path.write_bytes(content)
        taken.clear()
        ends.append(train(samples, labels, start, recipe, folder=tmp_path, on_step=taken.append))
        assert len(taken) == 7
    assert not torch.equal(moved(ends[0], start), moved(ends[1], start))


def test_it_learns(start):
    samples, _ = records(600)
    labels = (samples @ torch.randn(12, 3, generator=torch.Generator().manual_seed(5))).argmax(1)
    recipe = dataclasses.replace(
        RECIPE, run=DpSgdRun(0.2, 0.5, 60), max_grad_norm=1.0, learning_rate=0.3, chunk=200
    )
    trained = train(samples, labels, start, recipe)
    network = build(SPEC)
    network.load_state_dict({name: value[0] for name, value in trained.items()})
    assert float((network(samples).argmax(1) == labels).float().mean()) > 0.8
    assert math.isfinite(float(moved(trained, start).norm()))
