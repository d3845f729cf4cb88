"""What AT and FSP compare: a derived tap of the teacher's and the same of the student's.

A teacher answers the derived tap itself, or whole maps without noise, from which it is derived
here by the same function (`ktan.derivation`).
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ktan.derivation import attention_map, flow_products
from ktan.methods.batch import View
from ktan.methods.binding import Binding, module_key
from ktan.methods.needs import Need
from ktan.teacher import AnswerTap

ATTENTION = Need("attention")
PRODUCTS = Need("products")


@dataclass(frozen=True, eq=False)
class DerivedPair:
    """One derived tap: how to have the student's and the teacher's from a step."""

    key: str
    """Its name as a module's name."""
    paths: tuple[str, ...]
    """The student's module paths that it looks at."""
    student: Callable[[View], Tensor]
    """→ float32 [a, *shape]."""
    teacher: Callable[[Mapping[str, Tensor]], Tensor]
    """Answers by tap → float32 [a, *shape], with its noise."""
    answered: tuple[str, ...]
    """Names of the taps that `teacher` looks at."""
    noise_sd: float = 0.0
    """Published, of a coordinate of the teacher's."""


def attention_pairs(binding: Binding) -> list[DerivedPair]:
    """Attention maps [a, h, w], a pair for each tap that serves the need."""
    return [_attention_pair(tap, binding.paths[tap.name]) for tap in binding.taps_for(ATTENTION)]


def product_pairs(binding: Binding) -> list[DerivedPair]:
    """FSP matrices [a, c, c'] (vectors [a, m] where they were reduced), one for each tap or, from
    whole maps, for each two that follow one another."""
    taps = binding.taps_for(PRODUCTS)
    if taps and taps[0].kind == "products":
        return [_product_pair(tap, binding.paths[tap.name], (tap.name,)) for tap in taps]
    return [
        _product_pair(
            after,
            binding.paths[before.name] + binding.paths[after.name],
            (before.name, after.name),
        )
        for before, after in itertools.pairwise(taps)
    ]


def _attention_pair(tap: AnswerTap, paths: tuple[str, ...]) -> DerivedPair:
    (path,) = paths
    grid = (tap.shape[-2], tap.shape[-1])

    def student(view: View) -> Tensor:
        return attention_map(view.answered_output(path), grid).float()

    def teacher(answers: Mapping[str, Tensor]) -> Tensor:
        found = answers[tap.name]
        return found if tap.kind == "attention" else attention_map(found)

    return DerivedPair(module_key(tap.name), paths, student, teacher, (tap.name,), tap.noise_sd)


def _product_pair(tap: AnswerTap, paths: tuple[str, ...], answered: tuple[str, ...]) -> DerivedPair:
    """`answered`: names of the products, or of the two maps of which they are made."""

    def student(view: View) -> Tensor:
        first, second = (view.answered_features(path) for path in paths)
        return flow_products(first, second)

    def teacher(answers: Mapping[str, Tensor]) -> Tensor:
        found = [answers[name] for name in answered]
        return found[0] if len(found) == 1 else flow_products(*found)

    return DerivedPair(module_key(tap.name), paths, student, teacher, answered, tap.noise_sd)
