"""What the options leave open follows from what is served."""

import pytest

from ktan.errors import UserError
from teacher_server.options import ServeOptions


@pytest.mark.parametrize(
    ("given", "bytes_each", "room"),
    [
        (0, 28 * 28 + 40, 4096),
        # float32 3 × 224 × 224 and a thousand classes: 256 MB, not 2.5 GB.
        (0, 4 * (3 * 224 * 224 + 1000), 422),
        (0, 10**9, 1),
        (5000, 10**6, 5000),
    ],
)
def test_the_room_is_bounded_in_bytes_unless_it_is_given(given, bytes_each, room):
    options = ServeOptions(plaintext=True, max_waiting_samples=given)
    options.check()
    assert options.transport(bytes_each).max_waiting_samples == room


def test_a_negative_room_is_refused():
    with pytest.raises(UserError, match="--max-waiting-samples is -1; it must be at least 0"):
        ServeOptions(max_waiting_samples=-1).check()
