"""What the planner is asked, and what it answers, as values.

The forecast itself is `privacy.audit.planning.forecast`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from privacy.accounting import Kind
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.errors import InvalidPlan
from privacy.promise import Promise
from privacy.release import TapRelease

Mode = Literal["ensemble", "single", "dp-sgd"]


@dataclass(frozen=True)
class TapProposal:
    """One tap that is to be released.

    dimension: values per answer; the number of classes for logits and probabilities.
    share: weight of the budget (of μ²).
    bound: B in real units; noise and signal are printed relative to it.
    path: of a hint, its module path in the teachers' network; for a simulation only.
    """

    name: str
    kind: Kind
    dimension: int
    share: float = 1.0
    bound: float = 1.0
    path: str = ""


@dataclass(frozen=True)
class Proposal:
    """A deployment that is being considered.

    queries: samples that the service is to answer, all clients together.
    teachers: k; 1 in `single` and `dp-sgd`.
    teacher_accuracy: a, the accuracy of one teacher, for the model.
    confidence: probability that a teacher puts on the class that it names.
    hint_cosine: mean cosine between two teachers' aligned hints (0.96 was measured on glyphs).
    sample_rate, steps: of the DP-SGD run; only for `dp-sgd`.
    parameters, records: of the DP-SGD network and its data, for the gradient's signal-to-noise.
    """

    epsilon: float
    delta: float
    queries: int
    taps: tuple[TapProposal, ...]
    mode: Mode = "ensemble"
    teachers: int = 200
    unit: str = "record"
    draws: int | None = None
    teacher_accuracy: float = 0.8
    confidence: float = 0.9
    hint_cosine: float = 0.96
    sample_rate: float | None = None
    steps: int | None = None
    parameters: int | None = None
    records: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("ensemble", "single", "dp-sgd"):
            raise InvalidPlan(f"mode must be ensemble, single or dp-sgd, not {self.mode!r}")
        if self.teachers < 1 or self.queries < 1:
            raise InvalidPlan("teachers and queries must be at least 1")
        if self.mode != "ensemble" and self.teachers != 1:
            raise InvalidPlan(f"mode {self.mode} has one teacher, not {self.teachers}")
        if not self.taps:
            raise InvalidPlan("name at least one tap")
        for value, name in (
            (self.teacher_accuracy, "teacher_accuracy"),
            (self.confidence, "confidence"),
            (self.hint_cosine, "hint_cosine"),
        ):
            if not 0.0 < value <= 1.0:
                raise InvalidPlan(f"{name} must lie in (0, 1], not {value}")


@dataclass(frozen=True)
class TrueLabels:
    """How many labels are the true ones; known where public samples with labels were answered.

    alone: of one teacher, the mean over teachers.
    clean: of the aggregate before noise.
    noisy: of what is released; `error` is its standard error over samples and noise.
    """

    alone: float
    clean: float
    noisy: float
    error: float


@dataclass(frozen=True)
class TapForecast:
    """What one tap will look like.

    release: the settings that the service would use.
    noise_sd: standard deviation of the noise on one value, in real units.
    noise_norm: expected L2 norm of the noise on the whole vector (root mean square).
    signal_norm: root-mean-square norm of the clean answer, its constant part left out.
    agreement: share of noisy answers whose largest value is the clean one's; None for hints.
    agreement_error: standard error of `agreement`, from the simulation alone.
    true_labels: against the true labels, where they are known; None for hints and for a model.
    """

    release: TapRelease
    noise_sd: float
    noise_norm: float
    signal_norm: float
    agreement: float | None
    agreement_error: float | None
    true_labels: TrueLabels | None = None

    @property
    def signal_to_noise(self) -> float:
        """signal_norm / noise_norm; infinite for a free tap."""
        return math.inf if self.noise_norm == 0.0 else self.signal_norm / self.noise_norm


@dataclass(frozen=True)
class DpSgdForecast:
    """What the training costs, when the teacher itself is private.

    run: the run that reaches the target.
    epsilon, epsilon_add_remove: of the run alone at `delta`, replace-one and add/remove.
    gradient_signal_to_noise: upper bound on ‖Σ clipped gradients‖ / E‖noise‖ in one step, with
        every gradient at the clipping norm and all aligned; None without `records`, `parameters`.
    """

    run: DpSgdRun
    epsilon: float
    epsilon_add_remove: float
    delta: float
    gradient_signal_to_noise: float | None


@dataclass(frozen=True)
class Forecast:
    """The planner's answer.

    plan: the budget that `teacher-server open-ledger` would open.
    mu: of all queries together; at most plan.mu_max.
    draws_needed: noise draws for all queries; more than plan.draws cannot be served.
    useful: False where the verdict starts with "useless".
    verdict: one sentence for a person.
    advice: what would help, one sentence each.
    model: how the clean answers were modelled, one sentence.
    """

    promise: Promise
    plan: BudgetPlan
    mu: float
    draws_needed: int
    taps: tuple[TapForecast, ...]
    training: DpSgdForecast | None
    useful: bool
    verdict: str
    advice: tuple[str, ...] = ()
    model: str = ""
