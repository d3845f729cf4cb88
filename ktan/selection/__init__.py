"""Which public samples to ask a teacher about: public data and the student only, no budget."""

from ktan.selection.choice import Selection, select
from ktan.selection.entropy import entropy
from ktan.selection.k_centre import k_centre
from ktan.selection.margin import margin
from ktan.selection.margin_k_centre import margin_k_centre
from ktan.selection.uniform import uniform

__all__ = [
    "Selection",
    "entropy",
    "k_centre",
    "margin",
    "margin_k_centre",
    "select",
    "uniform",
]
