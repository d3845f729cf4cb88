"""Methods in combination: `ktan+byot` minimises the terms of both.

A term that several bring under one name (`local`, `kd`) is taken once, from the first. The terms
of a method of one stage are active in every stage of the others that leaves its terms open. Initial
stages, which name theirs, follow one another, and what they trained rests afterwards; only one
method may have further ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from ktan.errors import UserError
from ktan.methods import METHODS
from ktan.methods.batch import Batch, View
from ktan.methods.binding import Binding, module_key
from ktan.methods.method import Method
from ktan.methods.needs import Need
from ktan.methods.objective import Objective, Stage, Term
from ktan.networks import NetworkStages
from ktan.taps import Tap


@dataclass(frozen=True)
class Combination:
    """Two or more methods as one."""

    methods: tuple[Method, ...]

    @property
    def name(self) -> str:
        """Names joined by +."""
        return "+".join(method.name for method in self.methods)

    @property
    def needs(self) -> tuple[Need, ...]:
        """See `Method.needs`."""
        return tuple(dict.fromkeys(need for method in self.methods for need in method.needs))

    def teacher_taps(self, stages: NetworkStages) -> tuple[Tap, ...]:
        """See `Method.teacher_taps`."""
        taps = [tap for method in self.methods for tap in method.teacher_taps(stages)]
        return tuple({tap.name: tap for tap in taps}.values())

    def build(self, binding: Binding) -> Objective:
        """See `Method.build`. Each part sees the taps that it reads in a local teacher, or all
        taps of a remote one."""
        objectives = [method.build(_part(binding, method)) for method in self.methods]
        return merged(objectives, [method.name for method in self.methods])


def merged(objectives: Sequence[Objective], names: Sequence[str]) -> Objective:
    """One objective of several; players and modules keep apart under their method's name.

    Raises UserError where the stages cannot be brought together.
    """
    terms: dict[str, Term] = {}
    owned: dict[str, dict[str, nn.Module]] = {}
    for objective, name in zip(objectives, names, strict=True):
        players = {
            player: player if player == objective.players[-1] else f"{name} {player}"
            for player in objective.players
        }
        for term in objective.terms:
            terms.setdefault(term.name, replace(term, player=players[term.player]))
        for player, modules in objective.owned.items():
            # The objective itself goes in, where its terms find what they close over.
            owned.setdefault(players[player], {})[module_key(f"{name} {player}")] = modules

    def measures(view: View, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for objective in objectives:
            found.update(objective.measures(view, batch))
        return found

    return Objective(
        list(terms.values()),
        owned,
        paths=[path for objective in objectives for path in objective.paths],
        measures=measures,
        stages=_stages(objectives, names),
        unlabelled=any(objective.unlabelled for objective in objectives),
    )


def parse_method(text: str, settings: Mapping[str, Any]) -> Method:
    """`ktan` or `ktan+byot`, with options by name (`kd_weight`, or `ktan.kd_weight` of one part).

    Raises UserError for an unknown method or option.
    """
    names = text.split("+")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"no method is called '{unknown[0]}'; choose one of {', '.join(METHODS)}")
    if len(set(names)) != len(names):
        raise UserError(f"'{text}' names a method twice")
    left = dict(settings)
    parts: list[Method] = []
    for name in names:
        kind: Any = METHODS[name]
        known = {field.name: field.default for field in fields(kind)}
        own = {}
        for key, value in settings.items():
            part, dot, option = key.rpartition(".")
            if option in known and (not dot or part == name):
                own[option] = _of_the_kind(option, value, known[option], name)
                left.pop(key, None)
        parts.append(kind(**own))
    if left:
        options = [field.name for name in names for field in fields(METHODS[name])]  # type: ignore[arg-type]
        raise UserError(
            f"the method {text} has no option '{next(iter(left))}'; it has "
            f"{', '.join(dict.fromkeys(options)) or 'none'}"
        )
    return parts[0] if len(parts) == 1 else Combination(tuple(parts))


def method_options(method: Method) -> dict[str, Any]:
    """A method's options, resolved; those of a combination under `METHOD.option`."""
    if isinstance(method, Combination):
        return {
            f"{part.name}.{name}": value
            for part in method.methods
            for name, value in method_options(part).items()
        }
    return asdict(method)  # type: ignore[call-overload,no-any-return]


def _part(binding: Binding, method: Method) -> Binding:
    """With the taps that only other parts asked of a local teacher taken out of sight."""
    if binding.teacher_stages is None:
        return binding
    read = {tap.name for tap in method.teacher_taps(binding.teacher_stages)}
    taps = {name: tap for name, tap in binding.taps.items() if name in read}
    return replace(binding, taps=taps)


def _stages(objectives: Sequence[Objective], names: Sequence[str]) -> tuple[Stage, ...]:
    long = [
        o
        for o in objectives
        if any(stage.terms is None for stage in o.stages[:-1]) or o.stages[-1].terms is not None
    ]
    if len(long) > 1:
        raise UserError(
            f"{' and '.join(names)} both have a schedule of their own; combine one of them with "
            "methods of one stage"
        )
    short = [o for o in objectives if o not in long]
    initial = [stage for o in short for stage in o.stages[:-1]]
    rests = [name for o in short for name in o.stages[-1].rests]
    then = long[0].stages if long else objectives[0].stages[-1:]
    # What the initial stages trained rests in every open stage after them.
    open_to = [
        stage
        if stage.terms is not None
        else replace(stage, rests=tuple(dict.fromkeys([*stage.rests, *rests])))
        for stage in then
    ]
    return (*initial, *open_to)


def _of_the_kind(option: str, value: Any, default: Any, method: str) -> Any:
    """`value` as the type of the option's default. Raises UserError."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise UserError(
            f"--method-set {option}={value} does not suit {method}: give a value like {default}"
        )
    return value
