"""Kinds of votes: each is fitted on out-of-fold probabilities, kept as plain JSON, and applied image by image.

A kind may end in `+offsets`: then its classes are chosen after offsets that raise macro-F1 (class_offsets), and its
probabilities are those of the kind without.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.ensemble import OFFSETS, VOTE_KINDS
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import MOST_FITTED, Candidates, equal_shares, mixture_of, model_means, subsample
from foldvote.ensemble.class_offsets import fit_offsets, predict_classes
from foldvote.ensemble.greedy_selection import Metric, ensemble_selection
from foldvote.ensemble.stacking import MOST_STACKED, apply_lightgbm, apply_stacking, fit_lightgbm, fit_stacking
from foldvote.ensemble.weighting import (
    apply_class_weights,
    apply_factor_weights,
    apply_ranks,
    fit_class_weights,
    fit_factor_weights,
    fit_mixture_weights,
    fit_ranks,
)
from foldvote.errors import UserError
from foldvote.evaluation.calibration import apply_temperature, fit_temperature
from foldvote.evaluation.metrics import log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax, weighted_mean

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Params = dict[str, Any]
UNFITTED = ("mean", "geometric", "majority")
STACKED = ("stacking", "lightgbm")
PIECE = 4_096  # images applied at once: what they need stays in the processor's cache
TIE = 1e-3  # what the mean adds to shares of models; less than one model's share among fewer than 1000
FLOOR = 1e-12  # no model alone makes a class impossible in the geometric mean


def simplest_first(kinds: Iterable[str]) -> list[str]:
    """The kinds in order of simplicity; offsets, a number a class, count as more than a weight a candidate.

    Raises:
        UserError: if a kind is not known.
    """

    def place(kind: str) -> tuple[int, bool, int]:
        base, offsets = split_kind(kind)
        at = VOTE_KINDS.index(base)
        return (max(at, VOTE_KINDS.index("factor_weights")) if offsets else at, offsets, at)

    return sorted(kinds, key=place)


def split_kind(kind: str) -> tuple[str, bool]:
    """The kind without offsets, and whether it has them: `mean+offsets` gives mean and True.

    Raises:
        UserError: if it is not known.
    """
    base = kind.removesuffix(OFFSETS)
    if base not in VOTE_KINDS:
        raise UserError(f"vote: no kind {kind!r}; choose of {', '.join(VOTE_KINDS)}, each also with {OFFSETS}")
    return base, base != kind


def fit_vote(
    kind: str,
    candidates: Candidates,
    labels: Labels,
    scheme: LabelSpace,
    seed: int,
    *,
    folds: Labels | None = None,
    groups: Labels | None = None,
    metric: Metric = "log_loss",
    rows: Labels | None = None,
) -> Params:
    """Fit a vote.

    Args:
        kind: one of ensemble.VOTE_KINDS, also with `+offsets`.
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,).
        scheme: the classes.
        seed: the run's seed.
        folds: the fold of each image, by which stacking chooses its strength.
        groups: a code an image; over 50,000 images (20,000 of stacking and lightgbm) the fit is on a draw of whole
            groups (candidates.subsample).
        metric: what best_model and greedy improve.
        rows: places of the images that it may be fitted on; None: all of them.

    Returns:
        A JSON-able dict: `kind`, `candidates` (sorted names), what the kind has fitted, and `offsets` where asked for.

    Raises:
        UserError: if the kind is not known, does not fit the classes, or its package is missing.
        ValueError: if the labels do not fit the candidates.
    """
    base, offsets = split_kind(kind)
    labels = np.asarray(labels, np.int64)
    if labels.shape != (candidates.images,):
        raise ValueError(f"labels of shape {labels.shape} do not fit {candidates.images} images")
    candidates = candidates.ordered()
    names = list(candidates.names)
    if base not in UNFITTED or offsets:
        allowed = np.arange(len(labels)) if rows is None else np.asarray(rows)
        own = None if groups is None else np.asarray(groups)[allowed]
        drawn = allowed[subsample(len(allowed), own, seed, MOST_STACKED if base in STACKED else MOST_FITTED)]
        if len(drawn) < len(labels):
            candidates, labels = candidates.rows(drawn), labels[drawn]
            folds = None if folds is None else np.asarray(folds)[drawn]
    params = {"kind": kind, "candidates": names} | _fitted(base, candidates, labels, scheme, seed, folds, metric)
    if offsets:
        params["offsets"] = fit_offsets(apply_vote(candidates, params, scheme), labels)
    return params


def apply_vote(candidates: Candidates, params: Mapping[str, Any], scheme: LabelSpace) -> Floats:
    """The vote's probabilities, each image on its own: float64 (images, classes), rows sum to 1.

    Args:
        candidates: the same candidates as were fitted, in any order; others are ignored.
        params: what `fit_vote` gave.
        scheme: the classes.

    Raises:
        UserError: if a candidate is missing.
    """
    candidates = candidates.named(params["candidates"])
    base, _ = split_kind(params["kind"])
    votes = np.empty((candidates.images, candidates.classes))
    for start in range(0, candidates.images, PIECE):
        piece = slice(start, start + PIECE)
        votes[piece] = _applied(base, candidates.rows(piece), params, scheme)
    return votes


def decide_vote(probabilities: Floats, params: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The classes that a fitted vote chooses, after its offsets where it has any: int64 (images,)."""
    return predict_classes(probabilities, params.get("offsets"))


