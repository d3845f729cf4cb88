"""Networks by name, never edited for a method: taps read them from outside."""

from ktan.networks.build import NETWORKS, build, count_parameters, default_hint, multiply_adds
from ktan.networks.choice import parse_settings, suited
from ktan.networks.norms import Norm
from ktan.networks.spec import NetworkSpec
from ktan.networks.stages import NetworkStages, stages_of, stages_within

__all__ = [
    "NETWORKS",
    "NetworkSpec",
    "NetworkStages",
    "Norm",
    "build",
    "count_parameters",
    "default_hint",
    "multiply_adds",
    "parse_settings",
    "stages_of",
    "stages_within",
    "suited",
]
