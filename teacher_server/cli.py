"""`teacher-server`: the custodian's command, on the secure host."""

from __future__ import annotations

import json as jsonlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from ktan.data import DataSource, SplitRecipe, split
from ktan.errors import UserError
from ktan.teachers import TeacherCard
from privacy.errors import PrivacyError
from privacy.ledger import binding_path
from teacher_server.certificates import issue_client, issue_server, load_authority, make_authority
from teacher_server.identity import Role
from teacher_server.opening import (
    PlanOptions,
    build_plan,
    cap_units,
    open_ledger,
    reopen_ledger,
)
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.command import rehearse
from teacher_server.serving import run_service
from teacher_server.training import TeacherOptions
from teacher_server.under_ledger import evaluate_teacher, train_under_ledger


def _split_name(name: str) -> str:
    """The split's own seed; `--seed` is the training's."""
    return "split-seed" if name == "seed" else cyclopts.default_name_transform(name)


app = App(
    name="teacher-server",
    help="Train private teachers and serve their noisy answers under a privacy ledger.",
)

Data = Annotated[DataSource, Parameter(name="*", negative="", group="Data")]
Recipe = Annotated[SplitRecipe, Parameter(name="*", name_transform=_split_name, group="Data")]
Plan = Annotated[PlanOptions, Parameter(name="*", group="Promise")]
Training = Annotated[TeacherOptions, Parameter(name="*", negative="", group="Training")]
Serving = Annotated[ServeOptions, Parameter(name="*", negative="", group="Service")]
Flag = Annotated[bool, Parameter(negative="")]
Names = Annotated[tuple[str, ...], Parameter(negative="")]
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
    _print({"certificates": made}, json)


@app.command(name="open-ledger")
def open_ledger_command(
    *,
    ledger: Path,
    plan: Plan,
    data: Data = _DATA,
    recipe: Recipe = _RECIPE,
    witness: Path | None = None,
    json: Flag = False,
) -> None:
    """Open the one ledger of a private data set, with the budget it will enforce for ever.

    The ledger's id is written into the data's folder or beside their file; a second is refused.

    Parameters
    ----------
    ledger
        Folder that gets the ledger, its keys and its answers; keep it off the data's disk.
    witness
        File on other storage that keeps the last signed head, against a rolled-back ledger;
        beside the data when not given.
    json
        Print one JSON object.
    """
    dataset = data.load()
    parts = split(dataset, recipe)
    checked = build_plan(plan, dataset, len(parts.private))
    opened = open_ledger(dataset, parts, checked, ledger, witness, plan.client_epsilon)
    with opened:
        state = opened.budget(None)
        _print(
            {
                "ledger": opened.ledger_id,
                "dataset": dataset.id,
                "private_records": len(parts.private),
                "public_records": sum(parts.counts.values()) - len(parts.private),
                "public_means": "not protected: reference network, bounds, alignment, evaluation",
                "promise": state.promise.sentence(),
                "answering_mu": opened.plan.mu_max,
                "noise_draws": opened.plan.draws,
                "reserved_training": [run.to_json() for run in opened.plan.training],
                "bound_at": str(binding_path(dataset.location)),
            },
            json,
        )


@app.command
def cap(
    client: str,
    *,
    epsilon: float,
    ledger: Path,
    witness: Path | None = None,
    json: Flag = False,
) -> None:
    """Cap what one client may spend, beneath the budget of all; the ledger records it.

    Parameters
    ----------
    client
        The client's name, as its certificate has it.
    epsilon
        What the client alone may reach, at the ledger's own share of δ.
    ledger
        The ledger's folder; its service must be stopped.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    with reopen_ledger(ledger, witness) as opened:
        opened.set_cap(client, cap_units(opened.plan, epsilon))
        state = opened.budget(client)
        _print({"client": client, "cap": state.cap, "left": state.client_left}, json)


@app.command
def export_log(*, ledger: Path, out: Path, witness: Path | None = None, json: Flag = False) -> None:
    """Write the public log to a file, for auditors: charges and digests, no sample, no answer.

    Parameters
    ----------
    ledger
        The ledger's folder; its service may be running.
    out
        File that gets one JSON object a line.
    witness
        The ledger's witness file, if it has moved.
    json
        Print one JSON object.
    """
    with reopen_ledger(ledger, witness, read_only=True) as opened:
        opened.export(out)
        _print({"log": str(out), "last_entry": opened.head().entry}, json)


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
    json
        Print one JSON object.
    """
    card = train_under_ledger(data, recipe, options, ledger, witness, out, resume=resume)
    facts = {"teacher": str(out), **card.to_json()} if json else _of_card(out, card)
    _print(facts, json)


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
    _print(evaluate_teacher(teacher, data, recipe), json)


@app.command
def serve(
    teacher: Path,
    *,
    ledger: Path,
    options: Serving = _SERVE,
    witness: Path | None = None,
    trusted_head: Path | None = None,
    device: str = "auto",
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
        lambda facts: _print(facts, json),
    )


app.command(rehearse)


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
    try:
        app.meta(exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, UserError, PrivacyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
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
        "private records": f"{card.split['counts']['private']:,}",
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


def _print(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(jsonlib.dumps(facts, default=str), flush=True)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if isinstance(value, dict):
            lines = [f"{key}: {_plain(item)}" for key, item in value.items()]
        else:
            lines = [_plain(value)]
        for number, line in enumerate(lines or ["none"]):
            label = name.replace("_", " ") if number == 0 else ""
            print(f"{label:<{width}}  {line}", flush=True)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