def _fitted(
    kind: str,
    candidates: Candidates,
    labels: Labels,
    scheme: LabelSpace,
    seed: int,
    folds: Labels | None,
    metric: Metric,
) -> Params:
    if kind == "weights":
        own = candidates.probabilities[:, np.arange(len(labels)), labels]
        return {"weights": dict(zip(candidates.names, fit_mixture_weights(own).tolist(), strict=True))}
    fits: dict[str, Callable[[], Params]] = {
        "mean": lambda: {"weights": equal_shares(candidates)},
        "geometric": lambda: {"weights": equal_shares(candidates)},
        "majority": dict,
        "best_model": lambda: {"weights": _best_model(candidates, labels, metric)},
        "rank": lambda: {"knots": fit_ranks(candidates)},
        "tempered": lambda: {"temperatures": _temperatures(candidates, labels)},
        "greedy": lambda: {"weights": ensemble_selection(candidates, labels, seed, metric)},
        "factor_weights": lambda: {"factors": fit_factor_weights(candidates, labels, scheme)},
        "class_weights": lambda: {"class_weights": fit_class_weights(candidates, labels)},
        "stacking": lambda: {"stacking": fit_stacking(candidates, labels, folds)},
        "lightgbm": lambda: {"lightgbm": fit_lightgbm(candidates, labels, seed)},
    }
    return fits[kind]()


def _applied(kind: str, candidates: Candidates, params: Mapping[str, Any], scheme: LabelSpace) -> Floats:
    applies: dict[str, Callable[[], Floats]] = {
        "geometric": lambda: _geometric(candidates, params["weights"]),
        "majority": lambda: _majority(candidates),
        "rank": lambda: apply_ranks(candidates, params["knots"]),
        "tempered": lambda: _tempered(candidates, params["temperatures"]),
        "factor_weights": lambda: apply_factor_weights(candidates, params["factors"], scheme),
        "class_weights": lambda: apply_class_weights(candidates, params["class_weights"]),
        "stacking": lambda: apply_stacking(candidates, params["stacking"]),
        "lightgbm": lambda: apply_lightgbm(candidates, params["lightgbm"]),
    }
    return applies.get(kind, lambda: mixture_of(candidates, params["weights"]))()


def _geometric(candidates: Candidates, weights: Mapping[str, float]) -> Floats:
    """The mean of log-probabilities, each at least log(1e-12), rows brought to the sum 1."""
    candidates = candidates.named(sorted(weights))
    logs = np.log(np.maximum(candidates.probabilities.astype(np.float64), FLOOR))
    return softmax(weighted_mean(logs, [weights[name] for name in candidates.names]))


def _temperatures(candidates: Candidates, labels: Labels) -> dict[str, float]:
    """The temperature that calibrates each candidate by itself."""
    pairs = zip(candidates.names, candidates.probabilities, strict=True)
    return {name: fit_temperature(own, labels) for name, own in pairs}


def _tempered(candidates: Candidates, temperatures: Mapping[str, float]) -> Floats:
    """The equal mean of candidates that are as sure as they are right: one that boasts outvotes no other."""
    scaled = [
        apply_temperature(own, temperatures[name])
        for name, own in zip(candidates.names, candidates.probabilities, strict=True)
    ]
    calibrated = Candidates(candidates.names, candidates.models, np.stack(scaled))
    return mixture_of(calibrated, equal_shares(calibrated))


def _majority(candidates: Candidates) -> Floats:
    """The share of models that choose a class, plus a thousandth of their mean, which orders ties; rows sum to 1."""
    _, means = model_means(candidates)
    chosen = np.eye(candidates.classes)[means.argmax(axis=2)].sum(axis=0) / len(means)
    total = chosen + TIE * weighted_mean(means)
    return total / total.sum(axis=1, keepdims=True)


def _best_model(candidates: Candidates, labels: Labels, metric: Metric) -> dict[str, float]:
    """Equal weights of the views of the one model with the best score; of equal ones the first by name."""
    models, means = model_means(candidates)
    if metric == "log_loss":
        losses = [log_loss(labels, mean) for mean in means]
    else:
        losses = [1 - macro_f1(labels, mean.argmax(axis=1), candidates.classes) for mean in means]
    best = models[int(np.argmin(np.round(losses, 12)))]
    views = candidates.models.count(best)
    named = zip(candidates.names, candidates.models, strict=True)
    return {name: 1 / views if model == best else 0.0 for name, model in named}
