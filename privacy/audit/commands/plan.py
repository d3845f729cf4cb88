"""`privacy-audit plan`: what a budget buys, before a single query is asked."""

import json as jsonlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter, Token

from privacy.accounting import SIGMA
from privacy.audit.answer_model import model_sentence
from privacy.audit.commands.options import Flag, Names
from privacy.audit.grid import Row, combinations, sweep
from privacy.audit.grid_screen import grid_text
from privacy.audit.plan_json import grid_json, plan_json
from privacy.audit.plan_screen import plan_text
from privacy.audit.planning import calibrate, forecast, model_taps
from privacy.audit.proposal import Forecast, Mode, Proposal
from privacy.audit.published import PublishedComparison, published_epsilon
from privacy.audit.recommendation import check_tolerance, recommend
from privacy.audit.simulation.options import SimulationOptions
from privacy.audit.tap_option import alternative_taps
from privacy.errors import PrivacyError


def _several(read: Callable[[str], Any]) -> Callable[[Any, Sequence[Token]], tuple[Any, ...]]:
    """A converter for `1,2` and for an option that is repeated; each value once."""

    def convert(_type: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
        texts = [text for token in tokens for text in token.value.split(",")]
        return tuple(dict.fromkeys(read(text) for text in texts))

    return convert


Reals = Annotated[
    tuple[float, ...], Parameter(converter=_several(float), negative="", show_default=False)
]
Counts = Annotated[
    tuple[int, ...], Parameter(converter=_several(int), negative="", show_default=False)
]
Simulation = Annotated[SimulationOptions, Parameter(name="*", negative="", group="Simulation")]
_SIMULATION = SimulationOptions()


def plan(
    *,
    epsilon: Reals,
    delta: float = 1e-5,
    queries: Counts = (300,),
    mode: Mode = "ensemble",
    teachers: Counts = (),
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
    tolerance: float | None = None,
    plot: Path | None = None,
    simulate: Flag = False,
    simulation: Simulation = _SIMULATION,
    json: Flag = False,
) -> None:
    """Say what a privacy budget buys, before a single query is asked.

    Several values, separated by commas, make a grid: --teachers, --queries, --epsilon, the
    dimensions of a hint and the weights of --share. A grid is a table with one row recommended.

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
        What is released: logits, probabilities, or a hint as hint:DIMENSIONS (hint=PATH:DIMENSIONS
        to simulate); repeat for several; probabilities alone when not given.
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
        Private records: to give simulated teachers shards of the size that the private ones will
        have (as many as there are public ones to train on, when not given), and to judge the
        gradients' signal-to-noise of a DP-SGD run.
    parameters
        Trainable parameters of the DP-SGD network, for the same.
    published_rate
        Sampling rate of public queries under which published work would account the same answers;
        prints that figure, which is no guarantee, beside the sound one.
    tolerance
        Of the recommendation: what labels may lose to the noise, as a share; 0.02 of true labels
        when simulated, 0.1 of clean labels otherwise.
    plot
        PNG file that gets the grid as a picture.
    simulate
        Train teachers on --dataset, which is public, and measure in place of the model; takes as
        long as training that many teachers does.
    json
        Print one JSON object.
    """
    # Before anything that takes its time.
    check_tolerance(tolerance)
    if plot is not None and (plot.suffix.lower() != ".png" or not plot.parent.is_dir()):
        raise PrivacyError(f"--plot {plot}: name a .png file in a folder that is there")
    ks = teachers or ((200,) if mode == "ensemble" else (1,))

    def proposals(of_classes: int) -> list[Proposal]:
        alternatives = alternative_taps(taps, share, of_classes)
        base = Proposal(
            epsilon=epsilon[0],
            delta=delta,
            queries=queries[0],
            taps=alternatives[0],
            mode=mode,
            teachers=ks[0],
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
        return combinations(base, ks, queries, epsilon, alternatives)

    if simulate or simulation != _SIMULATION:
        _refuse(measured is not None, "--measured", "--simulate")
        _refuse(published_rate is not None, "--published-rate", "--simulate")
        if not simulate:
            raise PrivacyError("--dataset and its like are for --simulate; give it as well")
        # Loads torch, which no other use of this command needs.
        from privacy.audit.simulation.run import simulate as run_simulation

        try:
            found = run_simulation(proposals, simulation, records)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "training was ended, its throw-away teachers and ledgers removed"
            ) from None
        _print_grid(found.rows, [found.sentence, *found.shards], tolerance, plot, json)
        return
    asked = proposals(classes)
    shares = None if measured is None else _measured(measured)
    if len(asked) > 1 or plot is not None:
        _refuse(published_rate is not None, "--published-rate", "a grid")
        rows = sweep(asked, lambda one: model_taps(one, calibrate(one)[1], shares))
        source = model_sentence(asked[0], shares is not None, grid=True)
        _print_grid(rows, [source], tolerance, plot, json)
        return
    outcome = forecast(asked[0], shares)
    published = None if published_rate is None else _published(outcome, queries[0], published_rate)
    if json:
        print(jsonlib.dumps(plan_json(outcome, published)))
    else:
        print(plan_text(outcome, published))


def _print_grid(
    rows: Sequence[Row],
    source: Sequence[str],
    tolerance: float | None,
    plot: Path | None,
    json: bool,
) -> None:
    advice = recommend(rows, tolerance)
    if plot is not None:
        # Loads matplotlib, which nothing else here needs.
        from privacy.audit.grid_plot import draw

        draw(rows, advice, plot, source[0])
    if json:
        print(jsonlib.dumps(grid_json(rows, advice, source)))
    else:
        print(grid_text(rows, advice, source))
        if plot is not None:
            print(f"picture      {plot}")


def _refuse(condition: bool, option: str, other: str) -> None:
    if condition:
        raise PrivacyError(f"{option} does not go with {other}; leave one of them out")


def _measured(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except FileNotFoundError:
        raise PrivacyError(
            f"there is no file {path}; --measured names an .npy of mean probabilities, "
            "[samples, classes]"
        ) from None
    except (ValueError, TypeError, EOFError):
        # Not in numpy's words, which advise to load what was pickled: that would run code.
        raise PrivacyError(f"{path} holds no array of numbers; write it with numpy.save") from None


def _published(outcome: Forecast, queries: int, rate: float) -> PublishedComparison:
    charge = sum(tap.release.charge for tap in outcome.taps)
    if not charge:
        raise PrivacyError("--published-rate compares answers that are charged; these are free")
    return published_epsilon(SIGMA / charge**0.5, rate, queries, outcome.promise.delta)
