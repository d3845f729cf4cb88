"""The same student in Lightning's loop: one optimiser, automatic optimisation, any method.

python -m examples.lightning_loop
"""

import argparse
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.plain_loop import EPOCHS, SHOWN, Answered, Network, accuracy, load, train_teacher
from ktan.distil import Distiller, distil
from ktan.methods import METHODS


class Distillation(lightning.LightningModule):
    """A student and its method; checkpoints hold both, the opponents' optimisers too."""

    def __init__(self, student: nn.Module, method: Distiller, known: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.student, self.method = student, method
        self.register_buffer("samples", known[0], persistent=False)
        self.register_buffer("labels", known[1], persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor, dict[str, Tensor]], _: int) -> Tensor:
        samples, labels, answers = batch
        known = (self.samples, self.labels)
        loss: Tensor = self.method(self.student, (samples, labels), answers, labelled=known)
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.log_dict(self.method.losses, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Not self.parameters(): a discriminator has an optimiser of its own, within the method.
        return torch.optim.Adam([*self.student.parameters(), *self.method.parameters()], lr=3e-3)

    def on_train_epoch_end(self) -> None:
        if self.current_epoch % SHOWN == SHOWN - 1:
            loss = float(self.trainer.callback_metrics["loss"])
            print(f"epoch {self.current_epoch + 1}: loss {loss:.3f}")


def main() -> None:
    """Trains one student and says what it has learnt."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--method", default="ktan", help=f"{', '.join(METHODS)}, or A+B")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--data-root", type=Path, default=Path("data"))
    chosen = options.parse_args()

    torch.manual_seed(0)
    public, private = load(chosen.data_root)
    teacher = train_teacher(*private)
    student = Network(width=6)
    loader = DataLoader(Answered(public.queries), batch_size=50, shuffle=True)
    method = distil(
        chosen.method, student, teacher, public.queries, steps=chosen.epochs * len(loader)
    )
    trainer = lightning.Trainer(
        max_epochs=chosen.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Distillation(student, method, public.known), loader)
    print(f"student: accuracy {accuracy(student, *public.test):.3f}")


if __name__ == "__main__":
    main()
