"""Honest scores of votes: each fold's images are voted on by what was fitted on all other folds; and the choice.

Scoring a fitted vote on the images that it was fitted on rewards the kind with the most numbers (Cawley and Talbot,
"On over-fitting in model selection and subsequent selection bias in performance evaluation", JMLR 2010).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldvote.candidates import Candidates
from foldvote.errors import Refusal
from foldvote.greedy import Metric
from foldvote.labels import Scheme
from foldvote.seeds import generator
from foldvote.votes import UNFITTED, apply_vote, decide_vote, fit_vote

Codes = npt.NDArray[np.integer]
PARTS = 5


@dataclass(frozen=True)
class Nested:
    """A vote on images that it was not fitted on.

    Attributes:
        probabilities: float64 (images, classes), rows sum to 1.
        codes: the classes chosen, int64 (images,).
    """

    probabilities: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]


def nested(
    kind: str,
    candidates: Candidates,
    labels: Codes,
    folds: Codes,
    scheme: Scheme,
    seed: int,
    *,
    groups: Codes | None = None,
    metric: Metric = "log_loss",
) -> Nested:
    """Fit on all folds but one and apply on that one, for every fold; a kind that fits nothing is applied at once.

    Args:
        kind: as in `votes.fit_vote`, like the other arguments.
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,). Those of a fold never influence the rows of that fold.
        folds: the fold of each image, shape (images,), at least two different ones, none below 0; `nested_parts` gives
            them for any split.
        scheme: the classes.
        seed: the run's seed.
        groups: a code an image.
        metric: what best_model and greedy improve.

    Raises:
        Refusal: as `votes.fit_vote` does.
        ValueError: if the folds do not fit.
    """
    labels, folds = np.asarray(labels), np.asarray(folds)
    if kind in UNFITTED:
        probabilities = apply_vote(candidates, fit_vote(kind, candidates, labels, scheme, seed), scheme)
        return Nested(probabilities, probabilities.argmax(axis=1))
    known = np.unique(folds)
    if folds.shape != labels.shape or len(known) < 2 or known[0] < 0:
        raise ValueError(f"folds {known.tolist()} of shape {folds.shape}: expected two or more, one for each image")
    probabilities = np.empty((candidates.images, candidates.classes))
    codes = np.empty(candidates.images, np.int64)
    for fold in known:
        out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        given = {"folds": folds, "groups": groups, "metric": metric, "rows": rest}
        params = fit_vote(kind, candidates, labels, scheme, seed, **given)
        probabilities[out] = apply_vote(candidates.rows(out), params, scheme)
        codes[out] = decide_vote(probabilities[out], params)
    return Nested(probabilities, codes)


def nested_parts(folds: Codes, groups: Codes, seed: int, parts: int = PARTS) -> npt.NDArray[np.int64]:
    """The folds themselves where there are two or more and every image is in one, else parts of the groups.

    A hold-out has one fold, and some images may be in none (-1): there the models saw none of the images that are
    voted on either, and any split by groups is as honest.
    """
    known = np.unique(np.asarray(folds))
    if len(known) >= 2 and known[0] >= 0:
        return np.asarray(folds, np.int64)
    return profile_parts(groups, parts, seed)


def profile_parts(groups: Codes, parts: int, seed: int) -> npt.NDArray[np.int64]:
    """Whole groups dealt to parts of about equal size, the same whatever the order of the images.

    Args:
        groups: a code an image, shape (images,).
        parts: how many; as many as there are groups where these are fewer.
        seed: the run's seed.

    Returns:
        The part of each image, int64 (images,), 0 to parts - 1.

    Raises:
        Refusal: if there are fewer than two groups.
    """
    codes, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    parts = min(parts, len(codes))
    if parts < 2:
        raise Refusal("vote: a fitted vote needs at least two persons among the validated images; choose the mean")
    order = generator(seed, "vote", "parts").permutation(len(codes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    turn = np.arange(len(codes)) % (2 * parts)  # there and back, so that no part always comes first
    dealt = np.empty(len(codes), np.int64)
    dealt[order] = np.minimum(turn, 2 * parts - 1 - turn)
    return dealt[place]


def choose(
    kinds: Sequence[str],
    scores: Mapping[str, float],
    standard_errors: Mapping[str, float],
    *,
    higher_is_better: bool = True,
) -> str:
    """The simplest kind whose nested score is within one standard error of the best.

    The rule of Breiman, Friedman, Olshen and Stone, "Classification and regression trees" (1984), section 3.4.3, with
    the error of the paired difference, since all kinds vote on the same images.

    Args:
        kinds: in order of simplicity (votes.simplest_first).
        scores: nested score a kind.
        standard_errors: of the difference of each kind's score to the best one's; that of the best is not used.
        higher_is_better: False for a loss.

    Raises:
        ValueError: if there is no kind, or a score or an error is no finite number.
    """
    sign = 1 if higher_is_better else -1
    numbers = [scores[kind] for kind in kinds]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"scores {numbers} must be finite, and at least one")
    best = max(kinds, key=lambda kind: sign * scores[kind])
    for kind in kinds:
        behind = sign * (scores[best] - scores[kind])
        error = 0.0 if kind == best else standard_errors[kind]
        if not (math.isfinite(error) and error >= 0):
            raise ValueError(f"the standard error of {kind} is {error}")
        if behind <= error:
            return kind
    return best
