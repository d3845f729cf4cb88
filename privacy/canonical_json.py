"""The one byte form of a JSON object that is hashed or signed.

Keys sorted, no white space, ASCII only, no NaN or infinity; floats in Python's shortest form that
reads back to the same float64. A reader in another language checks the bytes as they were sent
and never has to write them itself.
"""

import json
import math
from json.encoder import encode_basestring_ascii
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def encode(value: Any) -> bytes:
    """Canonical bytes of a JSON value. Raises ValueError for NaN, infinity or a foreign type."""
    try:
        text = _ENCODER.encode(value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return text.encode("ascii")


def encode_string(value: str) -> str:
    """Canonical text of a string, quotes included."""
    return encode_basestring_ascii(value)


def encode_float(value: float) -> str:
    """Canonical text of a float. Raises ValueError for NaN and infinity."""
    if not math.isfinite(value):
        raise ValueError(f"a float that JSON cannot hold: {value}")
    return float.__repr__(value)


def decode(data: bytes) -> dict[str, Any]:
    """Reads a canonical object back.

    Raises ValueError for anything that `encode` would have written differently: white space,
    another order of keys, a key twice, text after the object, or a value that is no object.
    """
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict) or encode(value) != data:
        raise ValueError("not a JSON object in canonical form")
    return value


def integer(value: Any) -> int:
    """`value` as a non-negative integer. Raises ValueError for any other type, bool included."""
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a non-negative integer, got {value!r}")
    return value


def text(value: Any) -> str:
    """`value` as a string. Raises ValueError for any other type."""
    if type(value) is not str:
        raise ValueError(f"expected a string, got {value!r}")
    return value


def digest(value: Any) -> bytes:
    """32 bytes from their lower-case hexadecimal form. Raises ValueError for any other text."""
    data = bytes.fromhex(text(value))
    if len(data) != 32 or data.hex() != value:
        raise ValueError("expected 64 lower-case hexadecimal digits")
    return data


def exactly(value: Any, keys: frozenset[str]) -> dict[str, Any]:
    """`value` as an object of exactly these keys. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    if value.keys() != keys:
        differing = ", ".join(sorted(str(key) for key in value.keys() ^ keys))
        raise ValueError(f"missing or unknown fields: {differing}")
    return value
