"""Distillation methods, a file each; `METHODS` names them for a command line."""

from ktan.methods.fitnet import FitNet
from ktan.methods.ktan import KTAN
from ktan.methods.local import Local
from ktan.methods.method import Batch, Method, Objective, Term, View
from ktan.methods.soft_logits import SoftLogits

METHODS = {"ktan": KTAN, "fitnet": FitNet, "soft-logits": SoftLogits, "local": Local}

__all__ = [
    "KTAN",
    "METHODS",
    "Batch",
    "FitNet",
    "Local",
    "Method",
    "Objective",
    "SoftLogits",
    "Term",
    "View",
]
