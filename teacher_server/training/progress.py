"""What a custodian sees of training: how far it is, and nothing of what is learnt.

A private loss or accuracy on a screen would be a release that nothing has charged.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from tqdm import tqdm

from ktan.interruption import Interruption


@contextmanager
def training_bar(
    what: str, steps: int, folder: Path, shown: bool
) -> Iterator[tuple[Callable[[], bool], Callable[[int], None]]]:
    """A bar over all steps of all teachers, and a ctrl-C that waits for the steps under way.

    SIGTERM, by which batch systems and torchrun end a process, waits for them, too.
    Yields `stopping` (whether to stop) and `on_step` (so many teachers took a step),
    which several threads may call. `folder`: where an interrupted run leaves its state.
    """
    lock = Lock()
    bar = tqdm(
        total=steps, desc=what, unit="step", unit_scale=True, disable=not shown, mininterval=0.5
    )

    def on_step(teachers: int) -> None:
        with lock:
            bar.update(teachers)

    with Interruption() as interruption, bar:
        try:
            yield lambda: interruption.asked, on_step
        except KeyboardInterrupt:
            # Before the message: a bar that is still open is drawn again after it.
            bar.close()
            print(f"the state is kept in {folder}; go on with --resume", file=sys.stderr)
            raise
