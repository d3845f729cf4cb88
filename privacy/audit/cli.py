"""`privacy-audit`: the auditor's command. Needs no access to teachers, models or private data."""

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import cyclopts
import numpy as np
from cyclopts import App, Parameter

from privacy.accounting import SIGMA
from privacy.audit.evidence import Evidence, read_head, read_receipts
from privacy.audit.ledger_check import LedgerReport, check
from privacy.audit.log import folder_faults, read_log
from privacy.audit.planning import forecast
from privacy.audit.proposal import Forecast, Mode, Proposal
from privacy.audit.published import PublishedComparison, published_epsilon
from privacy.audit.screen import ledger_text, plan_text
from privacy.audit.tap_option import parse_taps
from privacy.errors import LedgerCorrupt, PrivacyError
from privacy.receipts import read_public_key

app = App(
    name="privacy-audit",
    help="Check what a private teacher's ledger claims, and plan what a budget buys.",
)

Flag = Annotated[bool, Parameter(negative="")]
Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
Paths = Annotated[tuple[Path, ...], Parameter(negative="", show_default=False)]


@app.command
def plan(
    *,
    epsilon: float,
    delta: float = 1e-5,
    queries: int = 300,
    mode: Mode = "ensemble",
    teachers: int | None = None,
    classes: int = 10,
    taps: Names = ("probabilities",),
    share: Names = (),
    unit: str = "record",
    draws: int | None = None,
    teacher_accuracy: float = 0.8,
    confidence: float = 0.9,
    hint_cosine: float = 0.96,
    measured: Path | None = None,
    sample_rate: float | None = None,
    steps: int | None = None,
    records: int | None = None,
    parameters: int | None = None,
    published_rate: float | None = None,
    json: Flag = False,
) -> None:
    """Say what a privacy budget buys, before a single query is asked.

    Parameters
    ----------
    epsilon
        ε of the promise: everything that all clients together ever learn.
    delta
        δ of the same promise; well under one over the number of private units.
    queries
        Public samples that the service is to answer.
    mode
        How the service is private: k teachers on disjoint shards, one teacher trained by DP-SGD,
        or one ordinary teacher.
    teachers
        Number of teachers k of an ensemble; 200 when not given.
    classes
        Number of classes: the values of `logits` and `probabilities`.
    taps
        What is released: logits, probabilities, or a hint as hint:DIMENSIONS; repeat for several;
        probabilities alone when not given.
    share
        Weight of a tap in the budget, as TAP=WEIGHT; equal weights when not given.
    unit
        What the promise protects.
    draws
        Noise draws that the ledger may ever use, one a released number; set from ε and δ when
        not given.
    teacher_accuracy
        Accuracy of one teacher, for the model of its answers.
    confidence
        Probability that a teacher puts on the class it names; lower for a higher temperature.
    hint_cosine
        Mean cosine between the aligned hints of two teachers.
    measured
        .npy file, [samples, classes]: mean probabilities of teachers on public samples, in place
        of the model.
    sample_rate
        Of the DP-SGD run: probability that a record enters a step.
    steps
        Of the DP-SGD run: number of steps.
    records
        Private records behind the DP-SGD run, to judge its gradients' signal-to-noise.
    parameters
        Trainable parameters of the DP-SGD network, for the same.
    published_rate
        Sampling rate of public queries under which published work would account the same answers;
        prints that figure, which is no guarantee, beside the sound one.
    json
        Print one JSON object.
    """
    proposal = Proposal(
        epsilon=epsilon,
        delta=delta,
        queries=queries,
        taps=parse_taps(taps, share, classes),
        mode=mode,
        teachers=teachers if teachers is not None else (200 if mode == "ensemble" else 1),
        unit=unit,
        draws=draws,
        teacher_accuracy=teacher_accuracy,
        confidence=confidence,
        hint_cosine=hint_cosine,
        sample_rate=sample_rate,
        steps=steps,
        records=records,
        parameters=parameters,
    )
    outcome = forecast(proposal, None if measured is None else _measured(measured))
    published = None if published_rate is None else _published(outcome, queries, published_rate)
    if json:
        print(jsonlib.dumps(_plan_json(outcome, published)))
    else:
        print(plan_text(outcome, published))


