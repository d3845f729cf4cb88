"""Each record's gradient, of whatever views, is in the sum at no more than the bound."""

import copy

import pytest
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from teacher_server.training.clipping import Clipper, vector_layers

N = 12


class Sequences(nn.Module):
    """Linear layers of every kind: over a sequence, run twice, and over one vector."""

    def __init__(self):
        super().__init__()
        self.tokens, self.twice, self.vector = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, values):
        tokens = self.tokens(values.unflatten(1, (3, 4))).tanh().mean(dim=1)
        return self.vector(self.twice(self.twice(tokens).tanh()))


class Grouped(nn.Module):
    """Convolutions beside the plain ones: grouped, dilated, padded to the same size."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.Tanh(),
            nn.Conv2d(4, 4, 3, dilation=2, padding=2), nn.Tanh(),
            nn.Conv2d(4, 3, 3, padding="same"),
        )  # fmt: skip

    def forward(self, values):
        return self.layers(values).mean(dim=(2, 3))


class Folded(nn.Module):
    """Every layer sees a sequence's parts as if each was a record."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(4, 3)

    def forward(self, values):
        return self.part(values.reshape(-1, 4)).unflatten(0, (-1, 3)).sum(dim=1)


def resnet():
    return build(NetworkSpec("resnet8", (3, 8, 8), 3, {"norm": "group"}))


NETWORKS = {
    "mlp": (lambda: build(NetworkSpec("mlp-small", (12,), 3, {"hidden": (16, 8)})), (12,)),
    "cnn": (
        lambda: build(NetworkSpec("cnn-small", (1, 13, 13), 3, {"channels": (3, 4), "width": 5})),
        (1, 13, 13),
    ),
    "resnet": (resnet, (3, 8, 8)),
    "sequences": (Sequences, (12,)),
    "grouped": (Grouped, (2, 6, 6)),
}


def made(name, views=1, seed=0):
    make, shape = NETWORKS[name]
    torch.manual_seed(seed)
    network = make().train()
    return network, torch.randn(N * views, *shape) * 2, torch.randint(0, 3, (N,))


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def summed(network, inputs, labels, bound, clipping, views=1):
    clipper = Clipper(network, bound, clipping, inputs[:1])
    clipper.add(inputs, labels, views)
    return flat(clipper.take())


def record_gradients(network, inputs, labels, views):
    """[n, parameters]: the mean over each record's views, by torch.func: another way."""
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def loss(parameters, views_of_one, label):
        logits = functional_call(network, parameters, (views_of_one,))
        return F.cross_entropy(logits, label.expand(len(logits)))

    found = vmap(grad(loss), in_dims=(None, 0, 0))(
        parameters, inputs.unflatten(0, (-1, views)), labels
    )
    return torch.cat([found[name].flatten(1) for name in parameters], dim=1)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("clipping", ["flat", "ghost"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sum_is_of_each_records_clipped_mean_gradient(name, clipping, views):
    network, inputs, labels = made(name, views)
    rows = record_gradients(network, inputs, labels, views)
    norms = rows.norm(dim=1)
    bound = float(norms.median())
    expected = (rows * (bound / norms).clamp(max=1)[:, None]).sum(dim=0)
    found = summed(network, inputs, labels, bound, clipping, views)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_ghost_clipping_makes_no_gradient_of_a_record_where_one_vector_is_seen():
    names = {
        name: {path for path, module in network.named_modules() if module in found}
        for name in NETWORKS
        for network, inputs, _ in [made(name)]
        for found in [vector_layers(network, inputs)]
    }
    assert names["mlp"] == {"features.1", "features.3", "classifier"}
    assert names["cnn"] == {"features.5", "classifier"}
    assert names["sequences"] == {"vector"}
    assert names["grouped"] == set()


@pytest.mark.parametrize("clipping", ["flat", "ghost"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "sequences"])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e15, 1e30, float("inf"), float("nan")])
def test_no_record_is_in_the_sum_at_more_than_its_bound(name, clipping, scale):
    network, inputs, _ = made(name)
    for row in inputs[:4]:
        alone = summed(network, (row * scale)[None], torch.tensor([1]), 0.01, clipping)
        assert float(alone.double().norm()) <= 0.01 * (1 + 1e-6)


