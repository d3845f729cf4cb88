"""A simulated grid: teachers for each k, then every combination from their answers."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from privacy.accounting import NAMES_CLASSES
from privacy.audit.grid import Row, sweep
from privacy.audit.proposal import Proposal
from privacy.audit.simulation.measured import PublicAnswers
from privacy.audit.simulation.options import SimulationOptions
from privacy.audit.simulation.stand_in import load_public, stand_in
from privacy.audit.simulation.throwaway import train_public
from privacy.errors import InvalidPlan


@dataclass(frozen=True)
class Simulated:
    """A grid whose rows were simulated.

    test_samples: held-out public samples behind each figure.
    shards: a sentence for each k: how many teachers were trained, on how many units.
    """

    rows: tuple[Row, ...]
    dataset: str
    test_samples: int
    shards: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For a screen."""
        return (
            f"public-only teachers on {self.dataset}, {self.test_samples:,} held-out samples; "
            "private records may be easier or harder than these public ones"
        )


def simulate(
    proposals_of: Callable[[int], Sequence[Proposal]],
    options: SimulationOptions,
    units: int | None,
) -> Simulated:
    """Rows of the proposals, in their order; trains on public data for each k among them.

    proposals_of: number of classes of the data set → proposals. units: N, see `stand_in`.
    Progress goes to stderr. Nothing stays on disk but what the data set caches of itself, after
    ctrl-C either.
    Raises InvalidPlan and ktan's UserError for options that cannot be, before anything is trained,
    and PrivacyError when training fails.
    """
    dataset = load_public(options)
    proposals = tuple(proposals_of(len(dataset.classes)))
    if any(proposal.mode == "dp-sgd" for proposal in proposals):
        raise InvalidPlan("--simulate is for answers with noise: mode ensemble or single")
    texts = _taps_to_train(proposals)
    ks = dict.fromkeys(proposal.teachers for proposal in proposals)
    publics = {k: stand_in(dataset, options, k, units) for k in ks}
    _say(f"simulating on PUBLIC data ({dataset.name}) under throw-away ledgers; nothing is kept")
    answers: dict[int, PublicAnswers] = {}
    with tempfile.TemporaryDirectory(prefix="privacy-audit-plan-") as place:
        for k, public in publics.items():
            _say(public.sentence)
            folder = Path(place) / f"k-{k}"
            mode = proposals[0].mode
            teacher = train_public(folder, public, mode, texts, options.training)
            answers[k] = PublicAnswers.compute(teacher, public)
    bar = tqdm(proposals, desc="combinations", unit="row", leave=False)
    rows = sweep(bar, lambda proposal: answers[proposal.teachers].forecast(proposal))
    return Simulated(
        rows=rows,
        dataset=dataset.name,
        test_samples=options.test,
        shards=tuple(public.sentence for public in publics.values()),
    )


def _taps_to_train(proposals: Iterable[Proposal]) -> list[str]:
    """The taps of all proposals, each hint at its largest, as `teacher-server train` reads them."""
    largest: dict[str, int] = {}
    for proposal in proposals:
        for tap in proposal.taps:
            if tap.kind in NAMES_CLASSES:
                largest.setdefault(tap.kind, 0)
            elif tap.kind != "hint":
                raise InvalidPlan(
                    f"--simulate measures labels and hints, not {tap.kind}; leave out --simulate, "
                    f"or plan a hint of {tap.dimension} dimensions in its place"
                )
            elif not tap.path:
                raise InvalidPlan(
                    f"--simulate trains networks: say where in them tap {tap.name!r} is, such as "
                    f"--taps hint=features:{tap.dimension}"
                )
            else:
                form = f"hint={tap.path}"
                largest[form] = max(largest.get(form, 0), tap.dimension)
    return [f"{form}:{dimension}" if dimension else form for form, dimension in largest.items()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
