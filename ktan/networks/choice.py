"""The network that suits some samples, and options of a network as a command line has them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ktan.errors import UserError


def suited(input_shape: tuple[int, ...]) -> str:
    """mlp-small for tables and tiny images, cnn-small for small grey images, else resnet20."""
    if len(input_shape) == 1 or min(input_shape[1:]) < 8:
        return "mlp-small"
    channels, height, width = input_shape
    small_and_grey = channels == 1 and min(height, width) >= 13 and max(height, width) <= 32
    return "cnn-small" if small_and_grey else "resnet20"


def parse_settings(option: str, texts: Sequence[str]) -> Mapping[str, Any]:
    """`["width=32", "norm=group"]` as {"width": 32, "norm": "group"}: JSON where it is JSON.

    `soft-logits.kd-weight=1`, an option of one part, keeps the part's name as it is. Raises
    UserError, naming `option`, for a text without '=' and for a name given twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        part, dot, own = name.strip().rpartition(".")
        own = own.replace("-", "_")
        name = part + dot + own
        if not separator or not own.isidentifier():
            raise UserError(f"{option} wants NAME=VALUE, not '{text}'")
        if name in settings:
            raise UserError(f"{option} gives {name} twice")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value.strip()
    return settings
