"""Which starts under torchrun are further attempts at a run that this very job has begun.

torchrun starts a failed run's processes again with the same words. Such a start resumes by itself;
one that was refused, because the folder holds another job's run, is refused again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ktan.durable import write_durably
from ktan.parallel import Group

_STARTED_BY: Final = "torchrun-job"
_JOB: Final = "TORCHELASTIC_RUN_ID"


def note_start(out: Path, group: Group) -> None:
    """Writes into a run's folder which of torchrun's jobs has begun it, or gone on with it."""
    if group.count > 1 and group.leads:
        write_durably(out / _STARTED_BY, os.environ.get(_JOB, "").encode())


def is_own_restart(out: Path, group: Group) -> bool:
    """Whether this is a further attempt of the job that `note_start` has noted."""
    noted = out / _STARTED_BY
    return (
        group.restarted
        and noted.exists()
        and noted.read_text(encoding="utf-8") == os.environ.get(_JOB, "")
    )
