"""Which device and which number format a run uses."""

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from ktan.errors import UserError

Precision = Literal["auto", "float32", "bf16", "fp16"]
UnscaledPrecision = Literal["auto", "float32", "bf16"]
"""What trains without gradient scaling: small gradients vanish in fp16."""


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU when there is one, else the CPU. Raises UserError for one not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} asked for, and no GPU is there; choose auto or cpu")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 faster than it would by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # With AVX-512 alone oneDNN computes in bf16, too, by way of float32.
    emulated = platform.machine() in ("x86_64", "AMD64") and not (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return not emulated


def resolve_precision(device: torch.device, precision: Precision) -> Precision:
    """`auto` is bf16 where the hardware has it, fp16 on a GPU that has not, else float32.

    For passes that are safe in fp16: those that train with gradient scaling, and those that do not
    train.
    """
    if precision != "auto":
        return precision
    if has_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "float32"


def half_type(device: torch.device, precision: Precision) -> torch.dtype | None:
    """What a pass in this precision multiplies in; None for float32. `auto` is never fp16 here."""
    if precision == "fp16":
        return torch.float16
    if precision == "bf16" or (precision == "auto" and has_bf16(device)):
        return torch.bfloat16
    return None


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The forward pass's context. `auto` is bf16 where the hardware has it, else float32."""
    dtype = half_type(device, precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