@app.command
def ledger(
    path: Path,
    *,
    receipts: Paths = (),
    head: Paths = (),
    public_key: Path | None = None,
    json: Flag = False,
) -> None:
    """Verify a ledger offline: its chain, its signatures, its sums, and what others hold of it.

    Exit code 0 when everything holds, 1 when anything does not.

    Parameters
    ----------
    path
        A ledger's folder, or a log that was exported from one.
    receipts
        A student's answers folder, or a file with receipts; repeat for several.
    head
        A head kept elsewhere: a witness file, or an earlier export; repeat for several.
    public_key
        The ledger's public key as you were given it: PEM, or 64 hexadecimal digits. Without it,
        the one that a student pinned, or else the log's own word.
    json
        Print one JSON object.
    """
    try:
        log = read_log(path)
    except LedgerCorrupt as error:
        print(jsonlib.dumps({"sound": False, "error": str(error)}) if json else str(error))
        _fail("it cannot be read at all")
    evidence = [read_receipts(place) for place in receipts]
    key, source = _known_key(public_key, evidence, log.public_key)
    arguments: dict[str, Any] = {
        "receipts": [item for found in evidence for item in found.receipts],
        "damaged": [item for found in evidence for item in found.damaged],
        "heads": [(place, read_head(place)) for place in head],
        "public_key": key,
        "key_source": source,
    }
    report = check(log, **arguments)
    if report.sound and path.is_dir():
        report = check(log, **arguments, tables=folder_faults(path, log))
    print(jsonlib.dumps(_ledger_json(report)) if json else ledger_text(report))
    if not report.sound:
        count = len(report.violations)
        _fail(f"{count} violation{'' if count == 1 else 's'}")


def _fail(why: str) -> NoReturn:
    print(f"privacy-audit: the ledger does NOT verify: {why}", file=sys.stderr)
    sys.exit(1)


def _known_key(
    given: Path | None, evidence: list[Evidence], log_key: bytes
) -> tuple[bytes | None, str]:
    if given is not None:
        return read_public_key(given), str(given)
    pinned = [item for found in evidence for item in found.pinned_keys]
    # One that differs from the log's first: it is the one that tells something.
    pinned.sort(key=lambda item: item[1] == log_key)
    for file, key in pinned:
        return key, f"{file}, where a student pinned it"
    return None, ""


def _measured(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, TypeError, EOFError) as error:
        raise PrivacyError(f"{path} holds no array of numbers ({error})") from None


def _published(outcome: Forecast, queries: int, rate: float) -> PublishedComparison:
    charge = sum(tap.release.charge for tap in outcome.taps)
    if not charge:
        raise PrivacyError("--published-rate compares answers that are charged; these are free")
    return published_epsilon(SIGMA / charge**0.5, rate, queries, outcome.promise.delta)


def _plan_json(outcome: Forecast, published: PublishedComparison | None) -> dict[str, Any]:
    training = outcome.training
    return {
        "promise": outcome.promise.to_json(),
        "plan": outcome.plan.to_json(),
        "mu_max": outcome.plan.mu_max,
        "mu": outcome.mu,
        "draws_needed": outcome.draws_needed,
        "taps": [
            {
                **tap.release.to_json(),
                "charge": tap.release.charge,
                "noise_sd": tap.noise_sd,
                "noise_norm": tap.noise_norm,
                "signal_norm": tap.signal_norm,
                # JSON has no infinity: null where there is no noise.
                "signal_to_noise": tap.signal_to_noise if tap.noise_norm else None,
                "agreement": tap.agreement,
                "agreement_error": tap.agreement_error,
            }
            for tap in outcome.taps
        ],
        "training": None if training is None else asdict(training),
        "useful": outcome.useful,
        "verdict": outcome.verdict,
        "advice": list(outcome.advice),
        "model": outcome.model,
        "published": None if published is None else asdict(published),
    }


def _ledger_json(report: LedgerReport) -> dict[str, Any]:
    opening = report.opening
    return {
        "sound": report.sound,
        "violations": [asdict(violation) for violation in report.violations],
        "ledger_id": report.ledger_id,
        "dataset_id": opening.dataset_id if opening else None,
        "public_key": report.public_key.hex(),
        "public_key_from": report.key_source,
        "promise": opening.plan.promise.to_json() if opening else None,
        "entries": report.entries,
        "epsilon_spent": report.epsilon_spent,
        "spent": report.spent,
        "budget": opening.plan.answer_units if opening else None,
        "left": max(0, opening.plan.answer_units - report.spent) if opening else None,
        "draws": report.draws,
        "draws_budget": opening.plan.draws if opening else None,
        "training_used": report.training_used,
        "training_reserved": len(opening.plan.training) if opening else None,
        "clients": [asdict(client) for client in report.clients],
        "receipts": report.receipts,
        "heads": report.heads,
    }


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
    # Left over from an earlier call in the same process.
    app.config = ()
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, PrivacyError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
