"""How DP-SGD bounds gradients (clipping.py), by name: options know it without Opacus."""

from typing import Literal

Clipping = Literal["flat", "ghost"]
