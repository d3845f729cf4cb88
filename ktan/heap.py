"""Memory that one pass gives back is there for the next, instead of going to the system between.

glibc returns large blocks to the system when they are freed, and gets them anew, page by page, in
the next pass. In a loop of forward passes that took up to 0.4 of a core's time
(benchmarks/ensemble.py).
"""

import ctypes
import sys

# malloc.h; the largest threshold that mallopt takes is 32 MB.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 512 * 2**20, _TOP_PAD: 64 * 2**20}


def keep_freed_memory() -> bool:
    """For the whole process, from now on; whether the C library has such a setting.

    Up to 512 MB that are freed stay with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    taken = [set_option(name, value) for name, value in _SETTINGS.items()]
    return taken == [1] * len(_SETTINGS)
