"""How large a message may be, how many samples fit, how long a call may take: on both sides."""

from typing import Final

MAX_REQUEST_BYTES: Final = 8 * 2**20
MAX_RESPONSE_BYTES: Final = 4 * 2**20
LONGEST_SECONDS: Final = 600.0
"""A call's deadline, at most: an answer that nobody reads is held until then."""
_OVERHEAD: Final = 2**16
"""Bytes of a message kept free for names, shapes, receipt and framing."""


def samples_per_request(sample_bytes: int, answer_bytes: int) -> int:
    """The most samples that fit one request and whose answers fit one response; 0: not even one."""
    return min(
        (MAX_REQUEST_BYTES - _OVERHEAD) // sample_bytes,
        (MAX_RESPONSE_BYTES - _OVERHEAD) // answer_bytes,
    )
