"""The kinds of tap that a teacher may answer, wherever one is named."""

from typing import Literal

TapKind = Literal["logits", "probabilities", "hint", "tsl", "attention", "signs", "products"]
"""`hint`: a feature as it is, pooled, reduced, or a whole map; `tsl`: the map or vector of a
teacher-to-student layer, in the student's shape; the last three are derived (`ktan.derivation`)."""
