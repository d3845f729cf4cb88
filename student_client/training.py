"""The trainer on public samples and the answers to them, further rounds of queries included."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ktan.evaluation import accuracy
from ktan.history import History
from ktan.methods import Objective
from ktan.parallel import Group
from ktan.spool import taken
from ktan.trainer import CHECKPOINT, TrainerOptions, train
from ktan.training_data import TrainingData
from student_client.asking import Asking
from student_client.provenance import UNPROTECTED
from student_client.public_data import PublicData
from student_client.screen import Screen
from student_client.sources import Answers


def train_on(
    public: PublicData,
    student: nn.Module,
    objective: Objective,
    asking: Asking | None,
    options: TrainerOptions,
    folder: Path,
    screen: Screen,
    group: Group,
    *,
    resume: bool,
) -> History:
    """Trains `student` in place on the labelled samples and on what `asking` has brought and, round
    by round, brings; `folder` gets what `ktan.trainer.train` writes. See there for the rest."""

    def data() -> TrainingData:
        """All there is by now."""
        asked = None if asking is None else asking.asked
        return TrainingData(
            labelled=public.labelled,
            labels=public.labels,
            answered=None if asked is None else taken(public.unlabelled, asked.rows),
            answers={} if asking is None or asking.answers is None else asking.answers.values,
            unlabelled=public.unlabelled if objective.unlabelled else None,
        )

    def ask(further: int, current: nn.Module) -> TrainingData:
        assert asking is not None
        with group.leader_first():
            asking.further(further, current)
        return data()

    def validate(network: nn.Module) -> float:
        return accuracy(
            network,
            public.validation,
            public.validation_labels,
            normalise=public.normalisation,
            precision=options.precision,
        )

    in_several = asking is not None and len(asking.portions) > 1
    return train(
        student,
        objective,
        data(),
        options if asking is None else asking.in_steps(),
        normalise=public.normalisation,
        folder=folder,
        # As the first process sees it: who does not see the checkpoint must not begin anew.
        resume=group.any(group.leads and resume and (folder / CHECKPOINT).exists()),
        validate=validate if len(public.validation) else None,
        ask=ask if in_several else None,
        note=_note(None if asking is None else asking.answers),
        progress=screen.bars,
        group=group,
    )


def _note(answers: Answers | None) -> str:
    if answers is None:
        return ""
    origin = answers.provenance
    if origin.promise is None or origin.epsilon_spent is None:
        return UNPROTECTED.split(",", maxsplit=1)[0]
    return f"ε {origin.epsilon_spent:.3g}/{origin.promise.epsilon:g}"
