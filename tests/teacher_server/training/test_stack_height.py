"""The rule that says how many teachers are trained at once."""

import pytest
import torch

from ktan.networks import NetworkSpec
from teacher_server.training.stack_height import stack_height

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = NetworkSpec("cnn-small", (1, 28, 28), 10)
LARGE = NetworkSpec("resnet56", (3, 32, 32), 10, {"norm": "group"})


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
def test_a_stack_has_a_teacher_and_never_more_than_there_are(spec, device):
    heights = [stack_height(spec, 32, k, device) for k in (1, 2, 10, 50, 250, 1000)]
    assert heights == sorted(heights)
    assert all(
        1 <= height <= k for height, k in zip(heights, (1, 2, 10, 50, 250, 1000), strict=True)
    )


def test_a_gpus_stacks_keep_to_their_memory():
    """An activation of the first convolution alone takes 16 x 32 x 32 floats."""
    height = stack_height(LARGE, 32, 10_000, GPU)
    assert height * 32 * 16 * 32 * 32 * 4 < 4 * 2**30
    assert stack_height(LARGE, 64, 10_000, GPU) <= height / 2 + 1
    assert stack_height(SMALL, 32, 250, GPU) == 250
