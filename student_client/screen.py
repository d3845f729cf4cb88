"""What the trainer sees while a student is made: lines, a question, a bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ktan.errors import UserError
from student_client.describe import labelled


class Declined(UserError):
    """The answer to the question was no."""


class Screen:
    """Lines go to standard output, or to standard error when that is kept for JSON."""

    def __init__(self, *, json: bool = False, quiet: bool = False):
        self._stream = sys.stderr if json else sys.stdout
        self._quiet = quiet

    @property
    def bars(self) -> bool:
        """Whether progress bars have somebody to look at them."""
        return sys.stderr.isatty() and not self._quiet

    def say(self, text: str = "") -> None:
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def fact(self, label: str, text: str) -> None:
        """A labelled line, folded at 80 columns."""
        self.say(labelled(label, text))

    def agree(
        self, question: str, declined: str = "nothing was asked and nothing was spent"
    ) -> None:
        """Returns after a yes. Raises Declined after a no, UserError without a terminal."""
        if not sys.stdin.isatty():
            raise UserError(
                "this would spend privacy budget, and there is no terminal to ask you; "
                "agree beforehand with --yes"
            )
        # The question is asked even where lines are not shown: the answer spends something.
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Declined(declined)

    def waiting(self, reason: str, seconds: float) -> None:
        """A passing fault; one line a pause."""
        self.say(f"  {reason}; asking again in {seconds:.3g} s (ctrl-C stops, nothing is lost)")

    @contextmanager
    def fetching(self, samples: int) -> Iterator[FetchingBar]:
        """A bar over `samples` answers."""
        with tqdm(
            total=samples, unit="answer", desc="asking", disable=not self.bars, file=sys.stderr
        ) as bar:
            yield FetchingBar(bar, self)

    def stepping(self, steps: int) -> Iterator[int]:
        """The numbers of the steps of a training, beside a bar."""
        yield from tqdm(
            range(steps), unit="step", desc="training", disable=not self.bars, file=sys.stderr,
            mininterval=0.5,
        )  # fmt: skip


class FetchingBar:
    """The screen as `progress.Progress`."""

    def __init__(self, bar: tqdm[Any], screen: Screen):
        self._bar = bar
        self._screen = screen

    def advance(self, samples: int, epsilon_spent: float) -> None:
        self._bar.set_postfix_str(f"ε {epsilon_spent:.3g}", refresh=False)
        self._bar.update(samples)

    def wait(self, reason: str, seconds: float) -> None:
        with self._bar.external_write_mode():
            self._screen.waiting(reason, seconds)

    def forget(self, reason: str) -> None:
        with self._bar.external_write_mode():
            self._screen.say(f"  {reason}")
