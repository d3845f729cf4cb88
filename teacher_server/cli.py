"""`teacher-server`: the custodian's command, on the secure host."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.ranks import Ranks
from ktan.teachers import TeacherCard
from privacy.errors import PrivacyError, plainly
from privacy.noise import DEFAULT_NOISE, NoiseName
from teacher_server.certificates import issue_client, issue_server, load_authority, make_authority
from teacher_server.commands import ledger as ledgers
from teacher_server.commands.data_options import Data, Recipe
from teacher_server.commands.options import Flag, Names, Serving
from teacher_server.commands.screen import print_facts
from teacher_server.identity import Role
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.command import rehearse
from teacher_server.serving import run_service
from teacher_server.training import TeacherOptions
from teacher_server.under_ledger import evaluate_teacher, train_under_ledger

app = App(
    name="teacher-server",
    help="Train private teachers and serve their noisy answers under a privacy ledger.",
    # `main` says that it stopped; cyclopts would leave without a word.
    suppress_keyboard_interrupt=False,
)
app.meta.suppress_keyboard_interrupt = False

Training = Annotated[TeacherOptions, Parameter(name="*", negative="", group="Training")]
_DATA = DataSource()
_RECIPE = SplitRecipe()
_TEACHER = TeacherOptions()
_SERVE = ServeOptions()


@app.command
def certs(
    *,
    out: Path,
    server_name: Names = (),
    client: Names = (),
    auditor: Names = (),
    json: Flag = False,
) -> None:
    """Make a private certificate authority, or let the one there issue more certificates.

    Keep OUT/ca off the server; copy OUT/server to it, and each client's folder to that client.

    Parameters
    ----------
    out
        Folder that gets ca/, server/ and a folder per client.
    server_name
        Host name or address of the server; repeat for several.
    client
        Name of a client that may ask and pay for answers; repeat for several.
    auditor
        Name of an auditor that may read the log; repeat for several.
    json
        Print one JSON object.
    """
    folder = out / "ca"
    authority = load_authority(folder) if folder.exists() else make_authority(folder)
    made = [str(folder)]
    if server_name:
        issue_server(authority, out / "server", list(server_name))
        made.append(str(out / "server"))
    for role, names in ((Role.CLIENT, client), (Role.AUDITOR, auditor)):
        for name in names:
            issue_client(authority, out / name, role, name)
            made.append(str(out / name))
    print_facts({"certificates": made}, json)


@app.command
def train(
    *,
    ledger: Path,
    out: Path,
    options: Training = _TEACHER,
    data: Data = _DATA,
    recipe: Recipe = _RECIPE,
    witness: Path | None = None,
    resume: Flag = False,
    rank: int | None = None,
    ranks: int | None = None,
    json: Flag = False,
) -> None:
    """Train a teacher on the private part of a data set, under that data set's ledger.

    Parameters
    ----------
    ledger
        The data set's ledger; a dp-sgd run is charged to it.
    out
        Folder that gets the teacher: weights and a card, nothing private in the card.
    witness
        The ledger's witness file, if it has moved.
    resume
        Go on from where an interrupted run stopped.
    rank
        Which of several processes this is, from 0; as torchrun says when not given. Each trains
        its part of an ensemble, and the same command goes on after a failure.
    ranks
        How many processes train the ensemble.
    json
        Print one JSON object.
    """
    part = Ranks.chosen(rank, ranks, os.environ)
    card = train_under_ledger(
        data, recipe, options, ledger, witness, out, resume=resume, ranks=part
    )
    if card is None:
        return
    facts = {"teacher": str(out), **card.to_json()} if json else _of_card(out, card)
    print_facts(facts, json)


@app.command
def evaluate(
    teacher: Path, *, data: Data = _DATA, recipe: Recipe = _RECIPE, json: Flag = False
) -> None:
    """Accuracy of a teacher on public test samples: an unprotected figure, for this host only.

    Parameters
    ----------
    teacher
        The teacher's folder.
    json
        Print one JSON object.
    """
    print_facts(evaluate_teacher(teacher, data, recipe), json)


@app.command
def serve(
    teacher: Path,
    *,
    ledger: Path,
    options: Serving = _SERVE,
    witness: Path | None = None,
    trusted_head: Path | None = None,
    device: str = "auto",
    noise: NoiseName = DEFAULT_NOISE,
    json: Flag = False,
) -> None:
    """Answer public samples over gRPC until told to stop; SIGTERM drains.

    Parameters
    ----------
    teacher
        The teacher's folder.
    ledger
        The ledger of the data set that the teacher was trained on.
    witness
        The ledger's witness file, if it has moved.
    trusted_head
        Where the witness is lost: the newest receipt of a client, or an auditor's head, as JSON.
    device
        cpu, cuda, or auto for a GPU where there is one.
    noise
        The noise's sampler; the ledger must have been opened for it, or for a coarser one.
    json
        Print one JSON object once the service listens.
    """
    run_service(
        teacher,
        ledger,
        witness,
        trusted_head,
        options,
        device,
        noise,
        lambda facts: print_facts(facts, json),
    )


app.command(rehearse)
for _command in ledgers.COMMANDS:
    app.command(_command)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None,
        Parameter(help="TOML file: a table per command, the same names as the options."),
    ] = None,
) -> Any:
    if config is not None:
        app.config = (cyclopts.config.Toml(config, must_exist=True),)
    return app(tokens, exit_on_error=False, print_error=False)


def main() -> None:
    """Entry point: exit code 2 and one line for a user's mistake, 130 after ctrl-C."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("teacher_server").setLevel(logging.INFO)
    # Left over from an earlier call in the same process.
    app.config = ()
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, UserError, PrivacyError, OSError) as error:
        print(f"error: {plainly(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _of_card(folder: Path, card: TeacherCard) -> dict[str, Any]:
    """What a custodian wants to see of a new teacher."""
    facts: dict[str, Any] = {
        "teacher": folder,
        "version": card.version,
        "mode": f"{card.mode}, {card.teachers} x {card.network.name}",
        "private units": f"{card.split['counts']['private']:,}",
    }
    for entry in card.taps:
        bound = f"B = {entry.bound:.4g}" if entry.bound else "unbounded"
        shape = " x ".join(map(str, entry.tap.shape))
        facts[f"tap {entry.tap.name}"] = f"{shape} values, {bound} ({entry.bound_source})"
    privacy = card.training_privacy
    if privacy is not None:
        facts["training"] = (
            f"ε = {privacy.epsilon:.3f} at δ = {privacy.delta:.3g}, {privacy.adjacency} "
            f"({privacy.epsilon_add_remove:.3f} add/remove)"
        )
    return facts
