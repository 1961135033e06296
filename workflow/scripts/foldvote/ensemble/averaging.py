"""Methods with few or no fitted numbers: means, the majority, the best model, rank averages, tempered means."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.candidates import Candidates, equal_shares, mixture_of, model_means
from foldvote.ensemble.ensemble_method import EnsembleMethod, FitContext, Floats, Labels, Need, Params
from foldvote.evaluation.calibration import apply_temperature, fit_temperature
from foldvote.evaluation.metrics import log_loss, macro_f1
from foldvote.evaluation.probabilities import softmax, weighted_mean

TIE = 1e-3  # what the mean adds to shares of models; less than one model's share among fewer than 1000
FLOOR = 1e-12  # no model alone makes a class impossible in the geometric mean
KNOTS = 257  # quantiles that stand for the distribution of a candidate's probabilities of a class


def fit_equal_weights(candidates: Candidates, _labels: Labels, _context: FitContext) -> Params:
    """`weights` by candidate: the same for every model, and for every view within a model."""
    return {"weights": equal_shares(candidates)}


def apply_weights(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The mean of probabilities by `weights`: float64 (images, classes)."""
    return mixture_of(candidates, params["weights"])


def apply_geometric(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The mean of log-probabilities by `weights`, each at least log(1e-12), normalised: float64 (images, classes)."""
    weights = params["weights"]
    candidates = candidates.named(sorted(weights))
    logs = np.log(np.maximum(candidates.probabilities.astype(np.float64), FLOOR))
    return softmax(weighted_mean(logs, [weights[name] for name in candidates.names]))


def fit_best_model(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """Equal `weights` for the views of the one model with the best score; of equal models the first by name."""
    models, means = model_means(candidates)
    if context.metric == "log_loss":
        losses = [log_loss(labels, mean) for mean in means]
    else:
        losses = [1 - macro_f1(labels, mean.argmax(axis=1), candidates.classes) for mean in means]
    best = models[int(np.argmin(np.round(losses, 12)))]
    share = 1 / candidates.models.count(best)
    pairs = zip(candidates.names, candidates.models, strict=True)
    return {"weights": {name: share if model == best else 0.0 for name, model in pairs}}


def fit_nothing(_candidates: Candidates, _labels: Labels, _context: FitContext) -> Params:
    """No parameters."""
    return {}


def apply_majority(candidates: Candidates, _params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The share of models that choose a class, plus a thousandth of their mean, which orders ties; normalised."""
    _, means = model_means(candidates)
    shares = np.eye(candidates.classes)[means.argmax(axis=2)].sum(axis=0) / len(means)
    total = shares + TIE * weighted_mean(means)
    return total / total.sum(axis=1, keepdims=True)


def fit_ranks(candidates: Candidates, _labels: Labels, _context: FitContext) -> Params:
    """`knots`: by candidate and class, the 257 quantiles of its probabilities of that class."""
    steps = np.linspace(0, 1, KNOTS)
    knots = {
        # Sorted first, or numpy selects each of 257 quantiles anew: a third of the time.
        name: np.quantile(np.sort(probabilities.T.astype(np.float64), axis=1), steps, axis=1).T.tolist()
        for name, probabilities in zip(candidates.names, candidates.probabilities, strict=True)
    }
    return {"knots": knots}


def apply_ranks(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The equal mean of percentile ranks, interpolated between the knots, normalised: float64 (images, classes).

    Knots of the same value count as their mean rank; a rank runs from 1/514 to 513/514.
    """
    ranks = np.empty(candidates.probabilities.shape)
    for rank, name, probabilities in zip(ranks, candidates.names, candidates.probabilities, strict=True):
        for code, values in enumerate(params["knots"][name]):
            unique, first, times = np.unique(values, return_index=True, return_counts=True)
            rank[:, code] = (np.interp(probabilities[:, code], unique, first + (times - 1) / 2) + 0.5) / KNOTS
    shares = equal_shares(candidates)
    total = weighted_mean(ranks, [shares[name] for name in candidates.names])
    return total / total.sum(axis=1, keepdims=True)


def fit_temperatures(candidates: Candidates, labels: Labels, _context: FitContext) -> Params:
    """`temperatures`: the one that calibrates each candidate on its own."""
    pairs = zip(candidates.names, candidates.probabilities, strict=True)
    return {"temperatures": {name: fit_temperature(probabilities, labels) for name, probabilities in pairs}}


def apply_temperatures(candidates: Candidates, params: Mapping[str, Any], _label_space: LabelSpace) -> Floats:
    """The equal mean of calibrated candidates, so that an overconfident one does not outweigh the others."""
    scaled = [
        apply_temperature(probabilities, params["temperatures"][name])
        for name, probabilities in zip(candidates.names, candidates.probabilities, strict=True)
    ]
    calibrated = Candidates(candidates.names, candidates.models, np.stack(scaled))
    return mixture_of(calibrated, equal_shares(calibrated))


_SEVERAL_MODELS = frozenset({Need.SEVERAL_MODELS})
_SEVERAL_CANDIDATES = frozenset({Need.SEVERAL_CANDIDATES})
MEAN = EnsembleMethod("mean", fit_equal_weights, apply_weights, is_fitted=False)
GEOMETRIC = EnsembleMethod("geometric", fit_equal_weights, apply_geometric, _SEVERAL_CANDIDATES, is_fitted=False)
BEST_MODEL = EnsembleMethod("best_model", fit_best_model, apply_weights, _SEVERAL_MODELS)
MAJORITY = EnsembleMethod("majority", fit_nothing, apply_majority, _SEVERAL_MODELS, is_fitted=False)
RANK = EnsembleMethod("rank", fit_ranks, apply_ranks, _SEVERAL_CANDIDATES, fits_certainty=True)
TEMPERED = EnsembleMethod("tempered", fit_temperatures, apply_temperatures, _SEVERAL_CANDIDATES, fits_certainty=True)
