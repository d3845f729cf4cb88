"""A rehearsal whose samples are rows of 16 float32: only there can a value be no number.

python -m benchmarks.fuzz.rehearse_rows --ledger FOLDER --certs FOLDER
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

from benchmarks.fuzz.target import RADIUS
from privacy.noise import source
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.teacher import SyntheticTeacher
from teacher_server.rehearsal.throw_away import open_throw_away
from teacher_server.running import run


def main() -> None:
    """Serves until SIGTERM; prints its facts once it listens."""
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--certs", type=Path, required=True)
    arguments = parser.parse_args()
    options = RehearsalOptions(radius=RADIUS, unlimited=True)
    serving = ServeOptions(listen="localhost:0", certs=arguments.certs, reflection=True)
    public = replace(public_teacher(options), input_dtype="float32")
    menu = rehearsed_menu(options, public, serving)
    with open_throw_away(arguments.ledger, options.ledger_plan, None) as ledger:
        run(
            SyntheticTeacher(public, options.world),
            public,
            menu,
            ledger,
            source(options.noise),
            serving,
            2,
            lambda facts: print(json.dumps(facts), flush=True),
        )


if __name__ == "__main__":
    main()
