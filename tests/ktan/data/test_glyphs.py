"""Glyphs are the same on every run, and as hard as the demonstration needs them to be."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from ktan.data.glyphs import Distortion, distance_fields, load_glyphs, render
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, small products on several threads take a hundred times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def test_a_longer_set_begins_with_the_shorter() -> None:
    samples, labels = render(4200)
    fewer, first = render(100)
    assert samples.dtype == torch.uint8
    assert samples.shape == (4200, 1, 28, 28)
    assert torch.equal(samples[:100], fewer)
    assert torch.equal(labels[:100], first)
    assert not torch.equal(samples[4096:4196], fewer)
    assert not torch.equal(render(100, seed=7)[0], fewer)


def test_classes_are_balanced_and_images_are_not_blank() -> None:
    _, labels = render(4096)
    # 410 of each expected, sd 19: six sd away has a chance below 1e-8.
    assert (torch.bincount(labels, minlength=10) - 410).abs().max() < 6 * 20
    clean, _ = render(4096, distortion=Distortion(noise=0))
    ink = clean.flatten(1).float().mean(1)
    assert ink.min() > 1.5
    assert ink.max() < 110
    # The margin of the picture holds nothing but noise for almost all digits.
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert (clean[:, 0][:, border].amax(1) > 128).float().mean() < 0.01


def test_fields_are_distances_of_centred_digits() -> None:
    fields = distance_fields()
    assert fields.shape[1:] == (10, 64, 64)
    assert len(fields) >= 20
    inside = fields < 0
    rows = inside.any(3)
    height = rows.float().sum(2)
    assert ((height - 40).abs() <= 2).all()
    middle = (rows * torch.arange(64.0)).sum(2) / height
    assert ((middle - 31.5).abs() < 1.5).all()
    # A distance changes by at most one pixel a pixel, and by the width of the outline (a quarter
    # pixel, as it was drawn four times larger) across it.
    assert fields.diff(dim=2).abs().max() < 1.26
    assert fields.diff(dim=3).abs().max() < 1.26


def test_all_fonts_agree_on_what_a_digit_is() -> None:
    """A font with symbols or old-style figures in place of digits would sit apart."""
    ink = (0.5 - distance_fields()).clamp(0, 1)
    mean = ink.mean(0).flatten(1)
    right = 0
    for font in ink:
        distance = torch.cdist(font.flatten(1), mean)
        right += int((distance.argmin(1) == torch.arange(10)).sum())
    assert right >= 0.95 * 10 * len(ink)


def test_made_once_then_mapped(tmp_path: Path) -> None:
    first = load_glyphs(tmp_path, 500)
    files = sorted(tmp_path.rglob("*.npy"))
    stamps = [file.stat().st_mtime_ns for file in files]
    again = load_glyphs(tmp_path, 500)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*.npy"))] == stamps
    assert torch.equal(first.samples, again.samples)
    assert torch.equal(first.samples, render(500)[0])
    assert again.location == tmp_path / "glyphs"
    assert not again.holdout.any()
    # Copy-on-write: what a careless caller does to the tensor never reaches the file.
    again.samples[0] = 255
    assert torch.equal(load_glyphs(tmp_path, 500).samples, first.samples)
    stored = next(file for file in files if "samples" in file.name)
    assert np.load(stored).shape == (500, 1, 28, 28)
    with pytest.raises(UserError, match="--size is 0"):
        load_glyphs(tmp_path, 0)


def test_a_linear_model_fails_where_a_small_network_already_learns() -> None:
    samples, labels = render(10_000)
    inputs = (samples.float() - 43.6) / 63.2
    linear = _linear_accuracy(inputs, labels, 8000)
    network = _network_accuracy(inputs, labels, 8000, epochs=3)
    assert linear < 0.90
    assert network > 0.95
    assert network > linear + 0.08


@pytest.mark.long
def test_difficulty_with_sixty_thousand_samples() -> None:
    samples, labels = render(66_000)
    inputs = (samples.float() - 43.6) / 63.2
    assert 0.80 < _linear_accuracy(inputs, labels, 60_000) < 0.90
    assert _network_accuracy(inputs, labels, 60_000, epochs=3) > 0.98


def _linear_accuracy(inputs: Tensor, labels: Tensor, training: int) -> float:
    flat = inputs.flatten(1).numpy()
    model = LogisticRegression(C=1e-3, max_iter=200, tol=1e-3)
    model.fit(flat[:training], labels[:training].numpy())
    return float(model.score(flat[training:], labels[training:].numpy()))


def _network_accuracy(inputs: Tensor, labels: Tensor, training: int, epochs: int) -> float:
    torch.manual_seed(0)
    network = build(NetworkSpec("cnn-small", (1, 28, 28), 10))
    optimiser = torch.optim.Adam(network.parameters())
    steps = epochs * (training // 100)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(training).view(-1, 100):
            optimiser.zero_grad()
            F.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        right = network(inputs[training:]).argmax(1) == labels[training:]
    return float(right.float().mean())
