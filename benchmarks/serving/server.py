"""The real service with an untrained teacher: `python -m benchmarks.serving.server MODEL FOLDER`.

Bound, noise, a durable SQLite ledger and mTLS are on, as with `teacher-server serve`. FOLDER gets
certificates and a throw-away ledger. Prints one JSON object once it listens.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from benchmarks.serving.models import MODELS
from benchmarks.soaking.heap import tell
from ktan.heap import keep_freed_memory
from ktan.teachers import TeacherModels
from privacy.budget import open_plan
from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, source
from teacher_server.certificates import issue_client, issue_server, make_authority
from teacher_server.identity import Role
from teacher_server.menu import build_menu
from teacher_server.options import ServeOptions
from teacher_server.public_teacher import PublicTeacher
from teacher_server.running import run
from teacher_server.trained_teacher import TrainedTeacher

ANSWERS = 10_000_000
"""What the budget lasts for: more than are asked."""
CLIENTS = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch", type=int, default=ServeOptions.batch)
    parser.add_argument("--batch-wait", type=float, default=ServeOptions.batch_wait)
    parser.add_argument("--heap", type=Path, help="a file that gets what is in use of the heap")
    arguments = parser.parse_args()
    if arguments.heap is not None:
        tell(arguments.heap)
    folder, model = arguments.folder, MODELS[arguments.model]
    authority = make_authority(folder / "ca")
    issue_server(authority, folder / "server", ["localhost"])
    for number in range(CLIENTS):
        issue_client(authority, folder / f"client-{number}", Role.CLIENT, f"client-{number}")
    torch.set_num_threads(1)
    # As `TrainedTeacher.load` does on a CPU.
    keep_freed_memory()
    with Ledger.create(
        folder / "ledger",
        dataset_id="benchmark/none",
        plan=open_plan(8.0, 1e-5, draws=10**10),
        witness=folder / "witness.json",
    ) as ledger:
        card = model.card(ledger.ledger_id)
        models = TeacherModels(card, model.weights(), {}, "cpu", arguments.precision)
        public = PublicTeacher.of_card(card.to_json())
        options = ServeOptions(
            listen="localhost:0",
            certs=folder / "server",
            answers=ANSWERS,
            grace=5.0,
            batch=arguments.batch,
            batch_wait=arguments.batch_wait,
        )
        run(
            TrainedTeacher(models),
            public,
            build_menu(public, ledger.plan.answer_units, ANSWERS, {}),
            ledger,
            source(DEFAULT_NOISE),
            options,
            os.cpu_count() or 1,
            lambda facts: print(json.dumps({"listening": facts["listening"]}), flush=True),
        )


if __name__ == "__main__":
    main()
