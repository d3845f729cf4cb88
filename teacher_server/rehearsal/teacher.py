"""The synthetic ensemble, in the place of trained networks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from teacher_server.public_teacher import PublicTeacher
from teacher_server.rehearsal.cases import ordinary_rows, replaced_rows


class SyntheticTeacher:
    """k teachers that compute what `cases` says; `world` is what shard 0 holds."""

    def __init__(self, public: PublicTeacher, world: int):
        self._taps = public.taps
        self._world = world
        self._ordinary = {
            tap.name: ordinary_rows(tap, math.prod(tap.shape), public.teachers)
            for tap in public.taps
        }

    def answers(self, samples: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.float32]]:
        """Tap name → float32 [k, n, *shape] for samples uint8 [n, 16]."""
        codes = samples.astype(np.uint8)
        answers = {}
        for tap in self._taps:
            ordinary = self._ordinary[tap.name]
            rows = np.repeat(ordinary[:, None, :], len(codes), axis=1)
            rows[0] = replaced_rows(tap, ordinary.shape[1], codes, self._world)
            answers[tap.name] = rows.reshape(len(ordinary), len(codes), *tap.shape)
        return answers
