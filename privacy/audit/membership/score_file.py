"""Scores and guesses that an auditor has measured on benchmark data: `.npz` files, no pickles."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from privacy.audit.membership.likelihood_ratio import fit
from privacy.errors import PrivacyError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SCORES = "members [n] and non_members [m]"
_SHADOWS = "shadow [S, T], shadow_member [S, T], observed [E, T] and observed_member [E, T]"


@dataclass(frozen=True, eq=False)
class Scores:
    """members, non_members: float64 lists of scores. attack: how they were made."""

    attack: str
    members: Floats
    non_members: Floats


def read_scores(path: Path, noise_sd: float = 0.0) -> Scores:
    """Scores as they are in the file, or by LiRA from shadow runs that are.

    noise_sd: of known noise on `observed` that `shadow` does not carry. A `shadow_member` that is
    nowhere true makes the attack offline. Raises PrivacyError for a file that holds neither form.
    """
    arrays = _arrays(path)
    if set(arrays) == {"members", "non_members"}:
        members, others = (_floats(path, arrays[name]) for name in ("members", "non_members"))
        return Scores("scores as given", members, others)
    if set(arrays) != {"shadow", "shadow_member", "observed", "observed_member"}:
        raise PrivacyError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; give {_SCORES} "
            f"(higher: more of a member), or {_SHADOWS}"
        )
    shadow, observed = _floats(path, arrays["shadow"]), _floats(path, arrays["observed"])
    seen, coins = (_bools(path, arrays[name]) for name in ("shadow_member", "observed_member"))
    if observed.ndim != 2 or observed.shape != coins.shape or shadow.shape[1:] != coins.shape[1:]:
        raise PrivacyError(f"{path}: the shapes do not fit {_SHADOWS}")
    fitted = fit(shadow, seen)
    if seen.any():
        ratio = fitted.log_ratio(observed, noise_sd)
        return Scores(f"LiRA, {len(shadow)} shadow runs", ratio[coins], ratio[~coins])
    ratio = fitted.offline(observed, noise_sd)
    return Scores(f"offline LiRA, {len(shadow)} shadow runs", ratio[coins], ratio[~coins])


def read_canaries(path: Path) -> tuple[Floats, Bools]:
    """`scores` [m], higher where a canary seems to be in, and `included` bool [m].

    Raises PrivacyError for a file that holds anything else.
    """
    arrays = _arrays(path)
    if set(arrays) != {"scores", "included"}:
        raise PrivacyError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; give scores [m] (higher: "
            "more likely in) and included, bool [m]"
        )
    return _floats(path, arrays["scores"]), _bools(path, arrays["included"])


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise PrivacyError(
            f"there is no file {path}; name an .npz of scores, as numpy.savez writes it"
        ) from None
    except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile):
        # Not in numpy's words, which advise to load what was pickled: that would run code.
        raise PrivacyError(
            f"{path} is no .npz of arrays of numbers; write it with numpy.savez, each array of one "
            "plain type"
        ) from None


def _floats(path: Path, values: npt.NDArray[np.generic]) -> Floats:
    if values.dtype.kind not in "iuf":
        raise PrivacyError(f"{path}: scores are finite numbers, not {values.dtype}")
    scores = values.astype(np.float64)
    for name, found in (("NaN", np.isnan(scores)), ("infinity", np.isinf(scores))):
        if found.any():
            raise PrivacyError(
                f"{path}: scores hold {name} ({int(found.sum()):,} of {scores.size:,}); leave "
                "those out, or say how sure the attack is of them"
            )
    return scores


def _bools(path: Path, values: npt.NDArray[np.generic]) -> Bools:
    if values.dtype != np.bool_:
        raise PrivacyError(f"{path}: who was a member is told by bool, not {values.dtype}")
    return values.astype(np.bool_)
