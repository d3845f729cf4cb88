"""What a custodian chooses when a teacher is trained. All of it is public: it goes on the card."""

import math
from dataclasses import dataclass
from typing import Literal

from ktan.data import AugmentName
from ktan.errors import UserError
from ktan.networks import NetworkSpec, parse_settings, suited
from ktan.optimisers import OptimiserName
from ktan.precision import UnscaledPrecision
from ktan.teachers import Mode
from teacher_server.training.clipping_kinds import Clipping

_NORMED = ("resnet", "wide-resnet", "conv-large")


@dataclass(frozen=True)
class TeacherOptions:
    """How a teacher is trained. Defaults are measured in docs/teachers.md."""

    mode: Mode = "ensemble"
    """ensemble (k teachers on disjoint shards), dp-sgd (one, whose weights are private) or single
    (one ordinary teacher, for large ε or a handful of answers)."""
    teachers: int = 200
    """k, of an ensemble; the other modes train one."""
    taps: tuple[str, ...] = ("probabilities",)
    """What may be served: logits, probabilities, probabilities@T=3, hint=PATH, hint=PATH:8
    (reduced to 8 dimensions), hint=PATH:map (dp-sgd and single), tsl=PATH:64 (a layer that is
    trained to put out a student's 64 channels, averaged over positions), tsl=PATH:64x8x8 (its whole
    map; dp-sgd and single), attention=PATH, attention=PATH:4
    (a grid of 4 by 4), products=PATH,PATH:8, and products=PATH,PATH and signs=PATH (dp-sgd and
    single); repeat for several."""
    network: str | None = None
    """Name of the teachers' network; by the samples when not given: mlp-small for tables, cnn-small
    for small grey images, resnet20 for others."""
    network_set: tuple[str, ...] = ()
    """NAME=VALUE: an option of the network, such as width=32; repeat for several."""
    epochs: float = 25.0
    """Passes of each teacher over its shard, each unit counted as one record: where units hold
    about ten, say ten times as many; dp-sgd takes the steps that the ledger reserved."""
    batch: int = 32
    """Records in a step of each teacher; dp-sgd takes the rate that the ledger reserved."""
    optimiser: OptimiserName | None = None
    """adam, or sgd with Nesterov momentum 0.9; adam when not given, sgd for dp-sgd."""
    learning_rate: float | None = None
    """Peak: warm-up over 5 % of the steps, then cosine to 0. 0.003 when not given, 0.3 for
    dp-sgd."""
    weight_decay: float = 0.0
    """Decoupled weight decay (not for dp-sgd)."""
    augment: AugmentName | None = None
    """Random views of records and public samples: none, shift, crop-flip or affine; by the samples
    when not given: affine for grey images, crop-flip for others, none for tables. dp-sgd takes
    them for the public reference, and for records with --views above 1."""
    start: Literal["reference", "random"] = "reference"
    """What teachers begin as: the network that was trained on the public labelled samples, or
    fresh weights."""
    reference_steps: int = 1000
    """Training steps of the public reference network."""
    tsl_steps: int = 300
    """Training steps of each teacher-to-student layer (taps tsl=...), 32 samples each."""
    alignment_samples: int = 1000
    """Public samples on which hints are aligned and bounds are found, at most."""
    bound_quantile: float = 0.5
    """Bounds of logits and hints: this quantile of the public reference's norms."""
    max_grad_norm: float = 1.0
    """dp-sgd: L2 bound of one record's gradient."""
    views: int = 1
    """dp-sgd: random views (--augment) of one record whose gradients are averaged into one before
    it is clipped (De et al. 2022), at as many times the time; 1 takes the record as it is. What is
    accounted does not change."""
    stack: int | None = None
    """Teachers trained as one stacked computation, 1: one after another; by the network, the device
    and its memory when not given."""
    chunk: int = 100
    """dp-sgd: records (or views of records) whose gradients are in memory at once."""
    clipping: Clipping = "ghost"
    """dp-sgd: flat makes each record's gradient of each parameter; ghost, the faster one, only
    where it must (docs/teachers.md). The result is the same but for rounding."""
    seed: int = 0
    """Of first weights, of the order of records and of views; never of dp-sgd's sampling or of
    noise."""
    device: str = "auto"
    """auto (the GPU when there is one), cpu or cuda."""
    precision: UnscaledPrecision = "auto"
    """auto (bf16 where the hardware has it), float32 or bf16; dp-sgd computes in float32."""

    @property
    def k(self) -> int:
        """How many teachers the mode trains."""
        return self.teachers if self.mode == "ensemble" else 1

    def check(self) -> None:
        """Raises UserError for a number that cannot be."""
        positive = {
            "--teachers": self.teachers,
            "--batch": self.batch,
            "--epochs": self.epochs,
            "--max-grad-norm": self.max_grad_norm,
            "--stack": 1 if self.stack is None else self.stack,
            "--tsl-steps": self.tsl_steps,
            "--chunk": self.chunk,
            "--views": self.views,
            "--alignment-samples": self.alignment_samples,
            "--learning-rate": 1.0 if self.learning_rate is None else self.learning_rate,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; it must be above 0")
        if self.reference_steps < 0 or self.weight_decay < 0 or self.seed < 0:
            raise UserError("--reference-steps, --weight-decay and --seed cannot be negative")
        if not 0 < self.bound_quantile <= 1:
            raise UserError(f"--bound-quantile is {self.bound_quantile}; it must lie in (0, 1]")
        if self.mode == "dp-sgd" and self.weight_decay:
            raise UserError("--weight-decay is not for dp-sgd")
        if self.mode != "dp-sgd" and self.views > 1:
            raise UserError("--views is for dp-sgd; other modes take one view of a record a step")


def chosen_optimiser(options: TeacherOptions) -> tuple[OptimiserName, float]:
    """The optimiser and its peak learning rate; defaults by the mode."""
    name: OptimiserName = options.optimiser or ("sgd" if options.mode == "dp-sgd" else "adam")
    default = 3e-3 if name == "adam" else 0.3 if options.mode == "dp-sgd" else 0.05
    return name, default if options.learning_rate is None else options.learning_rate


def chosen_augment(options: TeacherOptions, input_shape: tuple[int, ...]) -> AugmentName:
    """The augmentation; by the samples when not given."""
    if options.augment is not None:
        return options.augment
    if len(input_shape) == 1:
        return "none"
    return "affine" if input_shape[0] == 1 else "crop-flip"


def chosen_network(
    options: TeacherOptions, input_shape: tuple[int, ...], classes: int
) -> NetworkSpec:
    """The teachers' network. Raises UserError for a setting that cannot be."""
    name = options.network or suited(input_shape)
    settings = dict(parse_settings("--network-set", options.network_set))
    if options.mode != "single" and name.startswith(_NORMED):
        # Batch norm lets records of a batch see one another, and cannot be stacked.
        settings.setdefault("norm", "group")
    return NetworkSpec(name, input_shape, classes, settings)
