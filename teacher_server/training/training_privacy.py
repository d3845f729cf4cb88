"""What a `dp-sgd` teacher's card says of the privacy of its training."""

from ktan.teachers import TrainingPrivacy
from privacy import composition
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.promise import Adjacency
from teacher_server.training.options import TeacherOptions


def training_privacy(
    plan: BudgetPlan, run: DpSgdRun | None, options: TeacherOptions
) -> TrainingPrivacy:
    """The run's ε on its own at the plan's δ: replace-one, with add/remove beside it.

    Opacus's accountant is PRV (Gopi et al. 2021), never its "gdp", which underestimates.
    """
    if run is None:
        raise ValueError("a dp-sgd teacher has a reserved run")
    # Imported here: Opacus takes seconds to load.
    from opacus.accountants import PRVAccountant

    delta = plan.ideal_target[1]
    accountant = PRVAccountant()
    accountant.history = [(run.noise_multiplier, run.sample_rate, run.steps)]
    return TrainingPrivacy(
        epsilon=composition.epsilon([run], 0.0, delta),
        delta=delta,
        adjacency=Adjacency.REPLACE_ONE.value,
        accountant="dp-accounting PLD",
        epsilon_add_remove=float(accountant.get_epsilon(delta=delta)),
        accountant_add_remove="Opacus PRV",
        sample_rate=run.sample_rate,
        noise_multiplier=run.noise_multiplier,
        steps=run.steps,
        max_grad_norm=options.max_grad_norm,
    )
