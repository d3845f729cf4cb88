"""Discriminators: judges of whose hint they see."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from ktan.errors import UserError


def discriminator(shape: tuple[int, ...], width: int = 64) -> nn.Module:
    """A judge of hints of `shape` [m] or [c, h, w]; scores [n] or, for a map, [n, h'·w'].

    A vector's judge is an MLP, a map's is a convolutional one that scores overlapping patches, so
    that it learns the map's spatial correlation (KTAN). No batch norm: it would tell teacher from
    student by the batch's statistics. Spectral normalisation (Miyato et al. 2018) bounds the
    gradient that the student gets from a D that wins. Raises UserError for a width below 1.
    """
    if width < 1:
        raise UserError(f"discriminator_width is {width}; it must be at least 1")
    if len(shape) == 1:
        return nn.Sequential(
            spectral_norm(nn.Linear(shape[0], width)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(width, width)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(width, 1)),
            nn.Flatten(0),
        )
    if len(shape) == 3:
        return nn.Sequential(
            spectral_norm(nn.Conv2d(shape[0], width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 1, 1)),
            nn.Flatten(1),
        )
    raise ValueError(f"no discriminator for hints of shape {shape}; [m] or [c, h, w] is expected")


@contextmanager
def weights_made_once(judge: nn.Module) -> Iterator[None]:
    """Within, a judge's spectral normalisation is computed once, in float32, for all its calls.

    Autocast within then reaches its layers alone, and not the power iteration.
    """
    with parametrize.cached():
        for module in judge.modules():
            if parametrize.is_parametrized(module, "weight"):
                module.weight  # noqa: B018
        yield
