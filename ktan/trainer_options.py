"""How a student is trained, whatever the method."""

from dataclasses import dataclass

from ktan.data import AugmentName
from ktan.data_parts import DataPlace
from ktan.errors import UserError
from ktan.optimisers import OptimiserName
from ktan.precision import Precision


@dataclass(frozen=True)
class TrainerOptions:
    """How a student is trained, whatever the method. Defaults measured in docs/methods/ktan.md."""

    epochs: int = 60
    """Passes over the answered samples (over the labelled ones where none is answered)."""
    steps: int | None = None
    """Steps of the student's optimiser, instead of epochs."""
    labelled_batch: int = 50
    """Labelled samples a step."""
    answered_batch: int = 100
    """Answered samples a step."""
    unlabelled_batch: int = 100
    """Unlabelled samples a step, for methods that look at views of them (fixmatch)."""
    optimiser: OptimiserName = "adam"
    """adam, or sgd with Nesterov momentum 0.9; of the student and its connectors."""
    learning_rate: float = 1e-3
    """Peak learning rate of the student: linear warm-up over 5 % of the run, then cosine to 0."""
    opponent_learning_rate: float = 3e-3
    """Peak learning rate of the other players, such as a discriminator (Adam, β₁ = 0.5)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the student."""
    augment: AugmentName = "none"
    """Random views of every sample: none, shift, crop-flip, affine, or strong (affine, recoloured,
    a square cut out)."""
    precision: Precision = "auto"
    """auto (bf16 where the hardware has it, fp16 on a GPU that has not), float32, bf16, or fp16
    (with gradient scaling)."""
    device: str = "auto"
    """auto (the GPU when there is one), cpu or cuda."""
    data_on: DataPlace = "auto"
    """Where samples and answers lie: device, host (streamed from there), or auto (the device, where
    they take at most half of its free memory)."""
    compile: bool = False
    """Compile the student's passes (torch.compile; CUDA graphs on a GPU): minutes before the first
    step."""
    shard: bool = False
    """Under several processes: spread parameters, gradients and optimiser state over them, for a
    student that does not fit into each."""
    seed: int = 0
    """Of first weights, of what is asked, of the order of samples, augmentation, matched noise."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; by default ten in a run."""

    def check(self) -> None:
        """Raises UserError for a number that no training can run with."""
        limits = {
            "labelled_batch": 1, "answered_batch": 1, "unlabelled_batch": 1, "learning_rate": 0,
            "opponent_learning_rate": 0, "weight_decay": 0, "seed": 0, "checkpoint_every": 1,
        }  # fmt: skip
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value < 2**63:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value:g}; it must be at least {least}")