@pytest.mark.parametrize("clipping", ["flat", "ghost"])
@pytest.mark.parametrize("size", [1_000, 3_000_017, 4_000_000])
def test_a_long_gradient_is_clipped_to_its_bound(size, clipping):
    """Adding such squares one after another, torch loses up to 2e-3 of the norm on a CPU."""
    network = nn.Sequential(nn.Linear(size, 2))
    found = summed(network, torch.full((1, size), 0.1), torch.tensor([1]), 0.01, clipping)
    assert float(found.double().norm()) == pytest.approx(0.01, rel=2e-5)
    assert float(found.double().norm()) <= 0.01 * (1 + 1e-6)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("clipping", ["flat", "ghost"])
def test_a_layer_that_takes_parts_of_records_for_records_is_refused(clipping, views):
    inputs, labels = torch.randn(2 * views, 12), torch.tensor([0, 1])
    with pytest.raises(UserError, match="layer part cannot be trained by dp-sgd"):
        summed(Folded(), inputs, labels, 0.01, clipping, views)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e12])
def test_views_whose_gradients_cancel_hide_nothing(scale):
    """In float32 the Gram matrices of such views lose every digit of the norm."""
    network = nn.Sequential(nn.Linear(12, 3))
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[0].bias)
    for seed in range(20):
        view = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed)) * scale
        for off in (0.0, 2**-23, 2**-20):
            pair = torch.cat([view, -view * (1 + off)])
            found = summed(network, pair, torch.tensor([1]), 0.01, "ghost", views=2)
            assert float(found.double().norm()) <= 0.01 * (1 + 1e-6)


@pytest.mark.parametrize("clipping", ["flat", "ghost"])
def test_a_record_that_is_not_finite_leaves_the_others_as_they_are(clipping):
    network, inputs, labels = made("cnn", views=2)
    broken = inputs.clone()
    broken[6] = float("nan")  # one view of record 3
    kept = torch.arange(N) != 3
    expected = summed(
        network, inputs.unflatten(0, (N, 2))[kept].flatten(0, 1), labels[kept], 1.0, clipping, 2
    )
    found = summed(network, broken, labels, 1.0, clipping, views=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert broken[:6].equal(inputs[:6])  # nobody's samples are overwritten


@pytest.mark.parametrize("clipping", ["flat", "ghost"])
def test_chunks_add_up_to_what_opacus_makes_of_a_logical_batch(clipping):
    """Opacus's own memory manager, without noise, at a learning rate of 1."""
    network, inputs, labels = made("cnn")
    peer = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(peer.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=0.5,
        expected_batch_size=None, loss_reduction="sum",
    )  # fmt: skip
    drawn = [0, 2, 3, 7, 8, 9, 11]
    loader = DataLoader(TensorDataset(inputs, labels), batch_sampler=[drawn])
    before = flat(peer.parameters()).detach().clone()
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=3, optimizer=optimiser
    ) as parts:
        sizes = []
        for samples, targets in parts:
            F.cross_entropy(peer(samples), targets, reduction="sum").backward()
            optimiser.step()
            optimiser.zero_grad()
            sizes.append(len(samples))
    assert len(sizes) == 3
    clipper = Clipper(network, 0.5, clipping, inputs)
    for chunk in torch.tensor(drawn).split(2):
        clipper.add(inputs[chunk], labels[chunk])
    torch.testing.assert_close(
        flat(clipper.take()), before - flat(peer.parameters()).detach(), rtol=1e-3, atol=1e-5
    )
    assert not flat(clipper.take()).any()
