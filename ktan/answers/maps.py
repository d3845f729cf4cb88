"""How many files of one request each are mapped at once: a process can map some 65,000 files."""

import threading
import weakref
from collections import OrderedDict

from ktan.answers.files import AnswerFile

MOST = 2048
"""Of one store; twice what lies beside the shards of a store that is written to."""


class Maps:
    """Of the files that are added those stay mapped that were used last."""

    def __init__(self) -> None:
        # A file knows its maps: it goes, and its map with it, with the last who reads it.
        self._used: OrderedDict[weakref.ref[AnswerFile], None] = OrderedDict()
        # Answers are read ahead in a thread.
        self._lock = threading.Lock()

    def add(self, file: AnswerFile) -> None:
        """Lets go of it when others were used since."""
        file.on_use = self._use
        self._use(file)

    def forget(self, file: AnswerFile) -> None:
        """Leaves it as it is; while it is mapped it can be read, removed or not."""
        file.on_use = None
        with self._lock:
            self._used.pop(weakref.ref(file), None)

    def _use(self, file: AnswerFile) -> None:
        with self._lock:
            self._used[weakref.ref(file)] = None
            self._used.move_to_end(weakref.ref(file))
            while len(self._used) > MOST:
                oldest = self._used.popitem(last=False)[0]()
                if oldest is not None:
                    oldest.let_go()
