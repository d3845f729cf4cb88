"""What AT, FSP and AB compare: a derived tap of the teacher's and the same of the student's.

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
    noise_sd: float = 0.0
    """Published, of a coordinate of the teacher's."""


def attention_pairs(binding: Binding) -> list[DerivedPair]:
    """Attention maps [a, h, w], a pair for each tap that serves the need."""
    pairs = []
    for tap in binding.taps_for(ATTENTION):
        (path,) = binding.paths[tap.name]
        grid = (tap.shape[-2], tap.shape[-1])

        def student(view: View, path: str = path, grid: tuple[int, int] = grid) -> Tensor:
            return attention_map(view.answered_features(path), grid)

        def teacher(
            answers: Mapping[str, Tensor], name: str = tap.name, kind: str = tap.kind
        ) -> Tensor:
            return answers[name] if kind == "attention" else attention_map(answers[name])

        pairs.append(DerivedPair(module_key(tap.name), (path,), student, teacher, tap.noise_sd))
    return pairs


def product_pairs(binding: Binding) -> list[DerivedPair]:
    """FSP matrices [a, c, c'] (vectors [a, m] where they were reduced), one for each tap or, from
    whole maps, for each two that follow one another."""
    taps = binding.taps_for(PRODUCTS)
    pairs = []
    if taps and taps[0].kind == "products":
        for tap in taps:
            first, second = binding.paths[tap.name]

            def answered(answers: Mapping[str, Tensor], name: str = tap.name) -> Tensor:
                return answers[name]

            pairs.append(
                DerivedPair(
                    module_key(tap.name),
                    (first, second),
                    _products(first, second),
                    answered,
                    tap.noise_sd,
                )
            )
        return pairs
    for before, after in itertools.pairwise(taps):
        (first,), (second,) = binding.paths[before.name], binding.paths[after.name]

        def derived(
            answers: Mapping[str, Tensor], one: str = before.name, two: str = after.name
        ) -> Tensor:
            return flow_products(answers[one], answers[two])

        pairs.append(
            DerivedPair(module_key(after.name), (first, second), _products(first, second), derived)
        )
    return pairs


def _products(first: str, second: str) -> Callable[[View], Tensor]:
    return lambda view: flow_products(view.answered_features(first), view.answered_features(second))
