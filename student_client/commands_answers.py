"""`student-client answers`: what students were answered, checked and put together."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ktan.answers import AnswerStore
from student_client.describe import labelled
from student_client.merging import merge_stores

answers_app = App(name="answers", help="Check answer stores, and put several together.")
Flag = Annotated[bool, Parameter(negative="")]


@answers_app.command
def check(folder: Path, *, json: Flag = False) -> None:
    """Read all of an answer store, compare it with its checksums, and say what is in it.

    Nothing in it is changed.

    Parameters
    ----------
    folder
        A run's `answers`, or what was given as --answers.
    json
        Print one JSON object.
    """
    store = AnswerStore.open(folder, read_only=True)
    facts = {
        "teacher_version": store.manifest.teacher_version,
        "samples": len(store),
        "answers": {tap.name: store.count(tap.name) for tap in store.manifest.taps},
        "requests": sum(1 for _ in store.receipts()),
        "begun": len(store.pending()),
    }
    if json:
        print(jsonlib.dumps(facts))
        return
    counts = ", ".join(f"{store.count(tap.name):,} {tap.name}" for tap in store.manifest.taps)
    print(labelled("Teacher", store.manifest.teacher_version))
    print(labelled("Samples", f"{facts['samples']:,} ({counts})"))
    print(labelled("Requests", f"{facts['requests']:,} answered, {facts['begun']:,} under way"))


@answers_app.command
def merge(into: Path, *sources: Path, json: Flag = False) -> None:
    """Put the answers, receipts and begun requests of several stores into one.

    For stores of one teacher that several processes or machines filled. The sources stay as they
    are; where two were answered about the same sample the first answer stays, and all receipts are
    kept. Cut off, the same command goes on.

    Parameters
    ----------
    into
        The store that gets everything; made where it is not there.
    sources
        The stores that are read.
    json
        Print one JSON object.
    """
    merged = merge_stores(into, sources)
    if json:
        print(jsonlib.dumps(asdict(merged)))
        return
    print(
        labelled(
            "Merged",
            f"{merged.new:,} requests were new; {into} now holds {merged.requests:,} with the "
            f"answers to {merged.samples:,} samples"
            + (f", and {merged.begun:,} under way" if merged.begun else ""),
        )
    )
